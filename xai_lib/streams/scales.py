"""What scores are: logits of classes that exclude each other or do not, or mere values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from xai_lib.errors import TargetError


@dataclass(frozen=True)
class Scale:
    """How scores become probabilities.

    name: for messages. exclusive: whether one class is right, the one of the largest score; else
    each is right or not by itself. to_logits: gives the logits of such scores; None where scores
    have no probability (a regression, one score of unknown meaning).
    """

    name: str
    exclusive: bool
    to_logits: Callable[[Tensor], Tensor] | None = field(repr=False, compare=False)

    @property
    def has_chances(self) -> bool:
        """Whether scores have a probability."""
        return self.to_logits is not None

    def logits(self, scores: Float[Tensor, "*n classes"]) -> Float[Tensor, "*n classes"]:
        """Return the logits of scores. Raises TargetError where they are mere values."""
        if self.to_logits is None:
            raise TargetError(
                f"The model's {scores.shape[-1]} scores are values (one score, or a regression), "
                "with no probability and no accuracy: these need two classes at least, or a "
                "configuration that says what the scores are, model.config.problem_type. Explain "
                "the values with xai.explain; att.logits holds them."
            )
        return self.to_logits(scores)

    def probabilities(self, scores: Float[Tensor, "*n classes"]) -> Float[Tensor, "*n classes"]:
        """Return the probability of each class: softmax or sigmoid of the logits.

        Raises TargetError where scores have none.
        """
        logits = self.logits(scores)
        return logits.softmax(-1) if self.exclusive else logits.sigmoid()

    def probability(self, scores: Float[Tensor, " classes"], index: int) -> float | None:
        """Return the probability of a class, of -1 that the only one is not; None without any."""
        if not self.has_chances:
            return None
        found = float(self.probabilities(scores)[max(index, 0)])
        return found if index >= 0 else 1 - found

    def value(self, scores: Float[Tensor, " classes"], index: int) -> float | None:
        """Return the score of a class where it has no probability, else None."""
        return float(scores[max(index, 0)]) if not self.has_chances else None

    def said(self, scores: Float[Tensor, " classes"], index: int, digits: int = 1) -> str:
        """Return what the scores say of a class in words: "12.3%", or "score 1.23"."""
        chance, value = self.probability(scores, index), self.value(scores, index)
        return f"score {value:.3g}".replace("-", "−") if chance is None else f"{chance:.{digits}%}"

    def right(self, scores: Float[Tensor, "*n classes"]) -> Bool[Tensor, "*n classes"]:
        """Return which classes are predicted: the likeliest, or all that are likelier than not."""
        logits = self.logits(scores)
        if not self.exclusive:
            return logits > 0
        best = logits.argmax(-1, keepdim=True)
        return torch.zeros_like(logits, dtype=torch.bool).scatter_(-1, best, True)


SOFTMAX = Scale("softmax", True, lambda scores: scores)
SIGMOID = Scale("sigmoid", False, lambda scores: scores)
# Models that end in a softmax or a sigmoid of their own.
SHARES = Scale("probabilities", True, torch.log)
CHANCES = Scale("probabilities of each", False, torch.logit)
VALUE = Scale("values", False, None)

# By what transformers calls the problem that a head was trained on.
PROBLEMS = {
    "single_label_classification": SOFTMAX,
    "multi_label_classification": SIGMOID,
    "regression": VALUE,
}


def scale_of(
    model: nn.Module,
    scores: Float[Tensor, "rows classes"],
    again: Callable[[], Tensor] | None = None,
) -> Scale:
    """Return what the scores of a model are.

    The configuration's `problem_type` says so, where it is of a head of so many scores. Rows of
    probabilities are seen to add up to 1. Where all scores lie in [0, 1], `again`, which makes such
    scores anew by a plain pass, shows whether a sigmoid gave them. One score whose meaning nobody
    names is a value; several are logits of classes, one of which is right.
    """
    classes = scores.shape[-1]
    config = getattr(model, "config", None)
    labels = getattr(config, "num_labels", None)
    problem = getattr(config, "problem_type", None) if labels in (None, classes) else None
    declared = PROBLEMS.get(problem or "")
    if declared is VALUE:
        return VALUE
    if classes > 1 and _adds_up(scores):
        return SHARES
    if again is not None and ((scores >= 0) & (scores <= 1)).all() and _ends_in_sigmoid(again):
        return CHANCES
    if classes == 1:
        return SIGMOID if declared is SIGMOID else VALUE
    return declared or SOFTMAX


def _adds_up(scores: Tensor) -> bool:
    """Whether every row is a distribution, to the rounding of its numbers."""
    rounding = max(torch.finfo(scores.dtype).eps, torch.finfo(torch.float32).eps)
    values = scores.detach().double()
    return bool((values >= 0).all() and ((values.sum(-1) - 1).abs() <= 4 * rounding).all())


class _Sigmoids(TorchFunctionMode):
    """Remembers what the last sigmoid of a pass gave."""

    last: Tensor | None = None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in _SIGMOIDS and isinstance(found, Tensor):
            self.last = found.detach()
        return found


_SIGMOIDS = ("sigmoid", "sigmoid_", "special_expit")


@torch.no_grad()
def _ends_in_sigmoid(again: Callable[[], Tensor]) -> bool:
    """Whether the scores of a pass are numbers that its last sigmoid gave."""
    with _Sigmoids() as seen:
        scores = again()
    if seen.last is None:
        return False
    return bool(torch.isin(scores.detach().double().cpu(), seen.last.double().cpu()).all())
