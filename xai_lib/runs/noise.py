"""Batches that no data set holds, for measuring time: random images, texts of random words, and
questions of random words on random regions."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from xai_lib.datasets.base import QuestionSample
from xai_lib.errors import OptionError
from xai_lib.evaluators import AnyBatch, Batch, QuestionBatch, Subject, TextBatch
from xai_lib.evaluators.explained import rows_of
from xai_lib.evaluators.packing import RowEdits, packed
from xai_lib.streams.words import words_of

# Perturbation explains the label's class anew only where the prediction is wrong. The papers' ViT-B
# is wrong on one image of five.
ACCURACY = 0.8
VOCABULARY = 200
# As many as the published detector gives LXMERT.
REGIONS = 36


def noise_images(subject: Subject, size: int, tokens: int) -> Batch:
    """Return random images with a mask in the middle."""
    draw = torch.Generator().manual_seed(0)
    height, width = subject.processor.size
    images = torch.rand(size, 3, height, width, generator=draw).to(subject.device)
    masks = torch.zeros(size, height, width, dtype=torch.int8, device=subject.device)
    masks[:, height // 4 : height // 2, width // 4 : width // 2] = 1
    return Batch(*_places(size), images, masks=masks)


def noise_texts(subject: Subject, size: int, tokens: int) -> TextBatch:
    """Return texts of `tokens` tokens, special ones included, with every tenth word as evidence."""
    texts = tuple((text,) for text in _texts(subject, size, tokens))
    evidence = tuple(tuple(words_of(text)[::10]) for (text,) in texts)
    return TextBatch(*_places(size), texts, rationales=evidence)


def noise_questions(subject: Subject, size: int, tokens: int) -> QuestionBatch:
    """Return questions of `tokens` tokens on `REGIONS` regions, of which every tenth decides."""
    draw = torch.Generator().manual_seed(0)
    shape = (size, REGIONS, subject.processor.feature_dim)
    features = torch.randn(shape, generator=draw)
    corners = torch.rand(size, REGIONS, 2, 2, generator=draw).sort(2).values.flatten(2)
    deciding = torch.arange(REGIONS) % 10 == 0
    samples = tuple(
        QuestionSample(
            str(i), text, features[i], corners[i],
            regions=deciding, rationale=tuple(words_of(text)[::10]),
        )
        for i, text in enumerate(_texts(subject, size, tokens))
    )  # fmt: skip
    return QuestionBatch(*_places(size), samples, (None,) * size)


NOISE = {"image": noise_images, "text": noise_texts, "question": noise_questions}


def noise(subject: Subject, kind: str, size: int, tokens: int) -> AnyBatch:
    """Return `size` samples of the kind "image", "text" or "question", some labelled wrongly."""
    batch = NOISE[kind](subject, size, tokens)
    rows = [RowEdits([row], [place]) for place, row in enumerate(rows_of(subject, batch))]
    labels = _labels(torch.cat(packed(subject, rows)))
    known = {"labels": labels.to(subject.device)}
    if hasattr(batch, "answers"):
        known["answers"] = tuple({label: 1.0} for label in labels.tolist())
    return replace(batch, **known)


def _places(size: int) -> tuple[tuple[int, ...], tuple[str, ...]]:
    return tuple(range(size)), tuple(map(str, range(size)))


def _texts(subject: Subject, size: int, tokens: int) -> list[str]:
    """Return texts of `tokens` tokens, special ones included."""
    tokenizer, limit = subject.processor.tokenizer, subject.processor.max_length
    special = tokenizer.num_special_tokens_to_add()
    if tokens <= special or (limit is not None and tokens > limit):
        raise OptionError(
            f"tokens is {tokens}; expected more than the {special} special ones"
            + ("." if limit is None else f", and at most the {limit} that the model takes.")
        )
    words = _words(tokenizer)
    draw = torch.Generator().manual_seed(0)
    picked = torch.randint(len(words), (size, tokens - special), generator=draw).tolist()
    return [" ".join(words[i] for i in row) for row in picked]


def _words(tokenizer) -> list[str]:
    """Return words that are one token each."""
    found = []
    for piece in sorted(tokenizer.get_vocab()):
        word = piece.lstrip("\N{LOWER ONE EIGHTH BLOCK}Ġ")
        if word.isalpha() and len(tokenizer(word, add_special_tokens=False).input_ids) == 1:
            found.append(word)
        if len(found) == VOCABULARY:
            break
    if not found:
        raise OptionError("The tokenizer's vocabulary holds no word that is a single token.")
    return found


def _labels(logits: Tensor) -> Tensor:
    labels = logits.argmax(-1)
    wrong = round(len(logits) * (1 - ACCURACY))
    labels[:wrong] = (labels[:wrong] + 1) % logits.shape[1]
    return labels
