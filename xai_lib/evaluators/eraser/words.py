"""Words of a document: which are evidence, which a method ranks first, ours and as published."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from xai_lib.errors import InputError
from xai_lib.streams.words import TextScores, spaced_words_of

SPECIAL = ("[CLS]", "[SEP]", "[UNK]", "[PAD]")


def evidence_spans(text: str, spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the words that share a character with each character span, as (start, end) places."""
    words, found = spaced_words_of(text), []
    for first, last in spans:
        inside = [n for n, (start, end) in enumerate(words) if first < end and start < last]
        if inside:
            found.append((inside[0], inside[-1] + 1))
    return found


def document_scores(text: str, words: TextScores) -> dict[int, float]:
    """Return the score of each word of the first text that has one, clamped at 0, by its place.

    Words that truncation cut off, or of characters that the tokenizer drops, have none.
    """
    places = {span: place for place, span in enumerate(spaced_words_of(text))}
    entries = zip(words.spans, words.segments, words.scores.double().tolist(), strict=True)
    return {places[span]: max(score, 0.0) for span, segment, score in entries if segment == 0}


def ranked(scores: dict[int, float]) -> list[int]:
    """Return the places by falling score; equal scores in the order of the text."""
    return sorted(scores, key=lambda place: (-scores[place], place))


def reference_word_scores(
    words: Sequence[str], pieces: Sequence[str], scores: Sequence[float]
) -> list[float]:
    """Return word scores as the published code makes them, by counting characters.

    '##' is removed and special pieces are dropped, [UNK] among them; each other piece gives its
    score to each of its characters, words take the characters in turn, and a word's score is its
    characters' maximum. Words behind the last character have none. An [UNK] takes no characters, so
    that words behind it read those of others. Raises InputError where the published code stops at
    an assertion: a word but the last that was read is not what its characters say.
    """
    letters: list[tuple[str, float]] = []
    for piece, score in zip(pieces, scores, strict=True):
        plain = piece.replace("##", "")
        if plain not in SPECIAL:
            letters += [(letter, score) for letter in plain]
    found, read, start = [], [], 0
    for word in words:
        if start >= len(letters):
            break
        part = letters[start : start + len(word)]
        read.append("".join(letter for letter, _ in part))
        # NumPy's maximum: NaN, where it occurs, is the maximum.
        found.append(float(np.max([score for _, score in part])))
        start += len(word)
    for word, letters_read in zip(words, read[:-1], strict=False):
        if word != letters_read:
            raise InputError(
                f"The pieces spell {letters_read!r} where the text has {word!r}: the published "
                "word scores lose their place behind an [UNK]. Leave compat out."
            )
    return found


def reference_selections(scores: Sequence[float], ks: Sequence[int]) -> list[list[int]]:
    """Return, for each of the rising `ks`, the words that the published file k names.

    File k repeats the lists of all smaller k. Equal scores go in the order of torch.topk, which is
    the machine's own; a document of fewer than k words has no file k, and no list here.
    """
    values, named, found = torch.tensor(scores, dtype=torch.float64), [], []
    for k in ks:
        if k > len(values):
            break
        named = [*named, *values.topk(k).indices.tolist()]
        found.append(named)
    return found
