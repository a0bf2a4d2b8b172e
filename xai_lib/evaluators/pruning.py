"""Pruning: accuracy while the attention heads (or layers) that count most, or least, are pruned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from xai_lib.errors import InputError, OptionError
from xai_lib.evaluators.base import Row, Subject
from xai_lib.evaluators.batches import AnyBatch
from xai_lib.evaluators.explained import EXPLAIN, rows_of
from xai_lib.evaluators.explained_heads import explained_heads
from xai_lib.evaluators.head_specs import parse_head_scores
from xai_lib.evaluators.measures import accuracies, curves
from xai_lib.evaluators.packing import ModelRow, RowEdits
from xai_lib.evaluators.registry import evaluator
from xai_lib.evaluators.removal import BETTER, Removal, Setting, fractions
from xai_lib.evaluators.specs import MethodSpec
from xai_lib.heads import HeadScores
from xai_lib.heads.ranking import COUNTS, LEVELS, ORDERS
from xai_lib.statistics.metric import Metric
from xai_lib.streams.scales import Scale

FRACTIONS = tuple(i / 10 for i in range(10))
RANKING_SAMPLES = 256


@evaluator("pruning")
@dataclass
class Pruning(Removal):
    """Accuracy over the share of attention heads, or layers, that are pruned by their scores.

    What is compared are head scores (`xai.head_scores`): grad_x_attention, lrp, taylor, random;
    "taylor:quantity=loss" differentiates the loss. At each of `fractions`, all streams ranked
    together, the largest scores go first (order "positive", where accuracy should fall) or the
    smallest ("negative", where it should stay); a pruned head's attention is 0 after the softmax,
    nothing is renormalised. level: "head", or "layer", each attention call as a whole.

    ranking: "sample", each by its own scores of the unpruned model (as published for LXMERT and
    VisualBERT); "dataset", all by the mean scores of `ranking_samples` samples (as one deploys),
    taken from those that the run leaves out where these are enough, else from all; None: all.
    counts: how a fraction becomes a number, see `HeadScores.mask`; None: LXMERT's published way for
    LXMERT, else VisualBERT's. explain: whose score counts, the predicted class's, as published, or
    the label's. seed: of the random scores, which are drawn anew for each sample where each has its
    own ranking.

    Curves, one entry a fraction: accuracy, of questions VQA's soft accuracy, else whether the label
    is predicted; probability, of the explained class; kept, the heads that stay. unpruned: the
    accuracy of the whole model. auc, auc_probability: the trapezoid over the fractions.
    """

    fractions: list | tuple = FRACTIONS
    level: str = "head"
    ranking: str = "sample"
    ranking_samples: int | None = RANKING_SAMPLES
    counts: str | None = None
    explain: str = "predicted"
    seed: int = 0

    modality = ("image", "text", "question")
    needs = frozenset({"answers"})
    groups = ("method", "order")
    settings = tuple((order,) for order in ORDERS)
    columns = ("accuracy", "probability", "kept", "unpruned", "auc", "auc_probability")
    not_finite = "The model's logits hold NaN or Inf where heads are pruned for this sample"
    metrics = (
        Metric("auc", ("auc",), better=BETTER, scale=100),
        Metric("auc_probability", ("auc_probability",), better=BETTER, scale=100),
        Metric("unpruned", ("unpruned",), better=None, scale=100),
    )

    def __post_init__(self):
        counts, rankings = (None, *COUNTS), ("sample", "dataset")
        self.check_choices(level=LEVELS, ranking=rankings, counts=counts, explain=EXPLAIN)
        self.fractions = fractions("fractions", self.fractions)
        if self.fractions[-1] == 1:
            raise OptionError("fractions end at 1, which prunes everything; expected less than 1.")
        if self.ranking_samples is not None and self.ranking_samples < 1:
            raise OptionError(f"ranking_samples is {self.ranking_samples}; expected 1 or more.")
        if self.explain == "label":
            self.needs = frozenset({"answers", "labels"})

    @classmethod
    def parse_methods(cls, methods: str | Iterable[str]) -> list[MethodSpec]:
        """Return the head scores that are compared."""
        return parse_head_scores(methods)

    def first_samples(self, count: int, evaluated: Sequence[int]) -> tuple[int, ...]:
        """Return the samples that rank for the whole data set."""
        if self.ranking == "sample":
            return ()
        wanted = min(self.ranking_samples or count, count)
        others = sorted(set(range(count)) - set(evaluated))
        source = others if len(others) >= wanted else range(count)
        return tuple(source[i * len(source) // wanted] for i in range(wanted))

    def prepare(
        self, subject: Subject, batches: Iterable[AnyBatch], methods: Sequence[MethodSpec]
    ) -> dict[str, HeadScores] | None:
        """Return the data set's scores of each method, of the samples that have any."""
        if self.ranking == "sample":
            return None
        parts: dict[str, list[HeadScores]] = {spec.label: [] for spec in methods}
        reasons = []
        for batch in batches:
            # One draw for all: the mean of many random rankings would rank nothing.
            rows, seeds = rows_of(subject, batch), [self.seed] * len(batch)
            for entry in self._scores(subject, batch, rows, methods, seeds):
                if isinstance(entry, str):
                    reasons.append(entry)
                else:
                    for label, found in parts.items():
                        found.append(entry[label])
        if not all(parts.values()):
            raise InputError(
                "No sample that ranks the heads could be scored"
                + (f"; the first: {reasons[0]}" if reasons else ".")
            )
        return {label: HeadScores.joined(found) for label, found in parts.items()}

    def copies_a_pass(self, subject: Subject) -> int:
        return max(subject.batch_size, len(self.fractions))

    def found(
        self, subject: Subject, batch: AnyBatch, methods: Sequence[MethodSpec]
    ) -> Iterator[tuple[str, list[tuple[ModelRow, HeadScores] | str]]]:
        if self.ranking == "dataset" and subject.prepared is None:
            raise OptionError("ranking='dataset' ranks by samples that a run reads before others.")
        rows = rows_of(subject, batch)
        if self.ranking == "sample":
            seeds = [self.seed * 1_000_003 + index for index in batch.index]
            scores = self._scores(subject, batch, rows, methods, seeds)
        else:
            scores = [row if isinstance(row, str) else subject.prepared for row in rows]
        for spec in methods:
            entries: list[tuple[ModelRow, HeadScores] | str] = []
            for row, each in zip(rows, scores, strict=True):
                if isinstance(row, str):
                    entries.append(row)
                else:
                    entries.append(each if isinstance(each, str) else (row, each[spec.label]))
            yield spec.label, entries

    def copies(
        self,
        subject: Subject,
        batch: AnyBatch,
        place: int,
        found: tuple[ModelRow, HeadScores],
    ) -> list[tuple[list[Setting], RowEdits, object]]:
        row, scores = found
        sites = tuple(zip(scores.sites, scores.widths, strict=True))
        counts = self.counts or subject.processor.head_counts
        made = []
        for order in ORDERS:
            kept = scores.kept(self.fractions, order, counts=counts).cpu()
            number = kept[:, scores.candidates.cpu()].sum(1).tolist()
            # The whole model comes last; at the fraction 0 it is the same copy, which runs once.
            lines = torch.cat([kept, torch.ones_like(kept[:1])])
            keys = [(place, line.numpy().tobytes()) for line in lines]
            edits = RowEdits([row] * len(lines), keys, lines, sites)
            made.append(([(order,)], edits, (batch, place, number)))
        return made

    def numbers(
        self, logits: Float[Tensor, "steps classes"], facts: Any, scale: Scale
    ) -> Row | None:
        batch, place, kept = facts
        *_, whole = logits
        predicted = int(whole.argmax())
        explained = int(batch.labels[place]) if self.explain == "label" else predicted
        credit = batch.credits()[place]
        found = curves(logits[:-1], credit, explained, self.fractions, scale)
        if found is None:
            return None
        accuracy, probability, auc, auc_probability = found
        return {
            "accuracy": accuracy, "probability": probability,
            "unpruned": float(accuracies(whole[None], credit, scale)),
            "auc": auc, "auc_probability": auc_probability,
            "explained": explained, "predicted": predicted, "kept": kept,
            "kind": getattr(batch.contents[place], "kind", None),
        }  # fmt: skip

    def _scores(
        self,
        subject: Subject,
        batch: AnyBatch,
        rows: Sequence[ModelRow | str],
        methods: Sequence[MethodSpec],
        seeds: Sequence[int],
    ) -> list[dict[str, HeadScores] | str]:
        target = batch.labels if self.explain == "label" else None
        return explained_heads(subject, rows, methods, self.level, target, seeds)
