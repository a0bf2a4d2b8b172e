"""Regions and tokens of a question taken away by rank, as published for LXMERT and VisualBERT."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from xai_lib.evaluators.model_rows import ModelRow

# Fractions to take away. VisualBERT's image steps are denser, since MMF has 100 regions an image.
_STEPS = (0, 0.25, 0.5, 0.75, 0.8, 0.85, 0.9, 0.95, 1)
_STEPS_OF_100 = (0, 0.5, 0.75, 0.95, 0.96, 0.97, 0.98, 0.99, 1)
STEPS = {
    "lxmert": {"image": _STEPS, "text": _STEPS},
    "visual_bert": {"image": _STEPS_OF_100, "text": _STEPS},
}
# Tokens at the end that stay: [SEP], and before it the token that VisualBERT reads its answer at.
KEPT_AT_END = {"lxmert": 1, "visual_bert": 2}


def kept_regions(
    scores: Float[Tensor, " regions"], steps: Sequence[float], least_first: bool = False
) -> list[list[int]]:
    """Return the ⌊(1 - f) n⌋ regions that stay at each step f, those that stay longest first.

    The most relevant go first, or the least relevant ones. Equal scores go from the last region to
    the first. The product is that of floats, as published: 10 regions at f = 0.9 keep none.
    """
    ranked = scores.argsort(descending=least_first, stable=True).tolist()
    return [ranked[: int((1 - step) * len(ranked))] for step in steps]


def kept_tokens(
    scores: Float[Tensor, " tokens"],
    steps: Sequence[float],
    least_first: bool = False,
    at_end: int = 1,
) -> list[list[int]]:
    """Return the tokens that stay at each step, in the order of the question.

    The first token and the `at_end` last ones always stay; the others go as regions do.
    """
    last = max(len(scores) - at_end, 1)
    fixed = [0, *range(last, len(scores))]
    inner = kept_regions(scores[1:last], steps, least_first)
    return [sorted(fixed + [place + 1 for place in places]) for places in inner]


def with_only(row: ModelRow, stream: str, kept: Sequence[int]) -> ModelRow:
    """Return what the model takes of the question with only these regions, or these tokens."""
    of_regions = stream == "image"
    return {
        name: values[list(kept)] if name.startswith("visual_") == of_regions else values
        for name, values in row.items()
    }
