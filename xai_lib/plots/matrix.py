"""Methods against methods: how far they agree, and which differences are more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pandas import DataFrame

from xai_lib.errors import InputError, unknown_name
from xai_lib.plots.panels import (
    LINE_HEIGHT,
    check_frame,
    check_one_row_each,
    line_count,
    metric_label,
    text_width,
    wrapped,
)
from xai_lib.plots.pictures import DIVERGING
from xai_lib.plots.style import DOUBLE, NORMAL, SINGLE, SMALL, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Inches that the colour bar takes with its label.
BAR = 0.8
# Of what may be chance.
FAINT = "#666666"
ORDERS = ("given", "similar")


def square(frame: DataFrame, pair: Sequence[str] = ("method", "other")) -> DataFrame:
    """Return the symmetric methods x methods table of a frame with one row a pair; NaN for none.

    frame: columns `pair` and value, each pair once or in both directions alike. The diagonal is 1.
    """
    check_frame(frame, (*pair, "value"), "The frame of pairs")
    check_one_row_each(frame, pair, "The frame of pairs")
    names = list(dict.fromkeys([*frame[pair[0]], *frame[pair[1]]]))
    table = DataFrame(np.eye(len(names)) + np.where(np.eye(len(names)), 0, np.nan), names, names)
    for a, b, value in frame[[*pair, "value"]].itertuples(index=False):
        table.loc[a, b] = value
        if np.isnan(table.loc[b, a]):
            table.loc[b, a] = value
    return table


@styled
def agreement_matrix(
    table: DataFrame, order: str = "given", label: str = "rank correlation"
) -> Figure:
    """Return the heat map of a symmetric methods x methods table of correlations in [-1, 1].

    order: "given", or "similar": by the angle of each method in the plane of the two leading
    eigenvectors, cut at the widest gap (Friendly 2002, The American Statistician 56(4)).
    """
    if order not in ORDERS:
        raise unknown_name("order", order, ORDERS)
    if list(table.index) != list(table.columns):
        raise InputError(
            "The agreement table has other rows than columns; expected the same methods in the "
            "same order (`square` makes such a table of pairs)."
        )
    if order == "similar":
        names = [table.index[place] for place in _by_angle(table.to_numpy(np.float64))]
        table = table.loc[names, names]
    texts = table.map(lambda x: "" if np.isnan(x) else _short(x, 2))
    return _heat_map(table, texts, 1.0, label)


@styled
def differences_matrix(
    comparisons: DataFrame,
    metric: str,
    level: float = 0.05,
    labels: dict[str, str] | None = None,
) -> Figure:
    """Return the differences row - column of a metric, coloured where p_holm < `level`.

    comparisons: columns metric, method_a, method_b, difference, p_holm, one row a pair; further
    groups must be chosen before. A pair whose difference may be chance is "n.s." on white, one
    without a test is empty.
    """
    columns = ("metric", "method_a", "method_b", "difference", "p_holm")
    check_frame(comparisons, columns, "The comparisons")
    if metric not in set(comparisons["metric"]):
        raise unknown_name("metric", metric, set(comparisons["metric"]))
    pairs = comparisons[comparisons["metric"] == metric]
    check_one_row_each(pairs, ("method_a", "method_b"), "The comparisons")
    names = list(dict.fromkeys([*pairs["method_a"], *pairs["method_b"]]))
    table = DataFrame(np.nan, names, names)
    texts = DataFrame("", names, names)
    found = pairs[["method_a", "method_b", "difference", "p_holm"]].itertuples(index=False)
    sure = pairs.loc[pairs["p_holm"] < level, "difference"].abs()
    bound = float(sure.max()) if len(sure) else 1.0
    digits = 0 if bound >= 10 else 1 if bound >= 1 else 2
    for a, b, difference, p in found:
        for row, column, value in ((a, b, difference), (b, a, -difference)):
            if not np.isnan(p):
                table.loc[row, column] = value if p < level else 0.0
                texts.loc[row, column] = _short(value, digits) if p < level else "n.s."
    label = f"row − column, {metric_label(metric, labels)}\n(n.s.: Holm-corrected p ≥ {level:g})"
    return _heat_map(table, texts, bound, label)


def _heat_map(table: DataFrame, texts: DataFrame, bound: float, label: str) -> Figure:
    import matplotlib.pyplot as plt
    import seaborn

    count, names = len(table), [wrapped(name) for name in table.index]
    cell = max(text_width(text) for text in texts.to_numpy().ravel()) + 0.02
    width, side, margin = _size(names, cell)
    if side < LINE_HEIGHT * max(map(line_count, names)):
        names = list(table.index)
        width, side, margin = _size(names, cell)
    height = max(side * count + margin + 0.1, text_width(label, NORMAL) + 0.2)
    figure, axes = plt.subplots(figsize=(width, height))
    seaborn.heatmap(
        table.astype(float),
        ax=axes,
        annot=texts.to_numpy() if cell <= side else texts.where(texts == "n.s.", "").to_numpy(),
        fmt="",
        annot_kws={"fontsize": SMALL},
        cmap=DIVERGING,
        vmin=-bound,
        vmax=bound,
        square=True,
        linewidths=0.6,
        xticklabels=names,
        yticklabels=names,
        cbar_kws={"shrink": 0.8, "aspect": 25, "pad": 0.02},
    )
    axes.tick_params(length=0)
    axes.tick_params(axis="x", rotation=90)
    axes.tick_params(axis="y", rotation=0)
    for text in axes.texts:
        if text.get_text() == "n.s.":
            text.set_color(FAINT)
    # A label longer than the bar hangs down beside the names.
    bar = axes.collections[0].colorbar
    bar.set_label(label, loc="center" if text_width(label, NORMAL) < side * count else "top")
    bar.outline.set_linewidth(0.5)
    return figure


def _size(names: Sequence[str], cell: float) -> tuple[float, float, float]:
    """Return the width of the figure, of a cell and of the names, in inches."""
    count, margin = len(names), max(map(text_width, names)) + 0.2
    width = SINGLE if count * cell + margin + BAR <= SINGLE else DOUBLE
    return width, min(0.42, (width - margin - BAR) / count), margin


def _by_angle(correlations: np.ndarray) -> list[int]:
    """Return the places of the rows, ordered by the angle of their loadings; NaN counts as 0."""
    filled = np.nan_to_num(correlations)
    _, vectors = np.linalg.eigh((filled + filled.T) / 2)
    first, second = vectors[:, -1], vectors[:, -2]
    # An eigenvector has no sign of its own.
    first, second = (v * (1 if v[np.abs(v).argmax()] > 0 else -1) for v in (first, second))
    angles = np.arctan2(second, first)
    order = np.argsort(angles, kind="stable")
    gaps = np.diff(angles[order], append=angles[order[0]] + 2 * np.pi)
    start = int(gaps.argmax()) + 1
    return [*order[start:].tolist(), *order[:start].tolist()]


def _short(value: float, digits: int) -> str:
    """Return the number in little space: without a leading zero, and with a true minus."""
    if abs(value) > 1 - 1e-9 and digits == 2:
        return "1" if value > 0 else "−1"
    # Adding zero makes a rounded -0.0 positive.
    text = f"{round(value, digits) + 0.0:.{digits}f}".replace("1.00", "1.0").replace("-", "−")
    return text.replace("0.", ".", 1) if abs(value) < 1 and digits else text
