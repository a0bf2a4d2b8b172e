"""CLIP perturbation as published by Beyond Intuition: pixels become the mean colour, by rank."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from xai_lib.evaluators import Subject
from xai_lib.evaluators.maps import enlarged, ranks
from xai_lib.evaluators.packing import PixelEdits, packed
from xai_lib.models import ZeroShotClassifier

pytestmark = pytest.mark.usefixtures("one_thread")

FILE = np.load(Path(__file__).parent / "goldens" / "mm" / "clip_seed0.npz")
SHORT = {"positive": "pos", "negative": "neg"}


@pytest.fixture(scope="module")
def subject():
    options = json.loads(str(FILE["meta/config_json"]))
    model = CLIPModel(CLIPConfig(**options, attn_implementation="sdpa")).double().eval()
    state = {k.removeprefix("state/"): torch.from_numpy(FILE[k]) for k in FILE if k[:6] == "state/"}
    model.load_state_dict(state, strict=False)
    prompts = {"input_ids": torch.from_numpy(FILE["in/input_ids"])}
    return Subject(ZeroShotClassifier(model, prompts), None, batch_size=8)


def image(number):
    return torch.from_numpy(FILE["in/pixel_values"]).double()[number : number + 1]


@pytest.mark.parametrize("order", SHORT)
@pytest.mark.parametrize("number", [0, 1])
def test_logits_given_the_published_masks(subject, order, number):
    """Through the stream of the perturbation evaluator with what fill='mean' puts there: 0."""
    key = "out/chen/perturbation"
    masks = torch.from_numpy(FILE[f"{key}/mask_{SHORT[order]}/im{number}"]).bool()
    pixels = image(number)
    fill, one = torch.zeros_like(pixels[0, :, :1, :1]), torch.tensor([1])
    edits = [
        PixelEdits(pixels[0], (~mask).int().view(32, 32), one, fill, [step])
        for step, mask in enumerate(masks)
    ]
    found = torch.cat(packed(subject, edits))
    expected = FILE[f"{key}/logits_{SHORT[order]}/im{number}"]
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize("order", SHORT)
@pytest.mark.parametrize("number", [0, 1])
def test_our_masks_are_as_large_and_as_relevant_as_the_published(order, number):
    key = "out/chen/perturbation"
    patches = torch.from_numpy(FILE[f"{key}/relevance16/im{number}"]).view(1, 4, 4)
    values = enlarged(patches, (32, 32))
    places = ranks(values, least_first=order == "negative").flatten()
    counts = [int(1024 * level) for level in FILE["meta/pert_levels"]]
    masks = torch.from_numpy(FILE[f"{key}/mask_{SHORT[order]}/im{number}"]).bool()
    for count, mask in zip(counts, masks, strict=True):
        ours = places < count
        assert int(ours.sum()) == int(mask.sum()) == count
        of = [values.flatten()[m].sort().values for m in (ours, mask)]
        torch.testing.assert_close(*of, rtol=0, atol=1e-9 * float(values.abs().max()))
