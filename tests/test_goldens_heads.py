"""Head and layer scores and pruning of the published LXMERT and VisualBERT analyses."""

from functools import cache

import pytest
import torch
from golden_questions import NAMES, answers, golden, golden_inputs, golden_model, relative_error

import xai_lib as xai

pytestmark = pytest.mark.usefixtures("one_thread")

METHODS = {"grad": "grad_x_attention", "cam": "lrp"}
# Both repositories round the numbers that stay in their own way.
COUNTS = {"lxmert": "floor_kept", "visualbert_hfqa": "floor_pruned"} | {
    "visualbert_mmfhead": "floor_pruned"
}
CASES = [
    (name, f"in{number}", f"t{target}")
    for name in NAMES
    for number in range(3 if name == "lxmert" else 4)
    for target in (0, 1)
]


def streams(name):
    return ("text", "image") if name == "lxmert" else ("joint",)


@cache
def scores(name, which, target, level):
    """Return gradient and relevance scores of one golden input, from one forward pass."""
    found = xai.head_scores(
        golden_model(name),
        golden_inputs(name, which[2:]),
        methods=list(METHODS.values()),
        target=int(golden(name)[f"{which}/targets"][int(target[1])]),
        level=level,
        compat="reference",
    )
    return {short: found[method] for short, method in METHODS.items()}


@pytest.mark.parametrize("level", ["head", "layer"])
@pytest.mark.parametrize("name, which, target", CASES)
def test_scores(name, which, target, level):
    for short, found in scores(name, which, target, level).items():
        for stream in streams(name):
            suffix = f"_{stream}" if name == "lxmert" else ""
            expected = golden(name)[f"out/nlp/{level}_scores/{short}{suffix}/{which}/{target}"]
            grid = found.grid(stream)[0].reshape(expected.shape)
            assert relative_error(grid, expected) < (1e-8 if short == "grad" else 1e-6)


@pytest.mark.parametrize("order", ["positive", "negative"])
@pytest.mark.parametrize("level", ["head", "layer"])
@pytest.mark.parametrize("name, which, target", CASES)
def test_pruning(name, which, target, level, order):
    """The same heads go at each step, and all steps run as one batch with a mask for each row."""
    arrays = golden(name)
    steps = arrays["meta/pert_steps"].tolist()
    model = golden_model(name)
    batch = {
        key: value.repeat(len(steps), *[1] * (value.dim() - 1))
        for key, value in golden_inputs(name, which[2:]).items()
    }
    for short, found in scores(name, which, target, level).items():
        key = f"out/nlp/prune_{level}_{short}_{order}"
        number, indicator, logits = (
            torch.from_numpy(arrays[f"{key}/{part}/{which}/{target}"])
            for part in ("num_kept", "indicator", "logits")
        )
        kept = found.kept(steps, order, counts=COUNTS[name])
        assert (kept[:, found.candidates].sum(1) == number).all()
        assert (published_order(found, kept).reshape(indicator.shape) == indicator).all()
        with xai.prune_heads(model, found.mask(steps, order, counts=COUNTS[name])):
            output = model(**batch)
        assert relative_error(answers(output), logits) < 1e-8


def published_order(found, kept):
    """Return (steps, sites, width): text sites, then image sites, those that count."""
    parts = dict(zip(found.sites, kept.split(found.widths, 1), strict=True))
    ranked = sorted((s for s in parts if s.reached), key=lambda s: (s.stream != "text", s.call))
    return torch.stack([parts[site] for site in ranked], 1)


def test_the_last_image_layer_counts_for_nothing():
    """LXMERT answers from the text alone, so nothing reads what the last image sites make."""
    table = scores("lxmert", "in0", "t0", "layer")["grad"].table
    image = table[table.stream == "image"]
    assert (image.score[-2:] == 0).all() and (image.score[:-2] != 0).all()
    assert list(image.kind[-2:]) == ["cross", "self"]
    assert list(table.columns) == ["site", "call", "stream", "layer", "kind", "score"]
    assert list(table.call) == list(range(17))
