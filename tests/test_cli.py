"""The command: what it prints and writes, and errors as one line with exit status 2."""

import json
import subprocess
import sys

import nbformat
import numpy as np
import pytest
import timm
import torch
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image
from safetensors.torch import load_file
from timm.models import save_for_hf

import xai_lib as xai
from xai_lib import cli
from xai_lib.doctor import examine, requirements
from xai_lib.errors import OptionError
from xai_lib.options import parse_pair


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with an image and a tiny model of three named classes."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    arguments = {"img_size": 32, "depth": 2}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, **arguments)
    torch.nn.init.normal_(model.head.weight)
    save_for_hf(
        model,
        tmp_path / "model",
        model_config={"label_names": ["circle", "square", "star"]},
        model_args=arguments,
        safe_serialization=True,
    )
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "image.png")
    return tmp_path


@pytest.fixture
def run(monkeypatch, capsys):
    """Return a function from arguments to (exit status, stdout, stderr) of the command."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["xai", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        printed = capsys.readouterr()
        return stop.value.code or 0, printed.out, printed.err

    return call


def test_explain_writes_what_the_library_computes(here, run):
    status, out, err = run(
        *("explain", "image.png", "--model", "model", "--method", "rollout"),
        *("--target", "star", "--out", "map.safetensors", "--option", "start_layer=1"),
    )
    assert (status, err) == (0, "")
    assert "Explained: star (2) by rollout" in out and "Saved: map.safetensors" in out
    assert sum("%" in line for line in out.splitlines()) == 3
    assert [line[-4:] for line in out.splitlines() if line.startswith("*")] == [" (2)"]
    model, processor = xai.load("model")
    expected = xai.explain(model, processor("image.png"), "rollout", "star", start_layer=1)
    torch.testing.assert_close(load_file("map.safetensors")["relevance"], expected.relevance)


def test_explain_makes_a_picture_by_default(here, run):
    status, out, _ = run("explain", "image.png", "--model", "model", "--method", "rollout")
    assert status == 0 and "Saved: image_rollout.png" in out
    assert Image.open(here / "image_rollout.png").size[0] > 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--model": "modell"}, "Unknown model 'modell'"),
        ({"--method": "rollot"}, "Did you mean 'rollout'"),
        ({"--target": "hexagon"}, "hexagon"),
        ({"--target": "3"}, "3"),
        ({"--option": "start_layer"}, "is not key=value"),
        ({"--option": "star_layer=1"}, "star_layer"),
        # Before anything is loaded or computed, so that no minutes are lost.
        ({"--out": "map.gif", "--model": "modell"}, "'.gif'; expected .png, .pdf, .svg"),
        ({"--out": "no/map.png", "--model": "modell"}, "The folder no does not exist"),
        ({"image.png": "gone.png"}, "No image file at 'gone.png'"),
    ],
)
def test_errors_are_one_line(here, run, change, message):
    arguments = {"--model": "model", "--method": "rollout"} | change
    image = arguments.pop("image.png", "image.png")
    status, out, err = run("explain", image, *(part for pair in arguments.items() for part in pair))
    assert status == 2 and out == "" and err.count("\n") == 1
    assert err.startswith("xai: ") and message in err


def test_usage_errors_exit_with_two(run):
    assert run("explain")[0] == 2
    assert run("nothing")[0] == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("steps=20", ("steps", 20)),
        ("alpha=0.5", ("alpha", 0.5)),
        ("normalize_rows=true", ("normalize_rows", True)),
        ("start_layer=null", ("start_layer", None)),
        ("rules=zplus", ("rules", "zplus")),
        ("name=a=b", ("name", "a=b")),
    ],
)
def test_option_values(text, expected):
    assert parse_pair(text) == expected


@pytest.mark.parametrize("text", ["", "=3", "a b=3", "steps"])
def test_options_that_are_none(text):
    with pytest.raises(OptionError, match="key=value"):
        parse_pair(text)


def test_targets():
    assert [cli.parse_target(text) for text in ("", "7", "-1", "tabby cat")] == [
        None,
        7,
        -1,
        "tabby cat",
    ]


def test_methods_and_models_list_every_name(run):
    _, out, _ = run("methods")
    for name, citation in xai.methods()[["name", "citation"]].to_numpy():
        assert name in out and citation in out
    _, out, _ = run("models")
    assert "timm:vit_base_patch16_224.orig_in21k_ft_in1k" in out


def test_report_fails_if_a_notebook_fails(here, run):
    notebooks = here / "notebooks"
    notebooks.mkdir()
    nbformat.write(new_notebook(cells=[new_code_cell("1 + 1")]), notebooks / "01_fine.ipynb")
    nbformat.write(new_notebook(cells=[new_code_cell("1 / 0")]), notebooks / "02_wrong.ipynb")
    status, out, err = run("report", "--out", "out")
    assert status == 1 and "out/index.html" in out
    assert err == "xai: 02_wrong failed: ZeroDivisionError: division by zero (cell 1)\n"
    assert run("report", "--out", "out", "--only", "01")[0] == 0
    status, _, err = run("report", "--only", "03")
    assert status == 2 and "No notebook is '03'" in err
    assert run("report", "--profile", "papers")[0] == 2


def test_doctor_names_versions_extras_checkpoints_and_data(run):
    status, out, _ = run("doctor")
    assert status == 0
    for section, facts in examine().items():
        assert section in out
        assert facts and all(name in out for name in facts)
    assert torch.__version__.split("+")[0] in out
    assert {"", "jax", "cluster", "captum", "dev"} == set(requirements())


def test_help_does_not_load_torch():
    code = (
        "import sys, xai_lib.cli, json\n"
        "try: sys.argv = ['xai', '--help']; xai_lib.cli.main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "print(json.dumps([name for name in ('torch', 'timm', 'pandas') if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []
    assert "doctor" in done.stdout
