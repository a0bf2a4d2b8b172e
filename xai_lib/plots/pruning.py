"""Pruned heads: accuracy over what is pruned, and what a model looks at without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pandas import DataFrame

from xai_lib.plots.curves import drawn_curves
from xai_lib.plots.pairs import Drawn
from xai_lib.plots.pictures import Style
from xai_lib.plots.sheet import PLAIN, Band, sheet
from xai_lib.plots.style import DOUBLE, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from xai_lib.evaluators.pruned_views import PrunedViews


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
    views: PrunedViews, *, mode: str = "masked", style: Style = PLAIN, width: float = DOUBLE
) -> Figure:
    """Return image regions and question heat map at each fraction of pruned heads.

    views: of `evaluators.pruned_views`. mode: of regions, see `region_figure`. Notes say what the
    model without the heads answers. Raises InputError, OptionError.
    """
    sample, panels, rows = views.sample, [], []
    for view in views.views:
        drawn = Drawn(view.attribution, views.processor, sample.image, sample.boxes[None])
        answer = int(view.pruned.logits[0].argmax())
        told = f"“{drawn.name(answer)}”, {view.pruned.said(0, answer)}"
        panel, row = drawn.panels(style, mode)[-1], drawn.rows(answers=0)[0]
        panels.append(replace(panel, title=f"{view.fraction:.0%} pruned", note=told))
        rows.append(replace(row, title="", target="", probability=None, value=None))
    count = {"negative": "the least first", "positive": "the largest first"}[views.order]
    passes = (
        "those of the model without the heads"
        if views.pruned_pass
        else "those of the whole model, with the heads left out of the mean"
    )
    note = (
        f"Heads are ranked by {views.method}, {count}. Below each title: what the model answers "
        f"without them. Maps are for “{drawn.name(drawn.target)}”: {passes}."
    )
    band = Band(panels, rows, height=2.0, under=True)
    return sheet([band], f"“{sample.question}”", width, note)
