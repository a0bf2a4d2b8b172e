"""Text heat maps as matplotlib figures: wrapped, coloured words, a block a row."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from xai_lib.errors import InputError
from xai_lib.plots.fonts import drawable, families
from xai_lib.plots.style import DOUBLE, NORMAL, SMALL, styled
from xai_lib.plots.text.colours import CHOSEN, INK, OTHER, colour, ink
from xai_lib.plots.text.lines import text_lines, width_of
from xai_lib.plots.text.rows import TextRow, as_rows, number, printable, summary_notes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Inches. A page of pixels has its end at 2**16, some 430 inches of a saved figure.
MARGIN, LINE, HEAD, NOTE, SPACE, HIGHEST = 0.08, 0.185, 0.24, 0.145, 0.12, 300.0
# Width of a colour scale and of the numbers at its ends, height of a probability's bar.
BAR, ENDS, BARS = 0.8, 1.0, 0.165
SIZE, MEASURED = 8.5, 200


@styled
def text_figure(rows, title: str = "", width: float = DOUBLE, columns: int = 1) -> Figure:
    """Return a figure of rows (see `as_rows`): title, class, scale and the coloured text of each.

    width: inches; columns: rows side by side. Red is positive, blue negative, white zero, on a
    scale of each row's own; the notes below say what the sign means. Lines break at white space and
    where the text breaks them. A character of no installed font is drawn as an empty square.
    Raises InputError for texts of more lines than a picture can hold.
    """
    import matplotlib.pyplot as plt

    rows = as_rows(rows)
    figure = plt.figure(figsize=(width, 1), layout="none")
    page = Page(figure)
    across = (width - 2 * MARGIN - (columns - 1) * 2 * SPACE) / columns
    blocks = [text_lines(row, across, page.width) for row in rows]
    heads = [page.head(row, across) for row in rows]
    heights = [
        heads[i] + LINE * len(lines) + BARS * len(row.chances)
        for i, (row, lines) in enumerate(zip(rows, blocks, strict=True))
    ]
    bands = [range(i, min(i + columns, len(rows))) for i in range(0, len(rows), columns)]
    notes = wrapped_notes(rows, width - 2 * MARGIN)
    total = 2 * MARGIN + (HEAD if title else 0) + NOTE * len(notes)
    total += sum(max(heights[i] for i in band) + SPACE for band in bands)
    if total > HIGHEST:
        raise InputError(
            f"The texts take {sum(map(len, blocks))} lines, a figure of {total:.0f} inches; at "
            f"most {HIGHEST:.0f} can be drawn. Use text_html or text_latex, or draw fewer rows."
        )
    page.open(width, total)
    top = MARGIN
    if title:
        page.write(title, MARGIN, top + 0.7 * HEAD, size=NORMAL + 1.5, weight="bold")
        top += HEAD
    for band in bands:
        for place, i in enumerate(band):
            page.block(rows[i], blocks[i], MARGIN + place * (across + 2 * SPACE), top, across)
        top += max(heights[i] for i in band) + SPACE
    for note in notes:
        page.write(note, MARGIN, top + 0.7 * NOTE, size=SMALL, ink="#475569")
        top += NOTE
    return figure


class Page:
    """A figure with axes in inches from its upper left corner, on which text is written."""

    def __init__(self, figure: Figure):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.font_manager import FontProperties

        self.figure = figure
        # Finer than a screen, where hinting makes letters wider than they are in print.
        self.renderer = FigureCanvasAgg(Figure(dpi=MEASURED)).get_renderer()
        self.font = FontProperties(family=list(families()), size=SIZE)

    def open(self, width: float, height: float) -> None:
        self.figure.set_size_inches(width, height)
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(height, 0))
        self.axes.axis("off")

    def width(self, text: str, size: float = SIZE, weight: str = "normal") -> float:
        font = self.font.copy()
        font.set_size(size)
        font.set_weight(weight)
        return self.renderer.get_text_width_height_descent(text, font, False)[0] / MEASURED

    def write(self, text: str, x: float, y: float, *, size: float, ink="#1e293b", **look) -> None:
        font = self.font.copy()
        font.set_size(size)
        font.set_weight(look.pop("weight", "normal"))
        # A text with "$x$" in it is a text, not a formula.
        self.axes.text(x, y, drawable(text), fontproperties=font, color=ink, va="baseline",
                       parse_math=False, **look)  # fmt: skip

    def block(self, row: TextRow, lines, left: float, top: float, width: float) -> None:
        """Draw one row: its title with the scale, then its lines."""
        y = top + 0.6 * HEAD
        scale = self._scale(row, left + width, y) if len(row.scores) else 0.0
        title = self.fitting(row.title, width - SPACE - scale)
        self.write(title, left, y, size=NORMAL, weight="bold")
        if self.head(row, width) > HEAD:
            x, y = left, y + NOTE
            self.write(self.fitting(row.heading, width), x, y, size=NORMAL)
        else:
            self.write(row.heading, left + self._beside(title), y, size=NORMAL)
        y = self.lines(lines, left, top + self.head(row, width), width)
        for name, chance in row.chances:
            self._bar(name, chance, name == row.target, left, y, min(width, 3.2))
            y += BARS

    def lines(self, lines, left: float, y: float, width: float) -> float:
        """Draw coloured lines (see `text_lines`) from `y` down; return where they end."""
        from matplotlib.patches import Rectangle

        for line, from_right in lines:
            x = left + (width - width_of(line) if from_right else 0.0)
            for word in line:
                if word.colour is not None:
                    box = Rectangle((x, y + 0.015), word.width, LINE - 0.03, linewidth=0,
                                    facecolor=[c / 255 for c in word.colour])  # fmt: skip
                    self.axes.add_patch(box)
                front = [c / 255 for c in ink(word.colour or (255, 255, 255))]
                if word.text.strip():
                    self.write(word.text, x + word.width / 2, y + 0.72 * LINE, size=SIZE, ink=front,
                               ha="center")  # fmt: skip
                x += word.width
            y += LINE
        return y

    def head(self, row: TextRow, width: float) -> float:
        """Return the height of a row's title; the class stands below it where room is short."""
        used = self._beside(row.title) + self.width(row.heading, NORMAL)
        return HEAD + (NOTE if row.heading and used > width - BAR - ENDS else 0.0)

    def _beside(self, title: str) -> float:
        return self.width(title, NORMAL, "bold") + 0.08 if title else 0.0

    def _scale(self, row: TextRow, right: float, y: float) -> float:
        """Draw the scale of a row, its right end at `right`; return how wide it is."""
        from matplotlib.patches import Rectangle

        high = number(row.bound)
        low = f"−{high}" if row.signed and row.bound else "0"
        end = right - self.width(high, SMALL)
        self.write(high, end, y, size=SMALL, ink="#475569")
        start, steps = end - 0.06 - BAR, 64
        for i in range(steps):
            share = i / (steps - 1)
            shade = colour(2 * share - 1 if row.signed else share)
            box = Rectangle((start + i * BAR / steps, y - 0.085), BAR / steps + 0.004, 0.1,
                            linewidth=0, facecolor=[c / 255 for c in shade])  # fmt: skip
            self.axes.add_patch(box)
        frame = Rectangle(
            (start, y - 0.085), BAR, 0.1, fill=False, linewidth=0.4, edgecolor="#94a3b8"
        )
        self.axes.add_patch(frame)
        left = start - 0.06 - self.width(low, SMALL)
        self.write(low, left, y, size=SMALL, ink="#475569")
        return right - left

    def _bar(self, name: str, chance: float, chosen: bool, x: float, y: float, width: float):
        from matplotlib.patches import Rectangle

        shade, base = CHOSEN if chosen else OTHER, y + 0.72 * BARS
        self.write(self.fitting(name, 0.33 * width), x, base, size=SMALL,
                   ink=CHOSEN if chosen else INK)  # fmt: skip
        start = x + 0.35 * width
        length = 0.44 * width * chance
        box = Rectangle((start, base - 0.085), length, 0.095, linewidth=0, facecolor=shade)
        self.axes.add_patch(box)
        self.write(f"{chance:.1%}", start + length + 0.05, base, size=SMALL)

    def fitting(self, text: str, width: float) -> str:
        """Return the text, cut with an ellipsis where it is wider than `width`."""
        text = drawable(printable(text).replace("\n", " "))
        if self.width(text, NORMAL, "bold") <= width:
            return text
        while text and self.width(text + "…", NORMAL, "bold") > width:
            text = text[:-1]
        return f"{text.rstrip()}…" if text else ""


def wrapped_notes(rows: Sequence[TextRow], width: float) -> list[str]:
    """Return the notes of rows, broken into lines of `width` inches."""
    lines = []
    for who, note in summary_notes(rows):
        lines += wrapped(f"{who}. {note}" if who and len(rows) > 1 else note, width)
    return lines


def wrapped(text: str, width: float) -> list[str]:
    """Return small text broken into lines of `width` inches."""
    # 0.063 inches: a small character of average width.
    return textwrap.wrap(printable(text), int(width / 0.063), subsequent_indent="   ")
