"""Word deletion: accuracy while a sentence's most relevant tokens are blanked, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from xai_lib.errors import OptionError
from xai_lib.evaluators.base import Row, Subject
from xai_lib.evaluators.batches import TextBatch
from xai_lib.evaluators.explained import EXPLAIN, Explained, check_max_length
from xai_lib.evaluators.measures import curves
from xai_lib.evaluators.packing import RowEdits
from xai_lib.evaluators.registry import evaluator
from xai_lib.evaluators.removal import Removal, Setting, blanked, going, gone, mask_id, pad_id
from xai_lib.statistics.metric import Metric
from xai_lib.streams.scales import Scale

SENTENCES = ("correct", "wrong", "all")
TOO_SHORT = "Left out: fewer tokens than min_length, special ones included"
OTHER = "Left out: the model does not predict its label"
WRONG = "Left out: the model predicts its label"


@evaluator("word_deletion")
@dataclass
class WordDeletion(Removal):
    """Wu & Ong (2021), section 3.2.2: the k most relevant tokens become [PAD], k = 1, 2, ...

    Only ids change; the attention mask stays, so that the model still reads the blanks. Scores are
    computed once, on the whole sentence, and special tokens are never blanked. Sentences count that
    have `min_length` tokens or more, special ones included, and whose label the model predicts
    (sentences: "correct", "wrong" or "all"); all others are error rows that say so, and count as
    failed. Equal scores go in the order of the text. A sentence with fewer than k tokens has lost
    them all. The method `random` is the control.

    explain: the "predicted" class, the "label"'s, or the model's "last" one, which the published
    notebooks explain whatever the prediction. fill: "pad" (published) or "mask".
    compat="reference": a sentence with fewer than k tokens loses the special ones too, as there.

    hits, probabilities: of the label, an entry a k. _mean: over k; low is better where the label's
    class is what is explained, high for "predicted" on "wrong" sentences, neither where both mix.
    """

    deletions: int = 10
    min_length: int = 10
    sentences: str = "correct"
    explain: str = "predicted"
    fill: str = "pad"
    max_length: int | None = None
    compat: str | None = None

    modality = "text"
    needs = frozenset({"labels"})
    columns = ("hits", "probabilities", "accuracy_mean", "probability_mean")
    metrics = (
        Metric("accuracy_mean", ("accuracy_mean",), better="low", scale=100),
        Metric("probability_mean", ("probability_mean",), better="low", scale=100),
    )

    def __post_init__(self):
        for name in ("deletions", "min_length"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} is {getattr(self, name)}; expected 1 or more.")
        check_max_length(self.max_length)
        self.check_choices(
            explain=(*EXPLAIN, "last"), sentences=SENTENCES, fill=("pad", "mask"),
            compat=(None, "reference"),
        )  # fmt: skip
        chosen = tuple(replace(metric, better=self._better()) for metric in type(self).metrics)
        self.metrics = chosen

    def _better(self) -> str | None:
        """Return which end of the label's curves speaks for a method.

        What speaks for the label goes first where that is the class explained; where another class
        is predicted and explained, what speaks against the label.
        """
        if self.sentences == "correct" or self.explain == "label":
            return "low"
        return "high" if (self.sentences, self.explain) == ("wrong", "predicted") else None

    def copies(
        self, subject: Subject, batch: TextBatch, place: int, found: Explained
    ) -> list[tuple[Sequence[Setting], RowEdits | str, object]]:
        assert batch.labels is not None, "`check` asked for them"
        label = int(batch.labels[place])
        reason = self._reason(found, label)
        if reason is not None:
            return [(self.settings, reason, None)]
        fill = pad_id(subject) if self.fill == "pad" else mask_id(subject, "fill='pad'")
        reference = self.compat is not None
        lost = deleted(found.scores, found.special, self.deletions, reference=reference)
        return [(self.settings, blanked(found.row, lost, fill, place), label)]

    def _reason(self, found: Explained, label: int) -> str | None:
        """Return why a sentence does not count, or None."""
        if len(found.special) < self.min_length:
            return TOO_SHORT
        right = found.says(label)
        if self.sentences != "all" and right != (self.sentences == "correct"):
            return WRONG if right else OTHER
        return None

    def numbers(self, logits: Float[Tensor, "k classes"], facts: Any, scale: Scale) -> Row | None:
        found = curves(logits, {facts: 1.0}, facts, range(self.deletions), scale)
        if found is None:
            return None
        hits, probabilities, *_ = found
        means = float(np.mean(hits)), float(np.mean(probabilities))
        return dict(zip(self.columns, (hits, probabilities, *means), strict=True))


def deleted(
    scores: Float[Tensor, " tokens"],
    special: Bool[Tensor, " tokens"],
    deletions: int,
    *,
    reference: bool = False,
) -> Bool[Tensor, "deletions tokens"]:
    """Return which tokens are gone after each of k = 1, ..., deletions: the k highest scores.

    Special tokens stay. Past the last token of the text nothing changes any more; reference: then
    the special tokens go too.
    """
    order = going(scores, counted=~special)
    lost = gone(order, range(1, deletions + 1), len(scores))
    if reference:
        lost[len(order) :] = True
    return lost
