"""Measurements that show which words decide for a model: texts without and with only these."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from xai_lib.datasets.base import TextSample
from xai_lib.datasets.worlds.generated_texts import text_world
from xai_lib.datasets.worlds.lexicon import NEGATORS
from xai_lib.datasets.worlds.reviews import Reviews
from xai_lib.datasets.worlds.topics import Topics

_NEGATION = re.compile(rf"\b({'|'.join(NEGATORS)}|far from|at all)\b", re.IGNORECASE)
# From a list of texts to logits (texts, classes).
Predict = Callable[[list[str]], Tensor]


def without(sample: TextSample, mask: str | None = None) -> str:
    """Return the text with its rationale deleted, or each of its words replaced by `mask`."""
    pieces, end = [], 0
    for start, stop in sample.rationale:
        pieces += [sample.text[end:start], _masked(sample.text[start:stop], mask)]
        end = stop
    text = "".join([*pieces, sample.text[end:]])
    return text if mask is not None else " ".join(text.split())


def only(sample: TextSample, mask: str | None = None) -> str:
    """Return nothing but the rationale, or the text with every other word replaced by `mask`."""
    kept = [sample.text[start:stop] for start, stop in sample.rationale]
    if mask is None:
        return " ".join(kept)
    bounds = [0, *(edge for span in sample.rationale for edge in span), len(sample.text)]
    gaps = [sample.text[a:b] for a, b in zip(bounds[::2], bounds[1::2], strict=True)]
    pieces = [_masked(gaps[0], mask)]
    for phrase, gap in zip(kept, gaps[1:], strict=True):
        pieces += [phrase, _masked(gap, mask)]
    return " ".join(" ".join(pieces).split())


def _masked(text: str, mask: str | None) -> str:
    return "" if mask is None else " ".join(mask for _ in text.split())


def without_negators(sample: TextSample) -> str:
    """Return the text with the negators of its rationale deleted, and "at all" with them."""
    pieces, end = [], 0
    for start, stop in sample.rationale:
        phrase = _NEGATION.sub("", sample.text[start:stop])
        pieces += [sample.text[end:start], phrase.strip()]
        end = stop
    text = "".join([*pieces, sample.text[end:]])
    return text if text == sample.text else re.sub(r" +(?=[ .,])", "", text).strip()


def accuracy(predict: Predict, texts: Sequence[str], labels: Sequence[int]) -> float:
    """Return the part of texts whose largest logit is the label's."""
    return (_classes(predict, texts) == torch.tensor(labels)).double().mean().item()


@torch.no_grad()
def _classes(predict: Predict, texts: Sequence[str]) -> Tensor:
    parts = (list(texts[i : i + 100]) for i in range(0, len(texts), 100))
    return torch.cat([predict(part).argmax(1) for part in parts])


def _drawn(data: Reviews | Topics) -> tuple[list[TextSample], list[int]]:
    samples = [data[i] for i in range(len(data))]
    return samples, [sample.label for sample in samples]


def measure_texts(predict: Predict, name: str, n: int, seed: int) -> dict[str, float]:
    """Measure a classifier of an embedded text world on n fresh texts.

    Returned: `held_out_accuracy`; for reviews also the accuracies on n // 4 texts whose judgements
    are all `negated` and all in `contrast`; for topics on n // 4 that all have an `aside`.
    """
    cases = {"aside": {"aside": True}}
    if name != "topics":
        cases = {"negated": {"negated": True}, "contrast": {"contrast": True}}
    samples, labels = _drawn(text_world(name, n, (seed, "all")))
    found = {"held_out_accuracy": accuracy(predict, [s.text for s in samples], labels)}
    for case, options in cases.items():
        samples, labels = _drawn(text_world(name, max(1, n // 4), (seed, case), **options))
        found[case] = accuracy(predict, [s.text for s in samples], labels)
    return found | {"n": n, "seed": seed}


def prove_text_evidence(
    predict: Predict, name: str, n: int, seed: int, mask: str = "[MASK]"
) -> dict[str, float]:
    """Measure that the rationale alone decides: accuracy without it, and with nothing but it.

    On n texts: `intact`; `rationale_deleted` and `rationale_masked` (necessity: falls to chance);
    `only_rationale` (all else deleted) and `only_rationale_masked` (all else masked; sufficiency).
    For two classes also `negators_deleted`: the part of n wholly negated reviews whose prediction
    becomes the other class when the negators are deleted.
    """
    data = text_world(name, n, (seed, "all"))
    samples, labels = _drawn(data)
    variants = {
        "intact": [s.text for s in samples],
        "rationale_deleted": [without(s) for s in samples],
        "rationale_masked": [without(s, mask) for s in samples],
        "only_rationale": [only(s) for s in samples],
        "only_rationale_masked": [only(s, mask) for s in samples],
    }
    found = {kind: accuracy(predict, texts, labels) for kind, texts in variants.items()}
    if name == "reviews":
        samples, labels = _drawn(text_world(name, n, (seed, "negated"), negated=True))
        turned = [without_negators(sample) for sample in samples]
        found["negators_deleted"] = accuracy(predict, turned, [1 - label for label in labels])
    return found | {"chance": 1 / len(data.class_names), "n": n, "seed": seed}
