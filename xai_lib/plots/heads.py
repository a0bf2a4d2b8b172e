"""Scores of attention heads: layer x head, stream by stream, with what is pruned hatched."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from xai_lib.errors import InputError, OptionError
from xai_lib.heads import HeadScores, ScoredSite
from xai_lib.plots.panels import LINE_HEIGHT, text_width
from xai_lib.plots.pictures import DIVERGING
from xai_lib.plots.sheet import Panel
from xai_lib.plots.style import DOUBLE, NORMAL, SINGLE, SMALL, styled
from xai_lib.tracing import HeadMask

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches: the highest cell, and the colour bar with its label.
CELL, BAR = 0.34, 0.85
UNREAD = "#e2e8f0"
MEANINGS = {
    "grad_x_attention": "gradient × attention,\nmean over the map (signed)",
    "lrp": "relevance of the attention,\nmean over the map (signed)",
    "taylor": "|Σ gradient × attention|\n(never negative)",
    "random": "random, as a control",
}


@dataclass(frozen=True)
class HeadGrid:
    """Scores of one stream's sites: rows in execution order, a column a head, NaN for none."""

    stream: str
    sites: tuple[ScoredSite, ...]
    values: np.ndarray
    kept: np.ndarray

    @property
    def labels(self) -> list[str]:
        """What the rows are called, such as "text 3 self"."""
        return [site_label(site) for site in self.sites]


def site_label(site: ScoredSite) -> str:
    """Return what a site is called: stream, number among the stream's sites, self or cross."""
    return f"{site.stream} {site.layer} {site.kind}"


def head_grids(
    scores: HeadScores, mask: HeadMask | None = None, sample: int | None = None
) -> list[HeadGrid]:
    """Return the scores of each stream, of one sample or averaged (None). Raises OptionError.

    mask: of `scores.mask(...)`: which heads stay, of `sample` where each has a mask of its own.
    """
    rows = len(scores.values)
    if sample is not None and not (isinstance(sample, int) and 0 <= sample < rows):
        raise OptionError(f"sample is {sample!r}; expected a number from 0 to {rows - 1}.")
    values = scores.values.detach().double().cpu()
    parts = (values.mean(0) if sample is None else values[sample]).split(scores.widths)
    found = []
    for stream in dict.fromkeys(site.stream for site in scores.sites):
        chosen = [
            (site, part)
            for site, part in zip(scores.sites, parts, strict=True)
            if site.stream == stream
        ]
        width = max(len(part) for _, part in chosen)
        grid, kept = np.full((len(chosen), width), np.nan), np.ones((len(chosen), width), bool)
        for place, (site, part) in enumerate(chosen):
            if site.reached:
                grid[place, : len(part)] = part
                kept[place, : len(part)] = _kept(mask, site, len(part), sample)
        found.append(HeadGrid(stream, tuple(site for site, _ in chosen), grid, kept))
    return found


@styled
def head_score_map(
    scores: HeadScores,
    mask: HeadMask | None = None,
    *,
    sample: int | None = None,
    title: str = "",
    numbers: bool | None = None,
) -> Figure:
    """Return a heat map of head scores, a panel a stream: sites in execution order x heads.

    Colours are centred at zero, red above and blue below, on one scale for all streams. mask: heads
    it prunes are hatched. sample: of which sample, by default the mean. numbers: write each score,
    signed, in its cell; by default where there is room. Sites that the prediction does not depend
    on are grey. Raises OptionError for a sample that is not there.
    """
    import matplotlib.pyplot as plt

    grids = head_grids(scores, mask, sample)
    bound, power = _scale(grids)
    texts = [_numbers(grid.values / 10.0**power) for grid in grids]
    columns = sum(grid.values.shape[1] for grid in grids)
    margin = max(text_width(label) for grid in grids for label in grid.labels) + 0.2
    widest = max((text_width(t) for part in texts for row in part for t in row), default=0.0)
    needed = columns * (widest + 0.08) + len(grids) * margin + BAR
    width = SINGLE if needed <= SINGLE else DOUBLE
    cell = (width - len(grids) * margin - BAR) / columns
    numbers = cell >= widest + 0.04 if numbers is None else numbers
    rows = max(len(grid.sites) for grid in grids)
    side = max(min(cell, CELL), LINE_HEIGHT)
    lowest = text_width(_unit(scores, power), NORMAL) + 0.6
    height = max(rows * side + 0.55, lowest) + (0.25 if title else 0.0)
    figure, spots = plt.subplots(
        1,
        len(grids),
        figsize=(width, height),
        squeeze=False,
        width_ratios=[grid.values.shape[1] for grid in grids],
    )
    for axes, grid, cells in zip(spots[0], grids, texts, strict=True):
        image = draw_heads(axes, grid, bound, cells if numbers else None)
    bar = figure.colorbar(image, ax=spots[0].tolist(), aspect=30, pad=0.02, shrink=1.0)
    bar.set_ticks([-bound, 0, bound], labels=[_signed(x, power) for x in (-bound, 0, bound)])
    bar.set_label(_unit(scores, power))
    bar.outline.set_linewidth(0.5)
    if title:
        figure.suptitle(title, fontsize=NORMAL + 1)
    return figure


def draw_heads(axes: Axes, grid: HeadGrid, bound: float, cells=None):
    """Draw one stream's grid into `axes`, colours from -bound to bound; return the mesh."""
    import seaborn
    from matplotlib.patches import Rectangle

    heads = grid.values.shape[1]
    axes.set_facecolor(UNREAD)
    seaborn.heatmap(
        grid.values,
        ax=axes,
        annot=False if cells is None else np.array(cells),
        fmt="",
        annot_kws={"fontsize": SMALL, "va": "center_baseline"},
        cmap=DIVERGING,
        vmin=-bound,
        vmax=bound,
        cbar=False,
        linewidths=0.8,
        xticklabels=["layer"] if heads == 1 else list(map(str, range(heads))),
        yticklabels=grid.labels,
    )
    axes.set_xlabel("" if heads == 1 else "head")
    axes.tick_params(length=0, rotation=0)
    for row, head in zip(*np.nonzero(~grid.kept), strict=True):
        axes.add_patch(Rectangle((head, row), 1, 1, facecolor="#ffffff99",
                                 hatch="/////", edgecolor="#334155", linewidth=0))  # fmt: skip
    for text in axes.texts:
        head, row = (int(place) for place in text.get_position())
        if not grid.kept[row, head]:
            text.set_color("black")
            text.set_bbox({"facecolor": "white", "linewidth": 0, "pad": 0.6})
    for row, site in enumerate(grid.sites):
        if not site.reached:
            axes.text(heads / 2, row + 0.5, "not read" if heads > 2 else "–", ha="center",
                      va="center_baseline", fontsize=SMALL, color="#475569")  # fmt: skip
    return axes.collections[0]


def head_panel(grid: HeadGrid, bound: float, side: float) -> Panel:
    """Return a panel of a page, `side` inches high, of one stream's heads (see `draw_heads`)."""
    margin = max(map(text_width, grid.labels)) + 0.1
    wide = margin + max(0.24 * grid.values.shape[1], 0.9)

    def draw(axes: Axes) -> None:
        axes.axis("off")
        draw_heads(axes.inset_axes((margin / wide, 0.36 / side, 1 - margin / wide,
                                    1 - 0.36 / side)), grid, bound)  # fmt: skip

    return Panel(grid.stream, draw, wide / side)


def panel_height(grids: list[HeadGrid]) -> float:
    """Return how many inches high a `head_panel` of the longest stream should be."""
    return 0.2 * max(len(grid.sites) for grid in grids) + 0.4


def scale_of(grids: list[HeadGrid]) -> float:
    """Return the end of one colour scale for all grids, 1 where every score is zero."""
    return _scale(grids)[0]


def _scale(grids: list[HeadGrid]) -> tuple[float, int]:
    """Return the largest |score| and the power of ten that scores are written in."""
    largest = max((float(np.nanmax(np.abs(g.values), initial=0.0)) for g in grids), default=0.0)
    if not math.isfinite(largest):
        raise InputError("The scores hold infinite numbers.")
    bound = largest or 1.0
    power = math.floor(math.log10(bound))
    return bound, power if power < 0 or power > 1 else 0


def _kept(mask: HeadMask | None, site: ScoredSite, width: int, sample: int | None) -> np.ndarray:
    keep = None if mask is None else mask.keep.get(site.call)
    if keep is None:
        return np.ones(width, bool)
    keep = torch.as_tensor(keep)
    if keep.dim() == 2:
        if sample is None and len(keep) > 1:
            raise InputError("The mask has a row a sample; choose one with sample=.")
        keep = keep[0 if len(keep) == 1 else sample]
    return _broadcast(keep, width).numpy() != 0


def _broadcast(keep: Tensor, width: int) -> Tensor:
    if keep.shape[0] not in (1, width):
        raise InputError(f"The mask has {keep.shape[0]} heads where the scores have {width}.")
    return keep.detach().cpu().expand(width)


def _numbers(values: np.ndarray) -> list[list[str]]:
    return [["" if np.isnan(x) else _signed(x, 0, 1) for x in row] for row in values]


def _signed(value: float, power: int, digits: int = 2) -> str:
    """Return a score in units of 10^power with its sign; a true minus."""
    text = f"{value / 10.0**power:+.{digits}f}"
    return text.replace("-", "−") if float(text) else "0"


def _unit(scores: HeadScores, power: int) -> str:
    meaning = MEANINGS.get(scores.method, scores.method.replace("_", " "))
    return f"{meaning}, ×10$^{{{power}}}$" if power else meaning
