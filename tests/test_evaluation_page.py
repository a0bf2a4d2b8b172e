"""docs/evaluation.md names every evaluator and metric, and cites what CITATION.cff holds."""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from xai_lib.errors import OptionError
from xai_lib.evaluators import Evaluator, Metric, all_evaluators, create, registry

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize(("name", "kind"), all_evaluators().items())
def test_every_evaluator_has_a_section_with_its_metrics(name, kind):
    assert kind.name == name and f"| `{name}` |" in PAGE
    for metric in kind.metrics:
        shown = {metric.name, re.sub("_(mean|full)$", "", metric.name)}
        assert any(f"`{entry}`" in SECTIONS[name] for entry in shown), metric.name


def test_every_source_is_cited():
    references = yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"]
    known = {(ref["authors"][0]["family-names"], str(ref["year"])) for ref in references}
    # "Adebayo et al., NeurIPS 2018", "Phipson & Smyth 2010".
    pattern = r"([A-Z]\w+)(?: et al\.,?| & [A-Z]\w+)(?: [A-Z]\w+,?)* (\d{4})"
    named = set(re.findall(pattern, " ".join(PAGE.split())))
    families = ["Adebayo", "Arras", "Chefer", "Chen", "Efron", "Guillaumin", "Petsiuk", "Phipson"]
    assert {family for family, _ in named} >= {*families, "Wang", "Zhang"}
    assert named <= known


def test_an_evaluator_of_ones_own_is_one_class_under_a_free_name(monkeypatch):
    all_evaluators()  # what the room holds is registered first
    monkeypatch.setattr(registry, "_EVALUATORS", dict(registry._EVALUATORS))

    @dataclass
    class Largest(Evaluator):
        places: int = 1

        metrics = (Metric("largest", ("largest",)),)

        def rows(self, subject, batch, methods):
            yield from ()

    for _ in range(2):
        assert registry.evaluator("largest")(Largest) is Largest
    assert create("largest", places=3) == Largest(3) and Largest.name == "largest"
    with pytest.raises(OptionError, match="choose another name"):
        registry.evaluator("sanity")(Largest)
    assert Largest.name == "largest" and all_evaluators()["sanity"] is not Largest


def test_the_room_imports_cheaply():
    code = (
        "import sys, xai_lib.evaluators as room; "
        "print([m for m in sys.modules if m.startswith(room.__name__ + '.')])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "segmentation" not in found.stdout and "registry" in found.stdout
