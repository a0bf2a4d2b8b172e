"""A coloured line of text for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xai_lib.plots.text.colours import as_hex, colour, ink
from xai_lib.plots.text.pieces import pieces
from xai_lib.plots.text.rows import as_rows, printable

if TYPE_CHECKING:
    from rich.text import Text

# Below this share of the scale a unit keeps the terminal's own colours, whatever they are.
FAINT = 0.02


def terminal_line(scores) -> Text:
    """Return the text of one row (TextRow or TextScores) for `rich`, coloured unit by unit.

    Red is positive, blue negative; control characters are made visible, so that a text cannot drive
    the terminal. A second text follows on a line of its own.
    """
    from rich.text import Text

    (row,) = as_rows(scores)
    line = Text()
    for segment, cut in enumerate(pieces(row)):
        line.append("\n" if segment else "")
        for piece in cut:
            strength = row.strength(piece.score)
            style = ""
            if abs(strength) >= FAINT:
                background = colour(strength)
                style = f"{as_hex(ink(background))} on {as_hex(background)}"
            line.append(printable(piece.text).replace("\r", " "), style=style)
            if piece.special:
                line.append(" ")
    return line
