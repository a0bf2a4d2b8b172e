"""A method is one file: what is registered there is found, explains, and is shown everywhere."""

import importlib
import sys

import pytest
import torch
from small_vits import random_pixels, random_vit

import xai_lib as xai
from xai_lib import explainers
from xai_lib.cli import main as cli
from xai_lib.cli import methods as cli_methods
from xai_lib.cli.methods import CHECKOUT, renewed, write_pages
from xai_lib.errors import InputError, OptionError, RunError
from xai_lib.explainers import citations, registry
from xai_lib.explainers.signs import signed
from xai_lib.plots import look, sign_note
from xai_lib.plots.style import method_looks

# fmt: off
ORDER = [
    "raw_attention", "rollout", "attn_gradcam", "generic_attention", "transformer_attribution",
    "lrp_rollout", "partial_lrp", "lrp", "attnlrp", "bi_head", "bi_token", "gradient",
    "gradient_x_input", "integrated_gradients", "smoothgrad", "gradient_sensitivity",
    "lrp_alpha_beta", "lat", "legrad", "random",
]
# fmt: on

MODULE = '''
"""A method in one file."""

from xai_lib.explainers.output import Output
from xai_lib.explainers.registry import explainer
from xai_lib.explainers.signs import signed
from xai_lib.passes.call import Call


@explainer(
    "brightness",
    family="attention",
    cite="{cite}",
    sign=signed("how bright it is; a negative score is a dark pixel").but(
        signed("how dark"), turned=True
    ),
    streams="apart",
)
def brightness(call: Call, *, turned: bool = False) -> Output:
    """The input itself: x, summed over channels."""
    run = call.forward(at_input=True, graph="as_is", keep=False)
    pixels = -run.features.detach() if turned else run.features.detach()
    found = call.each_target(run, lambda seed: pixels)
    return Output.at_input(call, found.sum(call.channel))
'''


@pytest.fixture
def added(tmp_path, monkeypatch):
    """Return a function that lays a module with the method `brightness` beside the others."""
    monkeypatch.setattr(registry, "_METHODS", dict(registry.all_methods()))

    def add(cite="bach2015"):
        (tmp_path / "brightness.py").write_text(MODULE.replace("{cite}", cite))
        importlib.invalidate_caches()
        monkeypatch.setattr(explainers, "__path__", [*explainers.__path__, str(tmp_path)])

    yield add
    sys.modules.pop("xai_lib.explainers.brightness", None)
    vars(explainers).pop("brightness", None)


def test_a_method_is_one_file(added, capsys):
    before, looks = list(registry.all_methods()), method_looks()
    added()
    names = [*xai.methods()["name"]]
    assert [name for name in names if name != "brightness"] == before
    assert names.index("lat") < names.index("brightness") < names.index("random")
    row = xai.methods().set_index("name").loc["brightness"]
    assert row["citation"] == "Bach et al., PLOS ONE 2015" and row["options"] == "turned=False"
    model = random_vit()
    pixels = random_pixels(model)
    att = xai.explain(model, pixels, "brightness", turned=True)
    torch.testing.assert_close(att.pixels.reshape(2, 16, 16), -pixels.sum(1))
    assert sign_note("brightness").startswith("Signed: how bright it is; ")
    assert sign_note(att.method, att.options) == "Signed: how dark."
    assert look("brightness").colour == look("rollout").colour
    assert {name: look(name) for name in before} == looks
    assert look("brightness") not in looks.values()
    page = renewed((CHECKOUT / "README.md").read_text(encoding="utf-8"))
    (line,) = [line for line in page.splitlines() if line.startswith("| `brightness` ")]
    assert "Bach et al., PLOS ONE 2015" in line
    cli_methods.methods()
    assert "brightness" in capsys.readouterr().out


def test_methods_keep_their_order_in_tables():
    assert [name for name in registry.all_methods() if name in ORDER] == ORDER
    assert list(registry.all_methods())[-1] == "random"


def test_a_name_belongs_to_one_module(added):
    added()
    registry.all_methods()

    def other(call):
        """Another one."""

    register = registry.explainer("brightness", family="new", cite="bach2015", sign=signed("x"))
    with pytest.raises(OptionError, match="choose another name"):
        register(other)
    other.__module__ = "xai_lib.explainers.brightness"
    assert register(other) is other and registry.all_methods()["brightness"].function is other


def test_a_citation_that_nobody_wrote_down_is_found_by_the_table(added, monkeypatch, capsys):
    added(cite="bach2051")
    assert registry.find("brightness", {}).name == "brightness", "explaining asks for no citation"
    with pytest.raises(OptionError, match="Did you mean 'bach2015'"):
        xai.methods()
    monkeypatch.setattr(sys, "argv", ["xai", "methods"])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert "CITATION.cff" in capsys.readouterr().err


def test_citations_are_found_in_a_checkout_and_in_a_wheel(tmp_path, monkeypatch):
    package = tmp_path / "site" / "xai_lib"
    (package / "explainers").mkdir(parents=True)
    monkeypatch.setattr(citations, "__file__", str(package / "explainers" / "citations.py"))
    text = (CHECKOUT / "CITATION.cff").read_text(encoding="utf-8")
    citations.references.cache_clear()
    with pytest.raises(InputError, match="install the package again"):
        citations.references()
    for place in (package.parent, package):
        (place / "CITATION.cff").write_text(text, encoding="utf-8")
        citations.references.cache_clear()
        assert citations.citation("abnar2020") == "Abnar & Zuidema, ACL 2020"
        (place / "CITATION.cff").unlink()
    citations.references.cache_clear()


def test_the_pages_are_renewed_together(tmp_path, capfd):
    with pytest.raises(InputError, match="no checkout"):
        write_pages(tmp_path)
    support = tmp_path / "tests" / "support"
    support.mkdir(parents=True)
    (support / "__init__.py").touch()
    (support / "__main__.py").write_text("print('the matrix')")
    (tmp_path / "README.md").write_text("no place")
    with pytest.raises(InputError, match="methods: begin"):
        write_pages(tmp_path)
    current = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    (tmp_path / "README.md").write_text(
        current.replace("| `rollout` ", "| `old` "), encoding="utf-8"
    )
    told = (CHECKOUT / "docs" / "conventions.md").read_text(encoding="utf-8")
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "conventions.md"
    page.write_text(told.replace("| `rollout` between", "| `old` between"), encoding="utf-8")
    write_pages(tmp_path)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == renewed(current)
    assert page.read_text(encoding="utf-8") == told
    assert "the matrix" in capfd.readouterr().out
    (support / "__main__.py").write_text("raise AssertionError('wrong answer')")
    with pytest.raises(RunError, match="above"):
        write_pages(tmp_path)
