"""Tokens taken out of a text: deleted, or another id put in their place."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from xai_lib.errors import OptionError
from xai_lib.evaluators.base import Subject
from xai_lib.evaluators.texts import ExplainedText
from xai_lib.evaluators.token_stream import TokenRow
from xai_lib.streams.words import words_of


def tokens_of_words(
    found: ExplainedText, text: str, places: Iterable[int]
) -> Bool[Tensor, " tokens"]:
    """Return which tokens hold a character of the words at `places` of `text`, the first one."""
    spans = words_of(text)
    letters = np.zeros(len(text) + 1, bool)
    for place in places:
        letters[slice(*spans[place])] = True
    tokens = found.tokens
    inside = [
        segment == 0 and bool(letters[start:end].any())
        for (start, end), segment in zip(tokens.spans, tokens.segments, strict=True)
    ]
    return torch.tensor(inside) & ~found.special


def without(row: TokenRow, gone: Bool[Tensor, " tokens"], fill: int | None) -> TokenRow:
    """Return a text without the tokens that are `gone`, or with the id `fill` in their place."""
    if fill is None:
        return {name: values[~gone] for name, values in row.items()}
    return row | {"input_ids": row["input_ids"].masked_fill(gone, fill)}


def pad_id(subject: Subject) -> int:
    """Return the id of padding, which takes the place of tokens; 0 in BERT, as published."""
    found = subject.processor.tokenizer.pad_token_id
    if found is None:
        raise OptionError(
            "The tokenizer has no padding token, which takes the place of the tokens that go. Set "
            "one: tokenizer.pad_token = tokenizer.eos_token."
        )
    return found


def mask_id(subject: Subject, instead: str) -> int:
    """Return the id of the mask token, or raise an OptionError that says what to do `instead`."""
    found = subject.processor.tokenizer.mask_token_id
    if found is None:
        raise OptionError(f"The tokenizer has no mask token: use {instead}.")
    return found
