"""Texts as a person reads them: tokens and words with their place in the text, and their scores."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

# How the scores of a word's pieces become the word's; the papers take the maximum.
REDUCTIONS = {
    "max": lambda scores: scores.amax(-1),
    "sum": lambda scores: scores.sum(-1),
    "mean": lambda scores: scores.mean(-1),
}

Span = tuple[int, int]

# Scripts that put no space between words, as ranges of characters. Of the syllabaries of Japanese,
# of Bopomofo and of points that are wide a run is a unit.
_RUNS = (
    "\u3041-\u3096\u309d-\u309f",
    "\u30a1-\u30fa\u30fc-\u30ff\uff66-\uff9f",
    "\u3105-\u312f",
    "\u3001-\u3003\u3008-\u3020\u3030-\u303f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65",
)
_HAN = (
    "\u2e80-\u2fd5\u3005-\u3007\u3021-\u3029\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
# Of Thai, Lao, Myanmar, Khmer and Tibetan: vowels that stand before their consonant, letters, and
# what belongs to the letter before it.
_BEFORE = "\u0e40-\u0e44\u0ec0-\u0ec4"
_LETTERS = (
    "\u0e01-\u0e2f\u0e46\u0e81-\u0eae\u0ebd\u0ec6\u0edc-\u0edf"
    "\u1000-\u102a\u103f\u1050-\u1055\u1780-\u17b3\u0f40-\u0f6c"
)
_MARKS = (
    "\u0300-\u036f\u0e30-\u0e3a\u0e45\u0e47-\u0e4e\u0eb0-\u0ebc\u0ec8-\u0ece\u102b-\u103e"
    "\u1056-\u1059\u17b4-\u17d3\u17dd\u0f71-\u0f84\u0f90-\u0fbc\u3099\u309a\ufe00-\ufe0f"
    "\U000e0100-\U000e01ef"
)
_UNSPACED = "".join((*_RUNS, _HAN, _BEFORE, _LETTERS))
_SPACED = re.compile(r"\S+")
_UNIT = re.compile(
    "|".join((
        *(f"[{run}][{run}{_MARKS}]*" for run in _RUNS),
        f"[{_HAN}][{_MARKS}]*",
        f"[{_BEFORE}]?[{_LETTERS}][{_MARKS}]*",
        rf"[^\s{_UNSPACED}]+|\S",
    ))
)  # fmt: skip


@dataclass(frozen=True)
class TextScores:
    """Units of one sample (tokens or words), where they lie in its text, and a score for each.

    texts: the sample's one or two texts. labels: what to call each unit. spans: its characters,
    start and end (exclusive), in texts[segment]; (0, 0) for special tokens. segments: 0 or 1.
    scores: (units,), or (targets, units) after `targets=[...]`.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    spans: tuple[Span, ...]
    segments: tuple[int, ...]
    scores: Float[Tensor, "*targets units"] = field(repr=False)

    def __len__(self) -> int:
        return len(self.labels)


def words_of(text: str) -> list[Span]:
    """Return the spans of the words of a text: what stands between white space.

    Where a script has no space between words, its smallest readable units stand for them: each
    Chinese character, runs of Hiragana and of Katakana, and of Thai, Lao, Myanmar, Khmer and
    Tibetan each letter with its marks. Words of other scripts between them stay whole.

    >>> [text[a:b] for text in ["good film", "这部Pixar电影"] for a, b in words_of(text)]
    ['good', 'film', '这', '部', 'Pixar', '电', '影']
    """
    return [match.span() for match in _UNIT.finditer(text)]


def spaced_words_of(text: str) -> list[Span]:
    """Return the spans of what stands between white space in any script, as `str.split` has it."""
    return [match.span() for match in _SPACED.finditer(text)]


def joined_words(words: Sequence[str]) -> tuple[str, tuple[Span, ...]]:
    """Return words that were given one by one as one text, a space between them, and their spans.

    >>> joined_words(["good", "film"])
    ('good film', ((0, 4), (5, 9)))
    """
    spans, start = [], 0
    for word in words:
        spans.append((start, start + len(word)))
        start += len(word) + 1
    return " ".join(words), tuple(spans)


def words_with_tokens(
    tokens: TextScores, spans: Sequence[Sequence[Span]]
) -> tuple[list[tuple[int, int, int]], list[list[int]]]:
    """Return (segment, start, end) of the words that have tokens, and the places of these.

    spans: those of the words of each text, in order.
    """
    words = [(segment, start, end) for segment, own in enumerate(spans) for start, end in own]
    members: list[list[int]] = [[] for _ in words]
    by_segment: dict[int, list[int]] = {}
    for number, (segment, _, _) in enumerate(words):
        by_segment.setdefault(segment, []).append(number)
    for place, (segment, (start, end)) in enumerate(
        zip(tokens.segments, tokens.spans, strict=True)
    ):
        for number in _overlapping(words, by_segment.get(segment, []), start, end):
            members[number].append(place)
    kept = [number for number, places in enumerate(members) if places]
    return [words[n] for n in kept], [members[n] for n in kept]


def _overlapping(words, numbers: Sequence[int], start: int, end: int) -> list[int]:
    first = bisect_right(numbers, start, key=lambda n: words[n][2])
    found = []
    for number in numbers[first:]:
        if words[number][1] >= end:
            break
        found.append(number)
    return found
