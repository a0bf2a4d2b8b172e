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

_WORD = re.compile(r"\S+")

Span = tuple[int, int]


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
    """Return the spans of the words of a text, as `str.split` finds them."""
    return [match.span() for match in _WORD.finditer(text)]


def words_with_tokens(tokens: TextScores) -> tuple[list[tuple[int, int, int]], list[list[int]]]:
    """Return (segment, start, end) of the words that have tokens, and the places of these."""
    words = [
        (segment, start, end)
        for segment, text in enumerate(tokens.texts)
        for start, end in words_of(text)
    ]
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
