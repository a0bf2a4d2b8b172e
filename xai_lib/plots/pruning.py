"""Pruned heads: accuracy over what is pruned, and what a model looks at without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from pandas import DataFrame

from xai_lib.api import explain
from xai_lib.errors import InputError, OptionError
from xai_lib.heads import head_scores, prune_heads
from xai_lib.plots.curves import drawn_curves
from xai_lib.plots.pairs import Drawn
from xai_lib.plots.pictures import Style
from xai_lib.plots.sheet import PLAIN, Band, sheet
from xai_lib.plots.style import DOUBLE, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn


@styled
def pruning_curves(
    frame: DataFrame,
    auc: DataFrame | None = None,
    panels: Sequence[str] = ("order",),
    ylabel: str = "accuracy (%)",
    what: str = "heads",
) -> Figure:
    """Return accuracy over the share of heads (or layers) pruned, a panel each order.

    frame: columns method, `panels`, fraction (or step) in [0, 1], value, low, high; accuracy in
    [0, 1], the band between low and high. panels: such as ("model", "order"). auc: as of
    `perturbation_curves`. what: "heads" or "layers".
    """
    if isinstance(frame, DataFrame) and "step" not in frame and "fraction" in frame:
        frame = frame.rename(columns={"fraction": "step"})
    return drawn_curves(frame, auc, None, panels, f"{what} pruned (%)", ylabel, percent=True)


@styled
def pruned_visualisation(
    model: nn.Module,
    processor,
    sample,
    fractions: Sequence[float] = (0, 0.4, 0.6, 0.9),
    *,
    method: str = "grad_x_attention",
    order: str = "negative",
    target=None,
    counts: str = "floor_pruned",
    pruned_pass: bool = False,
    mode: str = "masked",
    style: Style = PLAIN,
    width: float = DOUBLE,
) -> Figure:
    """Return image regions and question heat map at each fraction of pruned heads.

    sample: a `QuestionSample`. Heads are ranked by `head_scores(method)` of this sample, the least
    first (order="negative"), and the map is `generic_attention` without them. As published for
    LXMERT and VisualBERT, its forward and backward pass are those of the whole model and the mean
    still divides by all heads (`head_mask`); pruned_pass=True explains the pruned model instead.
    target: an answer; by default what the whole model answers. Notes say what the model without
    the heads answers. Raises what `xai.head_scores` and `HeadScores.mask` raise.
    """
    fractions = list(fractions)
    if not fractions:
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
    chosen = int(scores.target.flatten()[0])
    panels, rows = [], []
    for fraction in fractions:
        mask = scores.mask(fraction, order, counts=counts, per_sample=True)
        with prune_heads(model, mask):
            pruned = explain(model, inputs, "generic_attention", chosen)
        att = pruned
        if not pruned_pass:
            att = explain(model, inputs, "generic_attention", chosen, head_mask=mask)
        drawn = Drawn(att, processor, sample.image, sample.boxes[None])
        answer = int(pruned.logits[0].argmax())
        chance = float(torch.softmax(pruned.logits[0].float(), -1)[answer])
        panel, row = drawn.panels(style, mode)[-1], drawn.rows(answers=0)[0]
        told = f"“{drawn.name(answer)}”, {chance:.1%}"
        panels.append(replace(panel, title=f"{fraction:.0%} pruned", note=told))
        rows.append(replace(row, title="", target="", probability=None))
    explained = drawn.name(chosen)
    count = {"negative": "the least first", "positive": "the largest first"}[order]
    passes = (
        "those of the model without the heads"
        if pruned_pass
        else ("those of the whole model, with the heads left out of the mean")
    )
    note = (
        f"Heads are ranked by {method}, {count}. Below each title: what the model answers without "
        f"them. Maps are for “{explained}”: {passes}."
    )
    band = Band(panels, rows, height=2.0, under=True)
    return sheet([band], f"“{sample.question}”", width, note)
