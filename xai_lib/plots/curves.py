"""Curves by method: perturbation, insertion and deletion, and sanity checks by depth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pandas import DataFrame

from xai_lib.errors import InputError
from xai_lib.plots.panels import (
    LINE_HEIGHT,
    check_frame,
    check_one_row_each,
    column_count,
    heading,
    legend_height,
    legend_table,
    legend_width,
    line_count,
    settings,
    text_width,
    wrapped,
)
from xai_lib.plots.style import DOUBLE, SINGLE, SMALL, Look, looks, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VALUES = ("value", "low", "high")
# The line of a published curve, as no method's own is.
DASHES: dict[str, object] = {"linestyle": (0, (2.5, 1.5)), "linewidth": 0.8, "alpha": 0.85}


@styled
def perturbation_curves(
    frame: DataFrame,
    auc: DataFrame | None = None,
    x: Sequence[float] | None = None,
    panels: Sequence[str] = ("order", "explained"),
) -> Figure:
    """Return accuracy over the share of pixels removed, a panel each order and explained class.

    frame: columns method, `panels`, step, value, low, high; accuracy in [0, 1], the band between
    low and high. x: share removed, in [0, 1], at step 0, 1, ...; None where `step` is that share.
    auc: rows of a summary table in one metric, for the legend.
    """
    return drawn_curves(frame, auc, x, panels, "pixels removed (%)", "accuracy (%)", percent=True)


@styled
def insertion_deletion_curves(
    frame: DataFrame,
    auc: DataFrame | None = None,
    x: Sequence[float] | None = None,
    panels: Sequence[str] = ("order",),
) -> Figure:
    """Return the probability of the explained class over the share of pixels changed (RISE).

    As `perturbation_curves`; the column `order` tells insertion from deletion.
    """
    label = "probability of the class (%)"
    return drawn_curves(
        frame, auc, x, panels, "pixels inserted or deleted (%)", label, percent=True
    )


@styled
def sanity_curves(
    frame: DataFrame,
    stages: Sequence[str],
    panels: Sequence[str] = (),
    ylabel: str = "similarity to the trained map",
) -> Figure:
    """Return the similarity of maps over the cascade of randomised stages (Adebayo et al. 2018).

    frame: columns method, `panels`, step, value, low, high. stages: the name of step 0, 1, ...
    """
    check_frame(frame, ("method", *panels, "step", *VALUES), "The frame of curves")
    last = int(frame["step"].max())
    if last >= len(stages) or frame["step"].min() < 0:
        raise InputError(
            f"The curves have steps up to {last}, but {len(stages)} stages are named; "
            "expected a name for each step from 0."
        )
    figure = drawn_curves(
        frame, None, None, panels, "randomised down to", ylabel, percent=False, height=2.3
    )
    panels_wide = figure.get_figwidth() / column_count(len(settings(frame, panels))) - 0.5
    # Slanted names need a line's height each; the first and the last stage are always named.
    every = math.ceil(len(stages) * LINE_HEIGHT / panels_wide)
    last = len(stages) - 1
    named = [i for i in range(last) if i % every == 0 and last - i >= every] + [last]
    for axes in _data_axes(figure):
        axes.set_xticks(range(len(stages)), minor=True)
        names = [stages[i] for i in named]
        axes.set_xticks(named, names, rotation=60, ha="right", rotation_mode="anchor")
    return figure


def drawn_curves(
    frame: DataFrame,
    auc: DataFrame | None,
    x: Sequence[float] | None,
    panels: Sequence[str],
    xlabel: str,
    ylabel: str,
    percent: bool,
    height: float = 1.85,
    counted: bool = False,
    published: DataFrame | None = None,
) -> Figure:
    """Return curves with bands, a panel each setting, and a legend below them.

    percent: of y, and of x but for counted, where x is a number. published: see `dashed`.
    """
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D
    from matplotlib.ticker import PercentFormatter

    groups = ("method", *panels)
    check_frame(frame, (*groups, "step", *VALUES), "The frame of curves")
    check_one_row_each(frame, (*groups, "step"), "The frame of curves")
    frame = frame if x is None else frame.assign(step=_places(frame["step"], x))
    theirs = {} if published is None else _published(published, frame, panels, x)
    found = settings(frame, panels)
    labels = list(dict.fromkeys(frame["method"]))
    numbers = {} if auc is None else _legend_numbers(auc, panels, found)
    wide = len(found) > 1 or legend_width(labels, numbers) > SINGLE
    width, columns = (DOUBLE if wide else SINGLE), column_count(len(found))
    if legend_width(labels, numbers) > width:
        numbers = {head: {k: v.split(" [")[0] for k, v in c.items()} for head, c in numbers.items()}
    rows = -(-len(found) // columns)
    heights = [rows * height + 0.3, legend_height(labels, numbers)]
    if not numbers:
        names = [wrapped(label) for label in labels] + (["published"] if theirs else [])
        per_row = max(1, int(width / (max(map(text_width, names)) + 0.6)))
        # Rows are as high as their highest name.
        lines = sum(sorted((line_count(name) for name in names), reverse=True)[::per_row])
        heights[1] = 0.16 * lines + 0.1
    figure = plt.figure(figsize=(width, sum(heights)))
    upper, lower = figure.subfigures(2, 1, height_ratios=heights)
    spots = upper.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in spots.flat[len(found) :]:
        axes.axis("off")
    for axes in spots.flat[max(len(found) - columns, 0) : len(found)]:
        # The lowest of its column, also where the last row is not full.
        axes.tick_params(labelbottom=True)
    drawn = looks(labels)
    for axes, (key, part) in zip(spots.flat, found.items(), strict=False):
        for label, line in part.groupby("method", sort=False):
            line = line.sort_values("step")
            axes.fill_between(line["step"], line["low"], line["high"], color=drawn[label].colour,
                              alpha=0.15, linewidth=0)  # fmt: skip
            curve(axes, line, label, drawn[label].curve())
        for label, line in theirs.get(key, {}).items():
            curve(axes, line, f"{label}, published", dashed(drawn[label]))
        axes.set(title=heading(key), xlabel="", ylabel="")
        axes.grid(axis="y")
        if percent and not counted:
            axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=""))
        if percent:
            axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    upper.supxlabel(xlabel, fontsize="medium")
    upper.supylabel(ylabel, fontsize="medium")
    if numbers:
        legend_table(lower.add_axes((0, 0, 1, 1)), labels, numbers)
    else:
        handles = [Line2D([], [], **drawn[label].curve()) for label in labels]
        if theirs:
            handles.append(Line2D([], [], **DASHES, color="#555555"))
        lower.legend(handles, names, loc="upper center", ncols=per_row, borderpad=0, fontsize=SMALL)
    return figure


def curve(axes: Axes, line: DataFrame, label: str, look: Mapping[str, object]) -> None:
    """Draw the column `value` over `step`; its interval is known, so that none is estimated."""
    import seaborn

    seaborn.lineplot(line, x="step", y="value", ax=axes, label=label, legend=False, estimator=None,
                     errorbar=None, **look)  # fmt: skip


def dashed(look: Look) -> dict[str, object]:
    """Return how a method's published curve is drawn: thin dashes, its marker small and hollow."""
    marker = look.dot(2.6) | {"markerfacecolor": "white", "markeredgecolor": look.colour}
    return marker | DASHES | {"markeredgewidth": 0.5}


def _published(
    published: DataFrame, frame: DataFrame, panels: Sequence[str], x: Sequence[float] | None
) -> dict[tuple, dict[str, DataFrame]]:
    """Return the published curves of the methods and panels that `frame` has."""
    groups = ("method", *panels)
    check_frame(published, (*groups, "step", "value"), "The frame of published curves")
    check_one_row_each(published, (*groups, "step"), "The frame of published curves")
    known = published[published["method"].isin(set(frame["method"]))]
    if x is not None and len(known):
        known = known.assign(step=_places(known["step"], x))
    return {
        key: {label: line.sort_values("step") for label, line in part.groupby("method", sort=False)}
        for key, part in settings(known, panels).items()
    }


def _places(step, x: Sequence[float]):
    numbers = step.to_numpy()
    if (numbers != numbers.astype(int)).any() or numbers.min() < 0 or numbers.max() >= len(x):
        raise InputError(
            f"The curves have steps from {numbers.min()} to {numbers.max()}, but x has "
            f"{len(x)} places; expected whole steps from 0 to {len(x) - 1}."
        )
    return [float(x[int(number)]) for number in numbers]


def _legend_numbers(
    auc: DataFrame, panels: Sequence[str], found: Mapping[tuple, DataFrame]
) -> dict[str, dict[str, str]]:
    check_frame(auc, ("method", *panels, "metric", *VALUES), "The table of AUCs")
    if auc["metric"].nunique() > 1:
        names = ", ".join(dict.fromkeys(auc["metric"]))
        raise InputError(f"The table of AUCs holds {names}; expected the rows of one metric.")
    check_one_row_each(auc, ("method", *panels), "The table of AUCs")
    parts = settings(auc, panels)
    numbers = {}
    for key in found:
        rows = parts[key].itertuples() if key in parts else ()
        head = heading(key, "\n") or "AUC"
        numbers[head] = {row.method: _interval(row.value, row.low, row.high) for row in rows}
    return numbers


def _interval(value: float, low: float, high: float) -> str:
    if value != value:
        return "–"
    return f"{value:.1f}" + (f" [{low:.1f}, {high:.1f}]" if low == low else "")


def _data_axes(figure: Figure) -> list:
    return [axes for axes in figure.axes if axes.lines and axes.axison]
