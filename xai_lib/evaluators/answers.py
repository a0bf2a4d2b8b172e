"""How right a prediction is: VQA's soft accuracy, or whether the label is predicted."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from xai_lib.errors import OptionError
from xai_lib.evaluators.base import AnyBatch, QuestionBatch


def credits_of(batch: AnyBatch) -> list[Mapping[int, float]]:
    """Return for each sample what a predicted class is worth, in [0, 1]; classes left out: 0.

    Of questions, the scores of their answers, in VQA min(people who said so / 3, 1) (Antol et al.,
    ICCV 2015); of all else, and where no score is known, 1 for the label.
    """
    if isinstance(batch, QuestionBatch):
        known = list(batch.answers)
    else:
        known = [None] * len(batch) if batch.labels is None else [{n: 1.0} for n in _labels(batch)]
    if any(one is None for one in known):
        raise OptionError(
            "The evaluator needs labels or scores of answers. `xai datasets` shows which sets have."
        )
    return known


def accuracies(
    logits: Float[Tensor, "n classes"], credit: Mapping[int, float]
) -> Float[Tensor, " n"]:
    """Return what the predicted class of each row is worth, in float64."""
    predicted = logits.argmax(-1).tolist()
    return torch.tensor([credit.get(one, 0.0) for one in predicted], dtype=torch.float64)


def _labels(batch: AnyBatch) -> list[int]:
    return batch.labels.tolist()
