"""Putting generated texts together: random choices, marks around what decides, sentences."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import TypeVar

from xai_lib.datasets.worlds.lexicon import NUMBERS, PEOPLE, PLACES, TIMES

T = TypeVar("T")

# Around the characters that decide a label, while a text is put together.
OPEN, CLOSE = "⟦", "⟧"
_MARK = re.compile(f"[{OPEN}{CLOSE}]")
_LETTER = re.compile(r"[^\W\d_]")


class Draw:
    """Random choices that depend on the key alone, on every machine and Python."""

    def __init__(self, *key: object):
        self._random = random.Random("/".join(map(str, key)))

    def chance(self, part: float) -> bool:
        """Return True in this part of the draws."""
        return self._random.random() < part

    def pick(self, choices: Sequence[T]) -> T:
        """Return one of the choices, all equally likely."""
        return choices[int(self._random.random() * len(choices))]

    def some(self, choices: Sequence[T], count: int) -> list[T]:
        """Return `count` different choices in random order."""
        left = list(choices)
        return [left.pop(int(self._random.random() * len(left))) for _ in range(count)]

    def filled(self, template: str) -> str:
        """Return a filler template with its people, times, places and numbers drawn."""
        who, when = self.pick(PEOPLE), self.pick(TIMES)
        return template.format(
            who=who,
            Who=who,
            when=when,
            When=f"{when},",
            place=self.pick(PLACES),
            number=self.pick(NUMBERS),
        )


def marked(phrase: str) -> str:
    """Return the phrase with marks around it: it decides the label."""
    return f"{OPEN}{phrase}{CLOSE}"


def unmarked(text: str) -> str:
    """Return the text without marks."""
    return _MARK.sub("", text)


def joined(sentences: Sequence[str]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Return the sentences as one text with capitals, and the spans that were marked in it."""
    text, spans, start = "", [], 0
    for piece in re.split(f"({OPEN}|{CLOSE})", " ".join(map(_capital, sentences))):
        if piece == OPEN:
            start = len(text)
        elif piece == CLOSE:
            spans.append((start, len(text)))
        else:
            text += piece
    return text, tuple(spans)


def free_words(sentences: Sequence[str]) -> int:
    """Return the number of words of the sentences that are not marked."""
    text, spans = joined(sentences)
    return len(text.split()) - sum(len(text[a:b].split()) for a, b in spans)


def _capital(sentence: str) -> str:
    first = _LETTER.search(sentence).start()
    return sentence[:first] + sentence[first].upper() + sentence[first + 1 :]
