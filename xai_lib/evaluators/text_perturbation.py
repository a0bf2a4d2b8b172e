"""Text perturbation: accuracy while the most (or least) relevant tokens are taken away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from xai_lib.errors import OptionError
from xai_lib.evaluators.base import Row, Subject
from xai_lib.evaluators.batches import TextBatch
from xai_lib.evaluators.explained import EXPLAIN, Explained, check_max_length
from xai_lib.evaluators.measures import curves
from xai_lib.evaluators.packing import ModelRow, RowEdits
from xai_lib.evaluators.registry import evaluator
from xai_lib.evaluators.removal import (
    BETTER,
    ORDERS,
    Removal,
    Setting,
    blanked,
    fractions,
    going,
    gone,
    pad_id,
)
from xai_lib.statistics.metric import Metric
from xai_lib.streams.scales import Scale


class Schedule(NamedTuple):
    """Fractions of tokens to take away, of all or of the text's alone, padding counted or not."""

    steps: tuple[float, ...]
    all_tokens: bool = False
    padded: bool = False


# As NumPy's arange gives them, whose last digits decide int(length * step).
SCHEDULES = {
    "content": Schedule(tuple(i / 10 for i in range(10))),
    "movies": Schedule(tuple(np.arange(0.52, 0.68, 0.02).tolist()), all_tokens=True),
    "20ng": Schedule(tuple(np.arange(0, 1.1, 0.1).tolist()), all_tokens=True, padded=True),
}


@evaluator("text_perturbation")
@dataclass
class TextPerturbation(Removal):
    """Chefer et al. (CVPR 2021) and Chen et al. (TMLR 2023) on texts: tokens become padding.

    At each step f, int(f · tokens) of them get the id of padding and attention mask 0: the most
    relevant first (order "positive", where accuracy should fall) or the least relevant ("negative",
    where it should stay). Scores are clamped at 0 first (clamp), so that all negative ones tie;
    equal scores go in the order of the text. The label's class is explained, once, for the whole
    text (explain="predicted": the predicted class; accuracy is of the label all the same).

    schedule: "content", f = 0, 0.1, ..., 0.9 of the text's own tokens, special ones stay; the
    published "movies", f = 0.52, 0.54, ..., 0.68 of all tokens, special ones too; and "20ng",
    f = 0, 0.1, ..., 1 of all tokens and the padding to `max_length` (or the model's length), which
    counts as well. steps: other fractions. max_length: cut texts there (published: 512); without it
    a text that the model cannot take is an error row. compat="reference": equal scores as
    torch.topk orders them, which changes with k, and what was taken away stays away.

    Curves, one entry a step: hits, whether the label is predicted; probabilities, the label's;
    removed, the tokens taken away. auc, auc_probability: the trapezoid of the first two over f,
    from the first step to the last, not scaled by that width.
    """

    schedule: str = "content"
    steps: list | tuple | None = None
    explain: str = "label"
    clamp: bool = True
    max_length: int | None = None
    compat: str | None = None

    modality = "text"
    needs = frozenset({"labels"})
    groups = ("method", "order")
    settings = tuple((order,) for order in ORDERS)
    columns = ("hits", "probabilities", "removed", "auc", "auc_probability")
    metrics = (
        Metric("auc", ("auc",), better=BETTER, scale=100),
        Metric("auc_probability", ("auc_probability",), better=BETTER, scale=100),
    )

    def __post_init__(self):
        self.check_choices(schedule=tuple(SCHEDULES), compat=(None, "reference"), explain=EXPLAIN)
        check_max_length(self.max_length)
        steps = SCHEDULES[self.schedule].steps if self.steps is None else self.steps
        # The published last step is 1 and a rounding error.
        self.steps = fractions("steps", steps, most=1.01)

    def copies(
        self, subject: Subject, batch: TextBatch, place: int, found: Explained
    ) -> list[tuple[list[Setting], RowEdits, object]]:
        row, scores, counted = self._units(subject, found)
        assert batch.labels is not None, "`check` asked for them"
        label, reference = int(batch.labels[place]), self.compat is not None
        made = []
        for order in ORDERS:
            least = order == "negative"
            assert self.steps is not None, "set with the options"
            lost = perturbed(scores, self.steps, least, counted=counted, reference=reference)
            edits = blanked(row, lost, pad_id(subject), place, hidden=True)
            made.append(([(order,)], edits, (label, lost.sum(1).tolist())))
        return made

    def _units(
        self, subject: Subject, found: Explained
    ) -> tuple[ModelRow, Float[Tensor, " tokens"], Bool[Tensor, " tokens"]]:
        """Return a text as the schedule counts it: its inputs, scores, and which tokens may go."""
        schedule = SCHEDULES[self.schedule]
        row, scores, counted = found.row, found.scores, ~found.special
        if schedule.padded:
            row, scores = _padded(subject, row, scores, self.max_length)
        if schedule.all_tokens:
            counted = torch.ones_like(scores, dtype=torch.bool)
        row = {"attention_mask": torch.ones_like(row["input_ids"])} | row
        return row, scores.clamp(min=0) if self.clamp else scores, counted

    def numbers(
        self, logits: Float[Tensor, "steps classes"], facts: Any, scale: Scale
    ) -> Row | None:
        label, removed = facts
        assert self.steps is not None, "set with the options"
        found = curves(logits, {label: 1.0}, label, self.steps, scale)
        if found is None:
            return None
        hits, probabilities, *areas = found
        return dict(zip(self.columns, (hits, probabilities, removed, *areas), strict=True))


def perturbed(
    scores: Float[Tensor, " tokens"],
    steps: Sequence[float],
    least_first: bool = False,
    *,
    counted: Bool[Tensor, " tokens"] | None = None,
    reference: bool = False,
) -> Bool[Tensor, "steps tokens"]:
    """Return which tokens are gone at each step: int(n · step) of the n counted ones, by score.

    Equal scores go in the order of the text. reference: in that of torch.topk for each step's own
    count, which need not be that of the step before, and what is gone stays gone; so more may be.
    """
    order = going(scores, least_first, counted)
    counts = [min(int(len(order) * step), len(order)) for step in steps]
    if not reference:
        return gone(order, counts, len(scores))
    places = order.sort().values
    values = -scores[places] if least_first else scores[places]
    lost = [gone(places[values.topk(count).indices], [count], len(scores)) for count in counts]
    return torch.cat(lost).cumsum(0) > 0


def _padded(
    subject: Subject, row: ModelRow, scores: Tensor, max_length: int | None
) -> tuple[ModelRow, Tensor]:
    """Return inputs and scores with padding up to the longest text, which counts as tokens."""
    length = max_length or subject.processor.max_length
    if length is None:
        raise OptionError(
            "The schedule '20ng' pads texts to the model's length, and this model has none: give "
            "max_length."
        )
    missing = length - len(scores)
    fill = {"input_ids": pad_id(subject)}
    row = {
        n: torch.nn.functional.pad(v, (0, missing), value=fill.get(n, 0)) for n, v in row.items()
    }
    return row, torch.nn.functional.pad(scores, (0, missing))
