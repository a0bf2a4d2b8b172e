"""Methods as a command line names them: what is read, and what is refused before any work."""

import subprocess
import sys

import pytest

from xai_lib.errors import OptionError
from xai_lib.evaluators import MethodSpec, parse_methods
from xai_lib.explainers.registry import all_methods


def test_options_are_json_or_text_and_the_label_stays_as_it_was_written():
    found = parse_methods("lrp, bi_head:steps=4:feedback=none,rollout:compat=reference")
    assert [spec.label for spec in found] == [
        "lrp",
        "bi_head:steps=4:feedback=none",
        "rollout:compat=reference",
    ]
    assert found[1] == MethodSpec(found[1].label, "bi_head", {"steps": 4, "feedback": "none"})
    assert found[2].options == {"compat": "reference"}
    assert [spec.class_specific for spec in found] == [True, True, False]
    assert [spec.label for spec in parse_methods("all")] == list(all_methods())


@pytest.mark.parametrize(
    ("methods", "says"),
    [
        ("", "No method is named"),
        ([" ", ""], "No method is named"),
        ("lrp,rollout,lrp", "lrp is named twice"),
        ("lrp,roll_out", "Did you mean 'rollout'"),
        ("rollout:start_layers=1", "Did you mean 'start_layer'"),
        ("rollout:start_layer", "not key=value"),
        ("rollout:start_layer=one", "expected an integer"),
        ("rollout:start_layer=1:start_layer=2", "gives an option twice"),
        ("lrp,rollout:compat=refrence", "Unknown compat 'refrence'.*'reference'"),
    ],
)
def test_what_cannot_be_right_is_refused_before_any_work(methods, says):
    with pytest.raises(OptionError, match=says):
        parse_methods(methods)


def test_the_order_of_methods_does_not_hang_on_what_was_imported_first():
    script = "import xai_lib.explainers.lrp; import xai_lib as xai; print(*xai.methods()['name'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == [*all_methods()]
    assert done.stdout.split()[:2] == ["raw_attention", "rollout"]
