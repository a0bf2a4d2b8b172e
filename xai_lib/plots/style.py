"""One style for every measured figure: sizes for print, and a fixed look for each method.

Line style says the family of a method (attention dashed, gradient-weighted attention solid, LRP
dash-dotted, gradients dotted); colour and marker say the method. Within a family the colours differ
under every form of dichromacy, and no two methods share a marker, so that a grey print still tells
them apart.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

# Inches: one and two columns of a printed page.
SINGLE, DOUBLE = 3.3, 6.9
# Points. `save_figure` pads by a tenth of an inch, so that a page scales figures by up to 0.97.
SMALL, NORMAL = 7.5, 8.0

RC = {
    # A font by its name, which matplotlib brings along: the same figure on every machine.
    "font.family": "DejaVu Sans",
    "font.size": NORMAL,
    "axes.titlesize": NORMAL,
    "axes.labelsize": NORMAL,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "axes.linewidth": 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.1,
    "grid.linewidth": 0.4,
    "grid.color": "#dddddd",
    "hatch.linewidth": 0.4,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}

SOLID, DASHED, DASH_DOTTED, DOTTED = "-", (0, (4, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (1, 1.2))
VARIANT_LINES = ((0, (8, 2)), (0, (2, 2)), (0, (6, 1, 1, 1, 1, 1)), (0, (3, 3)), (0, (9, 1, 2, 1)))
# Markers that cover little of their square are drawn larger, so that all weigh alike.
SIZES = {
    "o": 1.0,
    "s": 0.95,
    "D": 0.9,
    "*": 1.6,
    (4, 1, 0): 1.6,
    (6, 1, 0): 1.6,
    (3, 1, 0): 1.6,
    (8, 1, 0): 1.5,
}
OTHER_MARKERS = ("o", "s", "D", "^", "v", "P", "X")
OTHER_GREYS = ("#333333", "#666666", "#8c8c8c")


@dataclass(frozen=True)
class Look:
    """How one method is drawn; hollow markers are a method with options of its own."""

    colour: str
    marker: str | tuple[int, int, int]
    line: str | tuple = SOLID
    filled: bool = True

    def dot(self, size: float = 3.6) -> dict[str, object]:
        """Return the keywords of `Axes.plot` for a marker alone; size in points."""
        return {
            "markersize": size * SIZES.get(self.marker, 1.2),
            "color": self.colour,
            "marker": self.marker,
            "markerfacecolor": self.colour if self.filled else "white",
            "markeredgecolor": self.colour if not self.filled else "white",
            "markeredgewidth": 0.8 if not self.filled else 0.3,
            "linestyle": "",
        }

    def curve(self) -> dict[str, object]:
        """Return the keywords of `Axes.plot` for a line with markers."""
        return self.dot() | {"linestyle": self.line}


LOOKS = {
    "raw_attention": Look("#552299", "s", DASHED),
    "rollout": Look("#aa2244", "o", DASHED),
    "attn_gradcam": Look("#444400", "^", SOLID),
    "generic_attention": Look("#00bbcc", "v", SOLID),
    "transformer_attribution": Look("#0077ff", "D", SOLID),
    "lrp_rollout": Look("#ff8877", "<", DASH_DOTTED),
    "partial_lrp": Look("#aa0088", ">", DASH_DOTTED),
    "lrp": Look("#00aaff", "P", DASH_DOTTED),
    "attnlrp": Look("#007700", "X", DASH_DOTTED),
    "lrp_alpha_beta": Look("#0000ff", (8, 1, 0), DASH_DOTTED),
    "lat": Look("#000022", "H", DASHED),
    "bi_head": Look("#772255", "d", SOLID),
    "bi_token": Look("#ff8822", "*", SOLID),
    "gradient": Look("#005533", "p", DOTTED),
    "gradient_x_input": Look("#ff4488", (4, 1, 0), DOTTED),
    "integrated_gradients": Look("#cc8844", "h", DOTTED),
    "smoothgrad": Look("#7777cc", (6, 1, 0), DOTTED),
    "gradient_sensitivity": Look("#000044", (3, 1, 0), DOTTED),
    "random": Look("#44bbaa", "8", DASHED),
}

# Scores of attention heads that are no methods of explanation; `lrp` and `random` are both.
SCORE_LOOKS = {
    "grad_x_attention": Look("#aa2244", "o", SOLID),
    "taylor": Look("#000044", "s", DOTTED),
}


def look(label: str) -> Look:
    """Return the look of a label, the same in every figure and every session.

    "name:option=value" keeps the colour and marker of its method, hollow, with a line of its own;
    an unknown name is grey. Different labels of these two kinds can share a look: see `looks`.
    """
    if label in LOOKS or label in SCORE_LOOKS:
        return (LOOKS | SCORE_LOOKS)[label]
    name, _, options = label.partition(":")
    if name in LOOKS:
        return replace(LOOKS[name], line=_pick(VARIANT_LINES, options), filled=False)
    return Look(_pick(OTHER_GREYS, label), _pick(OTHER_MARKERS, label), filled=False)


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """Return a look for each label, no two alike in one figure while there are enough of them.

    Only where two labels would look the same does the later one, in the given order, leave the look
    that `look` gives it.
    """
    found: dict[str, Look] = {}
    for label in dict.fromkeys(labels):
        first = look(label)
        free = (choice for choice in _alternatives(label, first) if choice not in found.values())
        found[label] = next(free, first)
    return found


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw in the project's style inside the block; the caller's rcParams stay as they are."""
    import matplotlib.style

    # From matplotlib's defaults, since a user's own settings would otherwise show through.
    with matplotlib.style.context(["default", RC]):
        yield


def styled(draw: Callable) -> Callable:
    """Make a function that returns a figure draw it in the project's style, and close it."""

    @functools.wraps(draw)
    def drawn(*args, **kwargs):
        import matplotlib.pyplot as plt

        with figure_style():
            before = plt.get_fignums()
            try:
                figure = draw(*args, **kwargs)
                # How many ticks fit is asked at each drawing: of the settings, unless it is said.
                for axes in figure.axes:
                    axes.tick_params(labelsize=SMALL)
                # Ticks are made at the first drawing, in the style of that moment.
                figure.draw_without_rendering()
            finally:
                for number in set(plt.get_fignums()) - set(before):
                    plt.close(number)
        return figure

    return drawn


def _alternatives(label: str, first: Look) -> Iterator[Look]:
    yield first
    if label.partition(":")[0] in LOOKS:
        yield from (replace(first, line=line) for line in VARIANT_LINES)
        yield from (replace(first, marker=m, line=n) for m in OTHER_MARKERS for n in VARIANT_LINES)
    else:
        yield from (Look(c, m, filled=False) for m in OTHER_MARKERS for c in OTHER_GREYS)


def _pick(choices: tuple, text: str):
    # Not hash(), which is another one in every session.
    return choices[zlib.crc32(text.encode()) % len(choices)]
