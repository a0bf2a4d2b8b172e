"""What the logits of edited copies say: accuracy, probability, log-odds, and areas under them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from xai_lib.errors import OptionError, TargetError
from xai_lib.evaluators.batches import AnyBatch

CURVES = ("hits", "log_odds", "logit_change", "probability_change")
MEANS = ("auc_cvpr21", "auc_tmlr23", "mean_log_odds", "mean_probability_change")


def credits_of(batch: AnyBatch) -> list[Mapping[int, float]]:
    """Return `batch.credits()`, or raise an OptionError where a sample has none."""
    known = batch.credits()
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


def area(curve: Sequence[float], steps: Sequence[float]) -> float:
    """Return the area under a curve over the steps by trapezoid."""
    y = np.asarray(curve, np.float64)
    return float(np.sum(np.diff(steps) * (y[1:] + y[:-1])) / 2)


def curves(
    logits: Float[Tensor, "steps classes"],
    credit: Mapping[int, float],
    chosen: int,
    steps: Sequence[float],
) -> tuple[list[float], list[float], float, float] | None:
    """Return accuracy and softmax probability of a class at each step, and the areas under both.

    None if they are not finite.
    """
    probability = logits.softmax(1)[:, chosen]
    if not probability.isfinite().all():
        return None
    both = accuracies(logits, credit).tolist(), probability.tolist()
    return *both, *(area(curve, steps) for curve in both)


def check_label(label: int, classes: int) -> None:
    """Raise a TargetError unless a label is a class of the model, which has two at least."""
    if classes < 2:
        raise TargetError(
            f"The model has {classes} class; perturbation compares the label with the next class, "
            "so it needs two at least."
        )
    if not 0 <= label < classes:
        raise TargetError(
            f"The data set has the label {label}, but the model has the classes 0 to "
            f"{classes - 1}. Model and data set do not belong together, or labels count otherwise."
        )


def label_scores(
    logits: Float[Tensor, "steps classes"], label: int, steps: Sequence[float]
) -> dict[str, list[float] | float]:
    """Return `CURVES` and `MEANS` of an image, the clean one first, then one a step.

    Over the steps, and for the first two over the clean image too: hits, whether the label is
    predicted; log_odds of the label over the second largest probability; changes of the largest
    logit and of the largest probability.
    """
    values = logits.double().numpy()
    second, largest = np.sort(values, 1)[:, -2:].T
    # The log of a ratio of probabilities is a difference of logits, which never is 0/0.
    log_odds = values[:, label] - second
    hits = (values.argmax(1) == label).astype(np.float64)
    top = 1 / np.exp(values - largest[:, None]).sum(1)
    logit_change, probability_change = largest[1:] - largest[0], top[1:] - top[0]
    means = (
        area(hits, [0, *steps]),
        area([*hits, 0], [0, *steps, 1]),
        float(log_odds[1:].mean()),
        float(probability_change.mean()),
    )
    curves = (hits, log_odds, logit_change, probability_change)
    named = dict(zip(CURVES, (curve.tolist() for curve in curves), strict=True))
    return named | dict(zip(MEANS, means, strict=True))
