"""What the logits of edited copies say: accuracy, probability, log-odds, and areas under them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from xai_lib.errors import OptionError, TargetError
from xai_lib.evaluators.base import Row
from xai_lib.evaluators.batches import AnyBatch
from xai_lib.streams.scales import SOFTMAX, Scale

CURVES = ("hits", "log_odds", "logit_change", "probability_change")
MEANS = ("auc_cvpr21", "auc_tmlr23", "mean_log_odds", "mean_probability_change")


def credits_of(batch: AnyBatch) -> list[Mapping[int, float]]:
    """Return `batch.credits()`, or raise an OptionError where a sample has none."""
    known = [one for one in batch.credits() if one is not None]
    if len(known) < len(batch):
        raise OptionError(
            "The evaluator needs labels or scores of answers. `xai datasets` shows which sets have."
        )
    return known


def accuracies(
    logits: Float[Tensor, "n classes"], credit: Mapping[int, float], scale: Scale = SOFTMAX
) -> Float[Tensor, " n"]:
    """Return what the predicted class of each row is worth, in float64.

    Where classes do not exclude each other, the best of those that are likelier than not.
    """
    right = scale.right(logits)
    worth = [credit.get(one, 0.0) for one in range(logits.shape[-1])]
    return (right * torch.tensor(worth, dtype=torch.float64)).amax(-1)


def area(curve: Sequence[float] | Float[np.ndarray, " n"], steps: Sequence[float]) -> float:
    """Return the area under a curve over the steps by trapezoid."""
    y = np.asarray(curve, np.float64)
    return float(np.sum(np.diff(steps) * (y[1:] + y[:-1])) / 2)


def curves(
    logits: Float[Tensor, "steps classes"],
    credit: Mapping[int, float],
    chosen: int,
    steps: Sequence[float],
    scale: Scale = SOFTMAX,
) -> tuple[list[float], list[float], float, float] | None:
    """Return accuracy and probability of a class at each step, and the areas under both.

    None if they are not finite. Raises TargetError where the scores have no probability.
    """
    probability = scale.probabilities(logits)[:, chosen]
    if not probability.isfinite().all():
        return None
    hits, chances = accuracies(logits, credit, scale).tolist(), probability.tolist()
    return hits, chances, area(hits, steps), area(chances, steps)


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
    logits: Float[Tensor, "steps classes"],
    label: int,
    steps: Sequence[float],
    scale: Scale = SOFTMAX,
) -> Row:
    """Return `CURVES` and `MEANS` of an image, the clean one first, then one a step.

    Over the steps, and for the first two over the clean image too: hits, whether the label is
    predicted; log_odds of the label over the second largest probability; changes of the largest
    logit and of the largest probability. Where classes do not exclude each other, a label is
    predicted that is likelier than not, and its log-odds are log(p / (1 - p)), its logit.
    """
    known = scale.logits(logits.double())
    values = known.numpy()
    second, largest = np.sort(values, 1)[:, -2:].T
    # The log of a ratio of probabilities is a difference of logits, which never is 0/0.
    log_odds = values[:, label] - second if scale.exclusive else values[:, label]
    hits = scale.right(logits)[:, label].double().numpy()
    top = scale.probabilities(logits.double()).amax(1).numpy()
    logit_change, probability_change = largest[1:] - largest[0], top[1:] - top[0]
    means = (
        area(hits, [0, *steps]),
        area([*hits, 0], [0, *steps, 1]),
        float(log_odds[1:].mean()),
        float(probability_change.mean()),
    )
    curves = (hits, log_odds, logit_change, probability_change)
    found: Row = dict(zip(CURVES, (curve.tolist() for curve in curves), strict=True))
    return found | dict(zip(MEANS, means, strict=True))
