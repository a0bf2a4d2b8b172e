"""The exact text of a row, cut into pieces that are drawn in one colour each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from xai_lib.plots.text.rows import TextRow, number


@dataclass(frozen=True)
class Piece:
    """A run of characters and the units behind it; none for what stands between units.

    Several tokens of a byte-level tokenizer can share one character: they are one piece, coloured
    by the strongest. special: no characters of the text, such as [CLS].
    """

    text: str
    units: tuple[tuple[str, float], ...] = ()
    special: bool = False

    @property
    def score(self) -> float | None:
        """The strongest score, None for a gap."""
        scores = [score for _, score in self.units]
        return max(scores, key=lambda s: abs(s) if math.isfinite(s) else -1.0, default=None)

    @property
    def told(self) -> str:
        """What a tooltip says: each unit with its number."""
        return ", ".join(f"{label}: {number(score)}" for label, score in self.units)


def pieces(row: TextRow) -> list[list[Piece]]:
    """Cut each of a row's texts into pieces that, in order, are exactly that text.

    Special tokens are pieces of their own, before or after the text. White space at the ends of a
    unit is left out of its piece.
    """
    return [
        [*before, *_cut(row.scores.texts[segment], units), *after]
        for segment, (before, units, after) in enumerate(_by_segment(row))
    ]


def _by_segment(row: TextRow) -> Iterator[tuple[list[Piece], list, list[Piece]]]:
    """Yield (special tokens before, units (start, end, label, score), special tokens after)."""
    s = row.scores
    found = [([], [], []) for _ in s.texts]
    for label, (start, end), segment, score in zip(
        s.labels, s.spans, s.segments, row.values, strict=True
    ):
        before, units, after = found[segment]
        if start < end:
            units.append((start, end, label, score))
        else:
            (after if units else before).append(Piece(label, ((label, score),), special=True))
    yield from found


def _cut(text: str, units: list[tuple[int, int, str, float]]) -> Iterator[Piece]:
    place = 0
    for start, end, members in _clusters(text, units):
        if start > place:
            yield Piece(text[place:start])
        yield Piece(text[start:end], tuple(members))
        place = end
    if place < len(text):
        yield Piece(text[place:])


def _clusters(text: str, units) -> Iterator[tuple[int, int, list[tuple[str, float]]]]:
    """Yield (start, end, units) of units that share characters; all others are alone."""
    current: tuple[int, int, list] | None = None
    for start, end, label, score in sorted(units, key=lambda unit: unit[:2]):
        inner = text[start:end]
        if inner.strip():
            start += len(inner) - len(inner.lstrip())
            end -= len(inner) - len(inner.rstrip())
        if current is not None and start < current[1]:
            current = (current[0], max(current[1], end), [*current[2], (label, score)])
            continue
        if current is not None:
            yield current
        current = (start, end, [(label, score)])
    if current is not None:
        yield current
