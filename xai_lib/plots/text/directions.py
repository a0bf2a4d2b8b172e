"""From which side a text is written, and in which order its words stand on a line (UAX #9)."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from bidi import algorithm, get_base_level

STRONG = {"L", "R", "AL"}
# What `algorithm` resolves. Marks that embed, override or isolate do not act on a figure's words:
# each is drawn in the direction of its own letters.
RESOLVED = STRONG | {"EN", "ES", "ET", "AN", "CS", "NSM", "S", "WS", "ON"}
STEPS = (
    algorithm.explicit_embed_and_overrides,
    algorithm.resolve_weak_types,
    algorithm.resolve_neutral_types,
    algorithm.resolve_implicit_levels,
    algorithm.reorder_resolved_levels,
)


def is_right_to_left(text: str) -> bool:
    """Whether the first letter with a direction runs from right to left (rules P2 and P3)."""
    # As one paragraph: the library looks at the first line alone.
    return get_base_level(" ".join(text.split()) or " ") == 1


def seen_order(words: Sequence[str], from_right: bool) -> list[int]:
    """Return the places of a line's words as they stand from left to right.

    A word stands where the first of its letters does, so that one in several pieces keeps its own
    direction within a text of the other one.
    """
    plain = ["".join(map(_resolvable, word)) or " " for word in words]
    storage = algorithm.get_empty_storage()
    storage |= {"base_level": int(from_right), "base_dir": "LR"[from_right]}
    algorithm.get_embedding_levels("".join(plain), storage)
    start = 0
    for place, word in enumerate(plain):
        letter = next((i for i, c in enumerate(word) if unicodedata.bidirectional(c) in STRONG), 0)
        storage["chars"][start + letter]["word"] = place
        start += len(word)
    for step in STEPS:
        step(storage, False)
    return [character["word"] for character in storage["chars"] if "word" in character]


def _resolvable(character: str) -> str:
    return character if unicodedata.bidirectional(character) in RESOLVED else " "
