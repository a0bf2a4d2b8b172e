"""Metrics by method: dots with their intervals, a panel each metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from pandas import DataFrame

from xai_lib.plots.panels import (
    check_frame,
    check_one_row_each,
    choose_metrics,
    column_count,
    heading,
    line_count,
    metric_label,
    settings,
    wrapped,
)
from xai_lib.plots.style import DOUBLE, SINGLE, SMALL, looks, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HINTS = {"high": "higher is better", "low": "lower is better"}
# Inches: one method's row, and the title, ticks and labels of a panel.
ROW, FRAME = 0.165, 0.75


@styled
def metric_dots(
    summary: DataFrame,
    metrics: Sequence[str] | None = None,
    panels: Sequence[str] = (),
    reference: Mapping[str, float] | float | None = None,
    reference_label: str = "chance",
    better: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Figure:
    """Return each method's value and 95 % interval, a panel each metric and setting of `panels`.

    summary: columns method, `panels`, metric, value, low, high, n. metrics: which, in order; all by
    default. reference: a dashed line, per metric or in all panels. better: metric, or a name of its
    panel such as an order, to "high" or "low". labels: axis label of a metric, with its unit. A
    method without a value keeps its row, marked "no value".
    """
    import matplotlib.pyplot as plt

    check_frame(summary, ("method", *panels, "metric", "value", "low", "high"), "The summary")
    summary = choose_metrics(summary, metrics)
    check_one_row_each(summary, ("method", *panels, "metric"), "The summary")
    found = settings(summary, ("metric", *panels))
    methods = list(dict.fromkeys(summary["method"]))
    columns = column_count(len(found))
    rows = -(-len(found) // columns)
    sizes = [line_count(wrapped(method)) for method in methods]
    places = [end - size / 2 for end, size in zip(accumulate(sizes), sizes, strict=True)]
    figure, spots = plt.subplots(
        rows,
        columns,
        figsize=(SINGLE if columns == 1 else DOUBLE, rows * (ROW * sum(sizes) + FRAME)),
        sharey=True,
        squeeze=False,
    )
    for axes in spots.flat[len(found) :]:
        axes.axis("off")
    for axes, ((metric, *setting), part) in zip(spots.flat, found.items(), strict=False):
        _dots(axes, part, dict(zip(methods, places, strict=True)))
        hints = [HINTS[better[name]] for name in (metric, *setting) if name in (better or {})]
        axes.set_xlabel("\n".join([metric_label(metric, labels), *hints[:1]]))
        axes.set_title(heading(setting), pad=6 if reference is None else 13)
        line = reference.get(metric) if isinstance(reference, Mapping) else reference
        if line is not None:
            axes.axvline(line, color="#555555", linestyle="--", linewidth=0.7, zorder=0)
            axes.annotate(reference_label, (line, 1), xycoords=("data", "axes fraction"),
                          xytext=(0, 1), textcoords="offset points", va="bottom", ha="center",
                          fontsize=SMALL, color="#555555")  # fmt: skip
    for axes in spots[:, 0]:
        axes.set_yticks(places, [wrapped(method) for method in methods])
        axes.set_ylim(sum(sizes) + 0.1, -0.1)
    return figure


def planted_evidence(summary: DataFrame, chance: float | None = None) -> Figure:
    """Return `metric_dots` of the localisation scores on planted evidence; more is better in all.

    chance: the score of a map that knows nothing, the evidence's mean share of the image, in the
    scores' unit; by default the mean of the summary's rows of the metric "chance", if it has any.
    """
    check_frame(summary, ("metric", "value"), "The summary")
    of_chance = summary["metric"] == "chance"
    if chance is None and of_chance.any():
        chance = float(summary.loc[of_chance, "value"].mean())
    scores = summary[~of_chance]
    return metric_dots(scores, reference=chance, better=dict.fromkeys(scores["metric"], "high"))


def _dots(axes: Axes, part: DataFrame, places: Mapping[str, float]) -> None:
    """Draw the dots of one panel, at the heights `places`.

    seaborn estimates an interval from single values and takes none that is known; the table's own
    is a line below its dot.
    """
    import seaborn

    drawn = looks(places)
    rows = {row.method: row for row in part.itertuples()}
    for method, y in places.items():
        row = rows.get(method)
        if row is None or row.value != row.value:
            axes.annotate("no value", (0.02, y), xycoords=("axes fraction", "data"), va="center",
                          fontsize=SMALL, color="#777777")  # fmt: skip
            continue
        axes.plot([row.low, row.high], [y, y], color=drawn[method].colour, linewidth=1.1)
        seaborn.pointplot(x=[row.value], y=[y], ax=axes, orient="y", native_scale=True,
                          errorbar=None, **drawn[method].dot(4.4))  # fmt: skip
    axes.grid()
    axes.tick_params(axis="y", length=0)
