"""Coloured text cut into lines of a width, each in the order in which it is seen."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from xai_lib.plots.fonts import drawable
from xai_lib.plots.text.colours import RGB, colour
from xai_lib.plots.text.directions import is_right_to_left, seen_order
from xai_lib.plots.text.pieces import Piece, pieces
from xai_lib.plots.text.rows import TextRow, printable

# From a text to its width, in inches.
Measure = Callable[[str], float]


@dataclass(frozen=True)
class Word:
    """What one line of a figure may hold: characters of one piece; None: a gap, not coloured."""

    text: str
    width: float
    colour: RGB | None = None


def text_lines(row: TextRow, width: float, measure: Measure) -> list[tuple[list[Word], bool]]:
    """Return the lines of a row's texts, from left to right; True for those of a right-to-left one.

    Lines break at white space and where the text breaks them; what is wider than a line is cut.
    """
    found = []
    for text, cut in zip(row.scores.texts, pieces(row), strict=True):
        from_right = is_right_to_left(text)
        lines = _wrapped(row, cut, width, measure)
        found += [(visual_order(line, from_right), from_right) for line in lines]
    return found


def visual_order(line: Sequence[Word], from_right: bool) -> list[Word]:
    """Return the words of a line as they stand from left to right (see `seen_order`)."""
    return [line[place] for place in seen_order([word.text for word in line], from_right)]


def width_of(words: Sequence[Word]) -> float:
    """Return the width of words side by side."""
    return sum(word.width for word in words)


def _wrapped(
    row: TextRow, cut: Sequence[Piece], width: float, measure: Measure
) -> Iterator[list[Word]]:
    line: list[Word] = []
    broken = False
    for run in _runs(cut):
        if run == "\n":
            yield line
            line, broken = [], False
            continue
        words = [
            part
            for piece, text in run
            for part in _parts(_word(row, piece, text, measure), width, measure)
        ]
        gap = all(word.colour is None and not word.text.strip() for word in words)
        if gap and broken and not line:
            continue
        if line and width_of(line) + width_of(words) > width and (gap or width_of(words) <= width):
            yield line
            line, broken = [], True
            words = [] if gap else words
        for word in words:
            if line and width_of(line) + word.width > width:
                yield line
                line, broken = [], True
            line.append(word)
    yield line


def _word(row: TextRow, piece: Piece, text: str, measure: Measure) -> Word:
    text = drawable(printable(text).expandtabs(4))
    background = colour(row.strength(piece.score)) if piece.units else None
    return Word(text, measure(text), background)


def _parts(word: Word, width: float, measure: Measure) -> Iterator[Word]:
    """Cut what is wider than a line."""
    while word.width > width:
        count = len(word.text)
        while count > 1 and measure(word.text[:count]) > width:
            count = min(count - 1, max(1, int(count * width / measure(word.text[:count]))))
        yield Word(word.text[:count], measure(word.text[:count]), word.colour)
        rest = word.text[count:]
        word = Word(rest, measure(rest), word.colour)
    yield word


def _runs(cut: Sequence[Piece]) -> Iterator[list[tuple[Piece, str]] | str]:
    """Yield what must stay on one line: pieces without white space between, spaces, line breaks."""
    run: list[tuple[Piece, str]] = []
    for piece in cut:
        for part in re.findall(r"\r\n|[\n\r]|[^\S\n\r]+|\S+", piece.text):
            if part.isspace() or piece.special:
                if run:
                    yield run
                    if piece.special:
                        yield [(Piece(" "), " ")]
                    run = []
                yield "\n" if part in ("\r\n", "\n", "\r") else [(piece, part)]
                if piece.special:
                    yield [(Piece(" "), " ")]
            else:
                run.append((piece, part))
    if run:
        yield run
