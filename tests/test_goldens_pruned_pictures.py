"""The published pruned visualisations: the whole model's maps, without the pruned heads."""

import numpy as np
import pytest
import torch
from golden_questions import golden, golden_inputs, golden_model, relative_error

import xai_lib as xai
from xai_lib.errors import OptionError

pytestmark = pytest.mark.usefixtures("one_thread")

COUNTS = {"lxmert": "floor_kept", "visualbert_hfqa": "floor_pruned"} | {
    "visualbert_mmfhead": "floor_pruned"
}


def pruned_map(name, which, place, percent):
    """Return the two streams' relevance as drawn at `percent`, the model being whole."""
    model, inputs = golden_model(name), golden_inputs(name, which)
    target = int(golden(name)[f"in{which}/targets"][place])
    scores = xai.head_scores(model, inputs, target=target, compat="reference")
    mask = scores.mask(percent / 100, "negative", counts=COUNTS[name], per_sample=True)
    att = xai.explain(
        model, inputs, "generic_attention", target, head_mask=mask, compat="reference"
    )
    return att.streams["text"][0], att.streams["image"][0]


@pytest.mark.slow
@pytest.mark.parametrize("percent", [0, 40, 60, 90])
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_lxmert(which, place, percent):
    arrays, key = golden("lxmert"), f"out/nlp/vis_prune_{percent}"
    text, image = pruned_map("lxmert", which, place, percent)
    expected = [arrays[f"{key}/{R}/in{which}/t{place}"] for R in ("R_t_t", "R_t_i")]
    expected = [R.reshape(-1, R.shape[-1])[0] for R in expected]
    # The first token's own relevance is set to 0 in the end.
    text = torch.cat([torch.zeros(1), text[1:]])
    if percent == 90 and which == 0:
        # The published code divides 0 by 0 where a row has no relevance of others, and then drops
        # all that this site adds. Here such a row stays that of the identity (Eq. 8-9).
        assert not expected[1].any() and (image > 0).all()
        assert (text[1:].numpy() >= expected[0][1:]).all()
        return
    assert relative_error(text, expected[0]) < 1e-8
    assert relative_error(image, expected[1]) < 1e-8


@pytest.mark.parametrize("percent", [0, 40, 60, 90])
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("name", ["visualbert_hfqa", "visualbert_mmfhead"])
def test_visualbert(name, place, percent):
    expected = golden(name)[f"out/nlp/vis_prune_{percent}/cls_per_token_score/in0/t{place}"][0]
    found = torch.cat(pruned_map(name, 0, place, percent)).numpy()
    # The token that the answer is read from is set to 0 in the end; it is the last but one.
    own = golden_inputs(name, 0)["input_ids"].shape[1] - 2
    assert expected[own] == 0 and found[own] > 0
    found[own] = 0
    assert np.abs(found - expected).max() < 1e-8 * np.abs(expected).max()


def test_the_mask_must_be_one():
    with pytest.raises(OptionError, match=r"head_mask is \[0\]; expected a HeadMask"):
        xai.explain(
            golden_model("lxmert"), golden_inputs("lxmert", 0), "generic_attention", head_mask=[0]
        )
