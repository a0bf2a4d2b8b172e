"""One style for every measured figure: sizes for print, and a fixed look for each method.

Colour says the family of a method; marker and line say which of the family it is, by its place in
the registry, so that a new method has its look by being registered. Colours of families differ
under every form of dichromacy and in lightness, and families of up to ten methods share no pair of
marker and line, so that a grey print still tells all of them apart.
"""

from __future__ import annotations

import functools
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from xai_lib.explainers.registry import all_methods

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
    # Coloured text is patches side by side: seaborn's white edges would cut them up.
    "patch.force_edgecolor": False,
    "image.cmap": "viridis",
}

SOLID, DASHED, DASH_DOTTED, DOTTED = "-", (0, (4, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (1, 1.2))
LINES = (SOLID, DASHED, DASH_DOTTED, DOTTED)
VARIANT_LINES = ((0, (8, 2)), (0, (2, 2)), (0, (6, 1, 1, 1, 1, 1)), (0, (3, 3)), (0, (9, 1, 2, 1)))
# Found by search: at least 22 apart in L*a*b* for every eye, 4 in lightness, 3:1 on white paper.
COLOURS = ("#558855", "#9922bb", "#0088ff", "#332266", "#33aa00", "#553300", "#007799")
SCORE_COLOUR = "#0000ee"
# Nineteen markers and four lines have no common divisor: counted through together, a pair of them
# returns after 76 places only. Each colour starts ten places after the one before.
MARKERS = (
    *("o", "^", "v", "D", "P", "X", "<", ">", "*", (4, 1, 0)),
    *("s", "p", (6, 1, 0), "d", "H", (3, 1, 0), "h", (8, 1, 0), "8"),
)
STEP = 10
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


# Scores of attention heads that are no methods of explanation; `lrp` and `random` are both.
SCORE_LOOKS = {
    "grad_x_attention": Look(SCORE_COLOUR, "o", SOLID),
    "taylor": Look(SCORE_COLOUR, "s", DOTTED),
}


def method_looks() -> dict[str, Look]:
    """Return the look of every registered method, by name."""
    methods = all_methods().values()
    # The control first, so that a new family leaves it its colour.
    families = sorted(dict.fromkeys(m.family for m in methods), key=lambda f: f != "control")
    drawn: Counter[int] = Counter()
    found = {}
    for method in methods:
        colour = families.index(method.family) % len(COLOURS)
        place = colour * STEP + drawn[colour]
        drawn[colour] += 1
        marker, line = MARKERS[place % len(MARKERS)], LINES[place % len(LINES)]
        found[method.name] = Look(COLOURS[colour], marker, line)
    return found


def look(label: str) -> Look:
    """Return the look of a label, the same in every figure and every session.

    "name:option=value" keeps the colour and marker of its method, hollow, with a line of its own;
    an unknown name is grey. Different labels of these two kinds can share a look: see `looks`.
    """
    fixed = method_looks() | SCORE_LOOKS
    if label in fixed:
        return fixed[label]
    name, _, options = label.partition(":")
    if name in fixed:
        return replace(fixed[name], line=_pick(VARIANT_LINES, options), filled=False)
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
    import seaborn

    # From matplotlib's defaults, since a user's own settings would otherwise show through; then
    # seaborn's theme for print, and what is ours.
    with matplotlib.style.context(["default", seaborn.axes_style("ticks"), RC]):
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
    if first.colour not in OTHER_GREYS:
        yield from (replace(first, line=line) for line in VARIANT_LINES)
        yield from (replace(first, marker=m, line=n) for m in OTHER_MARKERS for n in VARIANT_LINES)
    else:
        yield from (Look(c, m, filled=False) for m in OTHER_MARKERS for c in OTHER_GREYS)


def _pick(choices: tuple, text: str):
    # Not hash(), which is another one in every session.
    return choices[zlib.crc32(text.encode()) % len(choices)]
