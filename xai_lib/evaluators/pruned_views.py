"""What a model of questions looks at and answers when more and more of its heads are pruned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from xai_lib.api import explain
from xai_lib.attribution import Attribution
from xai_lib.datasets.base import QuestionSample
from xai_lib.errors import InputError, OptionError
from xai_lib.heads import HeadScores, head_scores, prune_heads
from xai_lib.streams.targets import Target


@dataclass(frozen=True)
class PrunedView:
    """One fraction of pruned heads: the map without them, and what the model without them says."""

    fraction: float
    attribution: Attribution
    pruned: Attribution


@dataclass(frozen=True)
class PrunedViews:
    """The views of one sample, for `plots.pruned_visualisation`, and how its heads were ranked."""

    sample: QuestionSample
    processor: object
    views: tuple[PrunedView, ...]
    method: str
    order: str
    pruned_pass: bool


def pruned_views(
    model: nn.Module,
    processor: Any,
    sample: QuestionSample,
    fractions: Sequence[float] = (0, 0.4, 0.6, 0.9),
    *,
    method: str = "grad_x_attention",
    order: str = "negative",
    target: Target = None,
    counts: str = "floor_pruned",
    pruned_pass: bool = False,
) -> PrunedViews:
    """Return `generic_attention` of one question at each fraction of pruned heads.

    Heads are ranked by `head_scores(method)` of this sample, the least first (order="negative"). As
    published for LXMERT and VisualBERT, a map's forward and backward pass are those of the whole
    model and the mean still divides by all heads (`head_mask`); pruned_pass=True explains the
    pruned model instead. target: an answer; by default what the whole model answers. Raises
    InputError for another processor, and what `xai.head_scores` and `HeadScores.mask` raise.
    """
    if not len(fractions):
        raise OptionError("fractions is empty; expected numbers from 0 to below 1.")
    if not hasattr(processor, "of"):
        raise InputError(
            f"processor is {type(processor).__name__}; expected the QuestionProcessor that "
            "xai.load returns for models of questions."
        )
    inputs = processor.of(sample)
    names = getattr(processor, "class_names", ()) or ()
    target = names.index(target) if isinstance(target, str) and target in names else target
    scores = head_scores(model, inputs, method, target)
    assert isinstance(scores, HeadScores), "one score was asked for"
    chosen = int(scores.target.flatten()[0])
    views = []
    for fraction in fractions:
        mask = scores.mask(fraction, order, counts=counts, per_sample=True)
        with prune_heads(model, mask):
            pruned = explain(model, inputs, "generic_attention", chosen)
        shown = pruned
        if not pruned_pass:
            shown = explain(model, inputs, "generic_attention", chosen, head_mask=mask)
        views.append(PrunedView(fraction, shown, pruned))
    return PrunedViews(sample, processor, tuple(views), method, order, pruned_pass)
