"""Words over a data set: means against each other, trained against random weights, rank tables."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from pandas import DataFrame

from xai_lib.errors import InputError
from xai_lib.plots.fonts import drawable, families
from xai_lib.plots.panels import LINE_HEIGHT, check_frame, column_count, text_width, wrapped
from xai_lib.plots.style import DOUBLE, SINGLE, SMALL, looks, styled
from xai_lib.plots.text.rows import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINT, EDGE = "#0077ff", "#444444"


@styled
def word_means_grid(table: DataFrame, correlations: DataFrame | None = None) -> Figure:
    """Return each two data sets' mean scores of their common words against each other.

    table: a row a word, a column a data set (`pair_table`). Below the diagonal a dot a word, on it
    each set's histogram, above it Pearson's r with the number of words. correlations: columns
    run_a, run_b, r, low, high for r and its interval; computed from the table without one (Wu & Ong
    2021, section 3.4).
    """
    import matplotlib
    import seaborn

    names = _columns(table, 2)
    size = (SINGLE if len(names) == 2 else DOUBLE) / len(names)
    texts = _texts(table, names, correlations)

    def correlation(x, y, **_) -> None:
        axes = matplotlib.pyplot.gca()
        axes.axis("off")
        axes.text(0.5, 0.5, texts[x.name, y.name], transform=axes.transAxes, ha="center",
                  va="center", fontsize=SMALL)  # fmt: skip

    # The grid lays itself out first, and as the project's style does at the end.
    with matplotlib.rc_context({"figure.constrained_layout.use": False}):
        grid = seaborn.PairGrid(table[names], height=size, diag_sharey=False)
        grid.map_lower(lambda x, y, **_: _dots(matplotlib.pyplot.gca(), x, y))
        grid.map_upper(correlation)
        grid.map_diag(
            seaborn.histplot, bins=20, binrange=(0, 1), color="#94a3b8", alpha=1, linewidth=0
        )
    for axes in grid.diag_axes:
        axes.set(xlabel="", ylabel="")
    grid.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    for axes, name in zip(grid.axes[-1], names, strict=True):
        axes.set_xlabel(wrapped(str(name)))
    for axes, name in zip(grid.axes[:, 0], names, strict=True):
        axes.set_ylabel(wrapped(str(name)))
    # The histogram beside it has another scale.
    grid.axes[0, 0].tick_params(axis="y", left=False, labelleft=False)
    grid.figure.set_layout_engine("constrained")
    return grid.figure


@styled
def initialisation_scatter(tables: Mapping[str, DataFrame]) -> Figure:
    """Return words' mean scores under random against trained weights, a panel a method.

    tables: by method, two columns, the trained model's means first, a row a word (`pair_table`).
    Each title holds Pearson's r (Wu & Ong 2021, section 3.5: near 1, a method shows the data rather
    than what was learnt).
    """
    import matplotlib.pyplot as plt

    if not tables:
        raise InputError("No table is given; expected {method: table of two columns}.")
    columns = column_count(len(tables))
    rows = -(-len(tables) // columns)
    width = SINGLE if columns == 1 else DOUBLE
    size = width / columns
    figure, spots = plt.subplots(rows, columns, figsize=(width, rows * (size * 0.95 + 0.1)),
                                 squeeze=False, sharex=True, sharey=True)  # fmt: skip
    drawn = looks(tables)
    for axes in spots.flat[len(tables) :]:
        axes.axis("off")
    for axes in spots.flat[max(len(tables) - columns, 0) : len(tables)]:
        axes.tick_params(labelbottom=True)
    for axes, (method, table) in zip(spots.flat, tables.items(), strict=False):
        first, second = _columns(table, 2, 2)
        _dots(axes, table[first], table[second], drawn[method].colour)
        axes.set_title(f"{wrapped(method)}\n{_pearson(table, first, second)}")
    figure.supxlabel(f"mean score, {first} weights", fontsize="medium")
    figure.supylabel(f"mean score, {second} weights", fontsize="medium")
    return figure


@styled
def rank_table_figure(table: DataFrame, title: str = "") -> Figure:
    """Return a table of each method's highest-ranking words as a figure.

    table: a column `rank`, then a column of words a method (`rank_table`; Wu & Ong 2021, section
    3.2.1). A method with fewer words leaves its cells empty.
    """
    import matplotlib.pyplot as plt

    check_frame(table, ("rank",), "The rank table")
    methods = [name for name in table if name != "rank"]
    if not methods:
        raise InputError("The rank table has no column of a method beside its ranks.")
    cells = {
        m: ["" if word != word or word is None else drawable(printable(str(word)))
            for word in table[m]]
        for m in methods
    }  # fmt: skip
    heads = {m: wrapped(m, 14) for m in methods}
    wide = [max(map(_wide, [heads[m], *cells[m]])) + 0.2 for m in methods]
    width = SINGLE if sum(wide) + 0.4 <= SINGLE else DOUBLE
    # Columns share what is left; where it is too little, words are cut.
    scale = (width - 0.5) / sum(wide)
    lines = max(head.count("\n") for head in heads.values()) + 1
    height = LINE_HEIGHT * 1.25 * (len(table) + lines + (1.5 if title else 0.2)) + 0.1
    figure = plt.figure(figsize=(width, height), layout="none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")

    def write(x: float, y: float, text: str, **look) -> None:
        axes.text(x, y, text, fontsize=SMALL, va="baseline", parse_math=False,
                  family=list(families()), **look)  # fmt: skip

    y = LINE_HEIGHT * 1.2
    if title:
        write(0.1, y, drawable(title), weight="bold")
        y += LINE_HEIGHT * 1.5
    left, places = 0.4, {}
    for method, space in zip(methods, wide, strict=True):
        places[method] = (left, space * scale - 0.1)
        for number, line in enumerate(heads[method].split("\n")):
            write(left, y + number * LINE_HEIGHT, _cut(line, space * scale - 0.1), color="#555555")
        left += space * scale
    y += LINE_HEIGHT * (lines - 1) + 0.05
    axes.plot([0.1, width - 0.1], [y, y], color="#999999", linewidth=0.5)
    for place, rank in enumerate(table["rank"]):
        y += LINE_HEIGHT * 1.25
        write(0.1, y, str(rank), color="#555555")
        for method, (x, room) in places.items():
            write(x, y, _cut(cells[method][place], room))
    return figure


def _columns(table: DataFrame, least: int, most: int | None = None) -> list[str]:
    """Return the names of the columns, which are to be numbers of at least three words."""
    names = list(table) if isinstance(table, DataFrame) else []
    if len(names) < least or (most is not None and len(names) > most) or len(table) < 3:
        wanted = f"{least}" if most == least else f"at least {least}"
        raise InputError(
            f"The table of words has {len(names)} columns and "
            f"{len(table) if names else 0} words; expected {wanted} columns and 3 words or more, "
            "such as pair_table returns."
        )
    return names


def _dots(axes: Axes, x, y, colour: str = POINT) -> None:
    import seaborn

    seaborn.scatterplot(x=x, y=y, ax=axes, s=6, color=colour, alpha=0.5, linewidth=0)
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.5, linestyle=":", zorder=0)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1],
             xlabel="", ylabel="")  # fmt: skip


def _texts(
    table: DataFrame, names: Sequence[str], correlations: DataFrame | None
) -> dict[tuple[str, str], str]:
    if correlations is None:
        return {(a, b): _pearson(table, a, b) for a in names for b in names if a != b}
    check_frame(correlations, ("run_a", "run_b", "r", "low", "high"), "The correlations")
    found = {}
    for row in correlations.itertuples():
        text = f"r = {row.r:.2f}\n[{row.low:.2f}, {row.high:.2f}]\nn = {len(table)}"
        found[row.run_a, row.run_b] = found[row.run_b, row.run_a] = text
    missing = [(a, b) for a in names for b in names if a != b and (a, b) not in found]
    if missing:
        raise InputError(f"The correlations lack the pair {missing[0]}; expected every pair.")
    return found


def _pearson(table: DataFrame, a: str, b: str) -> str:
    both = table[[a, b]].dropna().to_numpy(np.float64)
    if len(both) < 3 or not both.std(0).all():
        return f"r = –, n = {len(both)}"
    return f"r = {np.corrcoef(both.T)[0, 1]:.2f}, n = {len(both)}"


def _cut(text: str, width: float) -> str:
    """Return the text, ended by an ellipsis where it is wider than `width` inches."""
    if _wide(text) <= width:
        return text
    fits = bisect_right(range(len(text)), width, key=lambda end: _wide(text[:end] + "…"))
    return text[: max(fits - 1, 0)].rstrip() + "…"


def _wide(text: str) -> float:
    # As it is drawn: "$x$" is a word, not a formula.
    return text_width(text.replace("$", r"\$"))
