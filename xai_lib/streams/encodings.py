"""What a fast tokenizer's encodings say of each token: its characters, its text, its kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from xai_lib.streams.words import Span, joined_words

# The words that a person gave one by one, of each text of a sample.
Given = tuple[tuple[str, ...], ...]


def encodings_of(
    inputs: Mapping, ids: Int[Tensor, "batch tokens"]
) -> tuple[tuple | None, Bool[Tensor, "batch tokens"] | None]:
    """Return a fast tokenizer's encodings of `ids`, and its special tokens; None if unknown.

    Special are the tokens that the tokenizer added, and those that a person typed or a chat
    template wrote: what the processor noted as `.special`, and else every token with the id of
    one that was added. Inputs that were sorted, cut or edited after tokenizing are not what their
    encodings describe.
    """
    encodings = tuple(getattr(inputs, "encodings", None) or ())
    if [len(e.ids) for e in encodings] != [ids.shape[1]] * ids.shape[0]:
        return None, None
    added = torch.tensor([e.special_tokens_mask for e in encodings], device=ids.device).bool()
    same = ids == torch.tensor([e.ids for e in encodings], device=ids.device)
    if not same[added].all():
        return None, None
    noted = getattr(inputs, "special", None)
    if isinstance(noted, Tensor) and noted.shape == ids.shape and bool(same.all()):
        added = added | noted.to(ids.device)
    elif noted is None:
        added = added | torch.isin(ids, ids[added])
    return encodings if same.all() else None, added


def characters_of(
    encoding: Any, texts: Sequence[str] | None, given: Given | None
) -> tuple[Span, ...] | None:
    """Return the characters, start and end in its text, of every token of one encoding.

    given: the words of each text, where they were tokenized one by one: their offsets begin anew
    with each word, which stands in the text behind those before and a space each. Without `given`
    the text's words between white space are tried. None where they do not fit.
    """
    offsets = tuple(tuple(span) for span in encoding.offsets)
    if given is None:
        if not begins_anew(encoding):
            return offsets
        given = tuple(tuple(text.split()) for text in texts or ())
    starts = [[start for start, _ in joined_words(words)[1]] for words in given]
    found = []
    for span, word, text in zip(offsets, encoding.word_ids, encoding.sequence_ids, strict=True):
        if word is None or text is None:
            found.append(span)
            continue
        if text >= len(given) or word >= len(given[text]) or span[1] > len(given[text][word]):
            return None
        start = starts[text][word]
        found.append((start + span[0], start + span[1]))
    return tuple(found)


def begins_anew(encoding: Any) -> bool:
    """Whether an encoding's offsets count from the beginning of each word: it was given words."""
    places = [
        (text, word, start, end)
        for (start, end), word, text in zip(
            encoding.offsets, encoding.word_ids, encoding.sequence_ids, strict=True
        )
        if word is not None and text is not None and start < end
    ]
    return any(
        one[0] == other[0] and one[1] < other[1] and other[2] < one[3]
        for one, other in pairwise(places)
    )
