"""Pictures and coloured texts on one page: bands of panels side by side, with text rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from xai_lib.errors import InputError
from xai_lib.plots.pictures import Style, colours, overlay
from xai_lib.plots.style import DOUBLE, NORMAL, SMALL, styled
from xai_lib.plots.text.colours import CHOSEN, INK, OTHER
from xai_lib.plots.text.figure import BARS, HEAD, LINE, MARGIN, NOTE, Page, wrapped, wrapped_notes
from xai_lib.plots.text.lines import text_lines
from xai_lib.plots.text.rows import TextRow, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches: between two panels, of a title, of a colour scale below, between two bands, and the least
# width that coloured text stands beside pictures in.
GAP, TITLE, SCALE, BETWEEN, BESIDE = 0.14, 0.19, 0.2, 0.14, 2.2
HEIGHT, PALE = 1.9, "#475569"
PLAIN = Style()


@dataclass(frozen=True)
class Panel:
    """One picture: `draw` fills its axes. aspect: width over height. note: a line below the title.

    scale: RGB (n, 3) from `low` to `high`, drawn below; None for none.
    """

    title: str
    draw: Callable[[Axes], None]
    aspect: float = 1.0
    note: str = ""
    scale: np.ndarray | None = None
    low: float = 0.0
    high: float = 0.0


@dataclass(frozen=True)
class Band:
    """Panels side by side, `height` inches high if they fit; rows of text beside or below them.

    under: each row stands below the panel of its place, as wide as this.
    """

    panels: Sequence[Panel] = ()
    rows: Sequence[TextRow] = ()
    heading: str = ""
    height: float = HEIGHT
    under: bool = False


def image_panel(title: str, image: np.ndarray, note: str = "") -> Panel:
    """Return a panel of an image (H, W, 3) alone."""
    return Panel(title, lambda axes: _show(axes, image), image.shape[1] / image.shape[0], note)


def heat_panel(
    title: str, image: np.ndarray, heat: Tensor, style: Style = PLAIN, note: str = ""
) -> Panel:
    """Return a panel of an image (H, W, 3) with a heat map (H, W) over it, and its scale."""
    signed = style.signed if style.signed is not None else bool((heat < 0).any())
    high = float(heat.abs().max() if signed else heat.max())
    low = -high if signed else float(heat.min())
    ramp, _ = colours(torch.linspace(low, high, 64)[None], style)
    picture = overlay(image, heat, style)
    aspect = image.shape[1] / image.shape[0]
    return Panel(title, lambda axes: _show(axes, picture), aspect, note, ramp[0], low, high)


def bar_panel(
    title: str,
    rows: Sequence[tuple[str, float, float]],
    chosen: int | None = None,
    values: bool = False,
) -> Panel:
    """Return a panel of bars: (name, share before, share after), in [0, 1]; one is chosen.

    values: the numbers are no shares; the largest has the longest bar.
    """
    longest = max((abs(x) for row in rows for x in row[1:]), default=0.0) if values else 1.0

    def draw(axes: Axes) -> None:
        import seaborn

        for y, column, shade in ((0.52, 1, OTHER), (0.76, 2, CHOSEN)):
            shares = [max(row[column], 0) / (longest or 1) for row in rows]
            places = [place + y for place in range(len(rows))]
            # Whole numbers of places apart, so that a width is one of these units.
            seaborn.barplot(x=shares, y=places, ax=axes, orient="y", native_scale=True, width=0.2,
                            color=shade, saturation=1, errorbar=None)  # fmt: skip
        axes.set(xlim=(0, 1.42), ylim=(max(len(rows), 4) - 0.1, -0.1))
        axes.axis("off")
        for place, (name, before, after) in enumerate(rows):
            look = {"fontsize": SMALL, "parse_math": False}
            name = name if len(name) <= 26 else name[:25].rstrip() + "…"
            axes.text(0, place + 0.24, name, color=CHOSEN if place == chosen else INK,
                      va="center", **look)  # fmt: skip
            end = max(before, after, 0) / (longest or 1)
            told = f"{before:.3g} → {after:.3g}" if values else f"{before:.0%} → {after:.0%}"
            axes.text(end + 0.03, place + 0.64, told,
                      va="center", color=INK, **look)  # fmt: skip

    return Panel(title, draw, 1.15, "grey: whole, orange: pruned")


def sheet(bands: Sequence[Band], title: str = "", width: float = DOUBLE, note: str = "") -> Figure:
    """Return a figure `width` inches wide of bands one below the other; to be called in a style.

    Below stand `note` and what signs mean. Raises InputError where there is nothing to draw.
    """
    import matplotlib.pyplot as plt

    if not bands:
        raise InputError("There is nothing to draw.")
    figure = plt.figure(figsize=(width, 1), layout="none")
    page = Page(figure)
    placed = [_Placed(band, page, width - 2 * MARGIN) for band in bands]
    notes = wrapped(note, width - 2 * MARGIN)
    notes += wrapped_notes([row for band in bands for row in band.rows], width - 2 * MARGIN)
    total = 2 * MARGIN + (HEAD if title else 0) + NOTE * len(notes)
    total += sum(one.height for one in placed) + BETWEEN * (len(placed) - 1 + bool(notes))
    page.open(width, total)
    top = MARGIN
    if title:
        # `fitting` measures letters of the normal size.
        room = (width - 2 * MARGIN) * NORMAL / (NORMAL + 1.5)
        page.write(page.fitting(title, room), MARGIN, top + 0.62 * HEAD,
                   size=NORMAL + 1.5, weight="bold")  # fmt: skip
        top += HEAD
    for one in placed:
        one.draw(page, top)
        top += one.height + BETWEEN
    for note in notes:
        page.write(note, MARGIN, top + 0.6 * NOTE, size=SMALL, ink=PALE)
        top += NOTE
    return figure


sheet_figure = styled(sheet)


class _Placed:
    """A band with the sizes that its parts have on a page, in inches."""

    def __init__(self, band: Band, page: Page, width: float):
        self.band, self.width = band, width
        panels = band.panels
        gaps = GAP * (len(panels) - 1)
        aspects = sum(panel.aspect for panel in panels)
        self.side = min(band.height, (width - gaps) / aspects) if panels else 0.0
        used = aspects * self.side + gaps if panels else 0.0
        self.beside = bool(band.rows) and width - used - 2 * GAP >= BESIDE and not band.under
        self.text_left = used + 2 * GAP if self.beside and panels else 0.0
        self.text_width = panels[0].aspect * self.side if band.under else width - self.text_left
        self.blocks = [text_lines(row, self.text_width, page.width) for row in band.rows]
        self.heights = [
            page.head(row, self.text_width) + LINE * len(lines) + BARS * len(row.chances) + 0.08
            for row, lines in zip(band.rows, self.blocks, strict=True)
        ]
        self.notes = NOTE if any(panel.note for panel in panels) else 0.0
        self.scales = SCALE if any(panel.scale is not None for panel in panels) else 0.0
        titles = TITLE if any(panel.title for panel in panels) else 0.0
        self.above = titles + self.notes
        pictures = self.above + self.side + self.scales if panels else 0.0
        texts = max(self.heights, default=0.0) if band.under else sum(self.heights)
        self.start = 0.0 if self.beside else pictures
        self.head = HEAD if band.heading else 0.0
        self.height = self.head + (max(pictures, texts) if self.beside else pictures + texts)

    def draw(self, page: Page, top: float) -> None:
        if self.head:
            page.write(page.fitting(self.band.heading, self.width), MARGIN, top + 0.62 * HEAD,
                       size=NORMAL, weight="bold")  # fmt: skip
            top += self.head
        left = MARGIN
        for panel in self.band.panels:
            _panel(page, panel, left, top, self.side, self.above, self.notes)
            left += panel.aspect * self.side + GAP
        x, y = MARGIN + self.text_left, top + self.start
        for row, lines, height in zip(self.band.rows, self.blocks, self.heights, strict=True):
            page.block(row, lines, x, y, self.text_width)
            if self.band.under:
                x += self.text_width + GAP
            else:
                y += height


def _panel(
    page: Page, panel: Panel, left: float, top: float, side: float, above: float, notes: float
) -> None:
    width, height = page.figure.get_size_inches()
    wide = panel.aspect * side
    if panel.title:
        title = page.fitting(panel.title, wide)
        page.write(title, left, top + 0.62 * TITLE, size=NORMAL, weight="bold")
    if panel.note:
        note = page.fitting(panel.note, wide)
        page.write(note, left, top + above - notes + 0.6 * NOTE, size=SMALL, ink=PALE)
    bottom = height - top - above - side
    place = (left / width, bottom / height, wide / width, side / height)
    panel.draw(page.figure.add_axes(place))
    if panel.scale is not None:
        _scale(page, panel, left, top + above + side, wide)


def _scale(page: Page, panel: Panel, left: float, top: float, wide: float) -> None:
    """Draw a bar of colours with the numbers at its ends, centred below a panel."""
    low, high = (number(x) for x in (panel.low, panel.high))
    ends = [page.width(text, SMALL) + 0.05 for text in (low, high)]
    bar = min(0.8, max(wide - sum(ends), 0.2))
    start = left + (wide - bar - sum(ends)) / 2 + ends[0]
    y = top + 0.6 * SCALE
    page.write(low, start - 0.05, y, size=SMALL, ink=PALE, ha="right")
    page.write(high, start + bar + 0.05, y, size=SMALL, ink=PALE)
    page.axes.imshow(panel.scale[None], extent=(start, start + bar, y, y - 0.08), aspect="auto")
    page.axes.plot([start, start + bar, start + bar, start, start],
                   [y, y, y - 0.08, y - 0.08, y], color="#94a3b8", linewidth=0.4)  # fmt: skip
    # An image narrows the axes to itself.
    size = page.figure.get_size_inches()
    page.axes.set(xlim=(0, size[0]), ylim=(size[1], 0))


def _show(axes: Axes, image: np.ndarray) -> None:
    height, width = image.shape[:2]
    axes.imshow(image, interpolation="nearest", extent=(0, width, height, 0), aspect="auto")
    axes.axis("off")
