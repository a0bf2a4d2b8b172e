"""Edited texts through the model: each distinct one once, in full batches of similar length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from xai_lib.evaluators.base import Subject
from xai_lib.passes.loan import borrowed
from xai_lib.streams.targets import logits_of

NOT_FINITE = "The model's logits hold NaN or Inf for a changed text of this sample"

# What a model takes of one text: input_ids, attention_mask and others, (tokens,) each.
TokenRow = dict[str, Tensor]

T = TypeVar("T")


def distinct(rows: Sequence[T], digest: Callable[[T], bytes]) -> tuple[list[T], list[int]]:
    """Return the rows without repetition, and for each row given which of them it equals."""
    found: dict[bytes, T] = {}
    digests = [digest(row) for row in rows]
    for key, row in zip(digests, rows, strict=True):
        found.setdefault(key, row)
    numbers = {key: number for number, key in enumerate(found)}
    return list(found.values()), [numbers[key] for key in digests]


def stream_ids(subject: Subject, rows: Sequence[TokenRow]) -> Float[Tensor, "n classes"]:
    """Return the logits of every row in float64, in the order given; (0, 0) for no rows.

    Rows that are equal run once and get the same numbers to the bit. The others are sorted by
    length, and each pass takes `subject.batch_size` of them, padded at the right to the longest
    with the attention mask 0; without a padding token, rows of one length share a pass. The model
    runs in eval mode without a gradient and comes back as it was.
    """
    if not rows:
        return torch.empty(0, 0, dtype=torch.float64)
    kept, order = distinct(rows, _digest)
    logits: list[Tensor | None] = [None] * len(kept)
    with borrowed(subject.model), torch.inference_mode():
        for places in _batches(subject, kept):
            inputs = _padded([kept[i] for i in places], subject)
            found = logits_of(subject.model(**inputs)).double().cpu()
            for place, line in zip(places, found, strict=True):
                logits[place] = line
    return torch.stack(logits)[order]


def _batches(subject: Subject, rows: Sequence[TokenRow]) -> list[list[int]]:
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]["input_ids"]))
    mixed = subject.processor.tokenizer.pad_token_id is not None
    batches: list[list[int]] = []
    for place in order:
        last = batches[-1] if batches else []
        alike = last and (mixed or _length(rows[last[0]]) == _length(rows[place]))
        if alike and len(last) < subject.batch_size:
            last.append(place)
        else:
            batches.append([place])
    return batches


def _padded(rows: Sequence[TokenRow], subject: Subject) -> TokenRow:
    longest = max(_length(row) for row in rows)
    fill = subject.processor.tokenizer.pad_token_id or 0
    inputs = {}
    for name in rows[0]:
        blank = rows[0][name].new_full((len(rows), longest), fill if name == "input_ids" else 0)
        for i, row in enumerate(rows):
            blank[i, : _length(row)] = row[name]
        inputs[name] = blank.to(subject.device)
    return inputs


def _length(row: TokenRow) -> int:
    return len(row["input_ids"])


def _digest(row: TokenRow) -> bytes:
    return b"|".join(row[name].cpu().numpy().tobytes() for name in sorted(row))
