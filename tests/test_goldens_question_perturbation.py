"""Region and token perturbation of LXMERT and VisualBERT, as published (ICCV 2021), in float64."""

from types import SimpleNamespace

import pytest
import torch
from golden_questions import NAMES, golden, golden_inputs, golden_model, relative_error

import xai_lib as xai
from xai_lib.evaluators import Subject
from xai_lib.evaluators.packing import packed
from xai_lib.evaluators.question_perturbation import kept_parts
from xai_lib.evaluators.removal import closed_up
from xai_lib.models.processors.question_families import FAMILIES

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = {"lxmert": "lxmert"} | dict.fromkeys(NAMES[1:], "visual_bert")
CASES = [
    (name, number, stream, order)
    for name in NAMES
    for number in range(3)
    for stream in ("image", "text")
    for order in ("positive", "negative")
]


def perturbed(name, number, stream, order):
    """Return what stays at each step, and the logits of each, all steps in full batches."""
    model, inputs = golden_model(name), golden_inputs(name, number)
    target = int(golden(name)[f"in{number}/targets"][0])
    att = xai.explain(model, inputs, "generic_attention", target=target)
    regions = next(v for n, v in inputs.items() if n in ("visual_feats", "visual_embeds"))
    row = {"visual_attention_mask": torch.ones(regions.shape[1], dtype=torch.long)}
    row |= {key: values[0] for key, values in inputs.items()}
    family = FAMILIES[KINDS[name]]
    kept = kept_parts(
        att.streams[stream][0], stream, family.steps(stream), order, family.kept_at_end
    )
    processor = SimpleNamespace(tokenizer=SimpleNamespace(pad_token_id=0))
    subject = Subject(model, processor, batch_size=4)
    return kept, packed(subject, [closed_up(row, kept, 0, stream)])[0]


@pytest.mark.parametrize("name, number, stream, order", CASES)
def test_the_same_stay_and_the_logits_agree(name, number, stream, order):
    arrays = golden(name)
    kept, logits = perturbed(name, number, stream, order)
    where = f"out/mm/pert_{stream}_{order}"
    expected = arrays[f"{where}/kept/in{number}"]
    assert kept == [[place for place in line if place >= 0] for line in expected.tolist()]
    assert relative_error(logits, arrays[f"{where}/logits/in{number}"]) < 1e-8


@pytest.mark.parametrize("name", NAMES)
def test_the_steps_are_the_published_ones(name):
    arrays, family = golden(name), FAMILIES[KINDS[name]]
    for stream in ("image", "text"):
        key = "meta/mm_pert_steps" if name == "lxmert" else f"meta/mm_pert_steps_{stream}"
        assert list(family.steps(stream)) == arrays[key].tolist()
