"""Text perturbation: accuracy while the most (or least) relevant tokens are taken away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from xai_lib.errors import OptionError, unknown_name
from xai_lib.evaluators.base import Evaluator, Row, Subject, TextBatch
from xai_lib.evaluators.registry import evaluator
from xai_lib.evaluators.removal import pad_id
from xai_lib.evaluators.specs import MethodSpec
from xai_lib.evaluators.texts import (
    ExplainedText,
    check_explain,
    check_max_length,
    explained_texts,
)
from xai_lib.evaluators.token_stream import NOT_FINITE, TokenRow, stream_ids
from xai_lib.statistics.metric import Metric


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
ORDERS = ("positive", "negative")
BETTER = {"positive": "low", "negative": "high"}
COLUMNS = ("hits", "probabilities", "removed", "auc", "auc_probability")


@evaluator("text_perturbation")
@dataclass(frozen=True)
class TextPerturbation(Evaluator):
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
    metrics = (
        Metric("auc", ("auc",), better=BETTER, scale=100),
        Metric("auc_probability", ("auc_probability",), better=BETTER, scale=100),
    )

    def __post_init__(self):
        if self.schedule not in SCHEDULES:
            raise unknown_name("schedule", self.schedule, SCHEDULES)
        if self.compat not in (None, "reference"):
            raise unknown_name("compat", self.compat, ("reference",))
        check_explain(self.explain)
        check_max_length(self.max_length)
        steps = SCHEDULES[self.schedule].steps if self.steps is None else self.steps
        numbers = [s for s in steps if isinstance(s, int | float) and 0 <= s <= 1.01]
        if len(numbers) < 2 or len(numbers) < len(steps) or any(np.diff(numbers) <= 0):
            raise OptionError(
                f"steps is {list(steps)!r}; expected at least two rising fractions from 0 to 1."
            )
        object.__setattr__(self, "steps", tuple(map(float, numbers)))

    def rows(
        self, subject: Subject, batch: TextBatch, methods: Sequence[MethodSpec]
    ) -> Iterator[Row]:
        if batch.labels is None:
            raise OptionError("Text perturbation needs labels; `xai datasets` shows them.")
        fill = pad_id(subject)
        for spec in methods:
            target = batch.labels if self.explain == "label" else None
            found = explained_texts(subject, batch, spec, target, max_length=self.max_length)
            good = [i for i, entry in enumerate(found) if isinstance(entry, ExplainedText)]
            for order in ORDERS:
                edits, removed = [], {}
                for i in good:
                    row, taken = self._edits(subject, found[i], order, fill)
                    edits += row
                    removed[i] = taken
                logits = iter(stream_ids(subject, edits).split(len(self.steps)) if edits else ())
                for i, (index, key) in enumerate(zip(batch.index, batch.key, strict=True)):
                    line = {"index": index, "key": key, "method": spec.label, "order": order}
                    if i not in removed:
                        yield line | dict.fromkeys(COLUMNS) | {"error": found[i]}
                        continue
                    yield line | self._numbers(next(logits), int(batch.labels[i]), removed[i])

    def _edits(
        self, subject: Subject, found: ExplainedText, order: str, fill: int
    ) -> tuple[list[TokenRow], list[int]]:
        """Return the text at every step, and how many tokens each has lost."""
        schedule = SCHEDULES[self.schedule]
        row, scores = found.row, found.scores
        if schedule.padded:
            row, scores = _padded(subject, row, scores, self.max_length)
        if "attention_mask" not in row:
            row = row | {"attention_mask": torch.ones_like(row["input_ids"])}
        counted = (
            torch.ones_like(scores, dtype=torch.bool) if schedule.all_tokens else ~found.special
        )
        gone = perturbed(
            scores.clamp(min=0) if self.clamp else scores, self.steps, order == "negative",
            counted=counted, reference=self.compat is not None,
        )  # fmt: skip
        rows = [
            row
            | {
                "input_ids": row["input_ids"].masked_fill(lost, fill),
                "attention_mask": row["attention_mask"].masked_fill(lost, 0),
            }
            for lost in gone
        ]
        return rows, gone.sum(1).tolist()

    def _numbers(self, logits: Float[Tensor, "steps classes"], label: int, removed: list) -> Row:
        hits = (logits.argmax(1) == label).double().numpy()
        probabilities = logits.softmax(1)[:, label].numpy()
        if not np.isfinite(probabilities).all():
            return dict.fromkeys(COLUMNS) | {"error": NOT_FINITE}
        areas = (area(curve, self.steps) for curve in (hits, probabilities))
        lists = (hits.tolist(), probabilities.tolist(), removed)
        return dict(zip(COLUMNS, (*lists, *areas), strict=True)) | {"error": None}


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
    places = torch.arange(len(scores)) if counted is None else counted.nonzero().flatten()
    values = -scores[places] if least_first else scores[places]
    order = values.argsort(descending=True, stable=True)
    gone = torch.zeros(len(steps), len(scores), dtype=torch.bool)
    for number, step in enumerate(steps):
        count = min(int(len(places) * step), len(places))
        chosen = values.topk(count).indices if reference else order[:count]
        gone[number, places[chosen]] = True
        if number:
            gone[number] |= gone[number - 1]
    return gone


def area(curve: Sequence[float], steps: Sequence[float]) -> float:
    """Return the area under a curve over the steps by trapezoid."""
    y = np.asarray(curve, np.float64)
    return float(np.sum(np.diff(steps) * (y[1:] + y[:-1])) / 2)


def _padded(
    subject: Subject, row: TokenRow, scores: Tensor, max_length: int | None
) -> tuple[TokenRow, Tensor]:
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
