"""Pruning: accuracy while the attention heads (or layers) that count most, or least, are pruned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from xai_lib.errors import InputError, OptionError, unknown_name
from xai_lib.evaluators.answers import accuracies, credits_of
from xai_lib.evaluators.base import AnyBatch, Evaluator, QuestionBatch, Row, Subject
from xai_lib.evaluators.head_specs import parse_head_scores
from xai_lib.evaluators.model_rows import rows_of
from xai_lib.evaluators.pruned_rows import Scored, pruned_logits, scored_rows
from xai_lib.evaluators.question_perturbation import check_fractions
from xai_lib.evaluators.registry import evaluator
from xai_lib.evaluators.specs import MethodSpec
from xai_lib.evaluators.text_perturbation import BETTER, area
from xai_lib.evaluators.texts import check_explain
from xai_lib.heads import HeadScores
from xai_lib.heads.ranking import COUNTS, LEVELS, ORDERS
from xai_lib.statistics.metric import Metric

FRACTIONS = tuple(i / 10 for i in range(10))
RANKINGS = ("sample", "dataset")
RANKING_SAMPLES = 256
NOT_FINITE = "The model's logits hold NaN or Inf where heads are pruned for this sample"
COLUMNS = ("accuracy", "probability", "kept", "unpruned", "auc", "auc_probability")


@evaluator("pruning")
@dataclass(frozen=True)
class Pruning(Evaluator):
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
    metrics = (
        Metric("auc", ("auc",), better=BETTER, scale=100),
        Metric("auc_probability", ("auc_probability",), better=BETTER, scale=100),
        Metric("unpruned", ("unpruned",), better=None, scale=100),
    )

    def __post_init__(self):
        known = (("level", LEVELS), ("ranking", RANKINGS), ("counts", (None, *COUNTS)))
        for name, values in known:
            if getattr(self, name) not in values:
                raise unknown_name(name, str(getattr(self, name)), [v for v in values if v])
        check_explain(self.explain)
        object.__setattr__(self, "fractions", check_fractions("fractions", self.fractions))
        if self.fractions[-1] == 1:
            raise OptionError("fractions end at 1, which prunes everything; expected less than 1.")
        if self.ranking_samples is not None and self.ranking_samples < 1:
            raise OptionError(f"ranking_samples is {self.ranking_samples}; expected 1 or more.")
        if self.explain == "label":
            object.__setattr__(self, "needs", frozenset({"answers", "labels"}))

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
            for entry in self._scores(subject, batch, methods, [self.seed] * len(batch))[1]:
                if isinstance(entry, str):
                    reasons.append(entry)
                else:
                    for label, found in parts.items():
                        found.append(entry.alone(label))
        if not all(parts.values()):
            raise InputError(
                "No sample that ranks the heads could be scored"
                + (f"; the first: {reasons[0]}" if reasons else ".")
            )
        return {label: HeadScores.joined(found) for label, found in parts.items()}

    def rows(
        self, subject: Subject, batch: AnyBatch, methods: Sequence[MethodSpec]
    ) -> Iterator[Row]:
        credit = credits_of(batch)
        inputs, kept, reasons, sites = self._rankings(subject, batch, methods)
        wanted = [(place[0], line) for place, lines in kept.items() for line in lines]
        # Each sample once as it is, which costs nothing: at the fraction 0 it is the same row.
        good = list(dict.fromkeys(place for place, _ in wanted))
        wanted += [(i, torch.ones_like(wanted[0][1])) for i in good]
        size = max(subject.batch_size, len(self.fractions))
        steps = [len(lines) for lines in kept.values()]
        logits = pruned_logits(subject, inputs, wanted, sites, size).split([*steps, len(good)])
        curves = dict(zip(kept, logits, strict=False))
        whole = dict(zip(good, logits[-1], strict=True))
        for spec in methods:
            for order in ORDERS:
                for i, (index, key) in enumerate(zip(batch.index, batch.key, strict=True)):
                    row = {"index": index, "key": key, "method": spec.label, "order": order}
                    place = (i, spec.label, order)
                    if place not in curves:
                        yield row | dict.fromkeys(COLUMNS) | {"error": reasons[i]}
                        continue
                    label = int(batch.labels[i]) if self.explain == "label" else None
                    row |= self._numbers(curves[place], whole[i], credit[i], label)
                    row["kept"] = kept[place][:, sites.candidates.cpu()].sum(1).tolist()
                    sample = batch.samples[i] if isinstance(batch, QuestionBatch) else None
                    yield row | {"kind": getattr(sample, "kind", None)}

    def _rankings(self, subject: Subject, batch: AnyBatch, methods: Sequence[MethodSpec]):
        """Return a batch's rows, which heads stay by (sample, method, order), reasons and sites."""
        counts = self.counts or _published_counts(subject)
        settings = [(spec.label, order) for spec in methods for order in ORDERS]
        kept: dict[tuple[int, str, str], Bool[Tensor, "steps heads"]] = {}
        if self.ranking == "sample":
            seeds = [self.seed * 1_000_003 + index for index in batch.index]
            rows, found = self._scores(subject, batch, methods, seeds)
            scored = {i: entry for i, entry in enumerate(found) if isinstance(entry, Scored)}
            for i, entry in scored.items():
                for label, order in settings:
                    kept[i, label, order] = entry.kept(label, self.fractions, order, counts)
            sites = next((next(iter(entry.scores.values())) for entry in scored.values()), None)
            return rows, kept, found, sites
        if subject.prepared is None:
            raise OptionError("ranking='dataset' ranks by samples that a run reads before others.")
        rows = rows_of(subject, batch)
        for label, order in settings:
            one = subject.prepared[label].kept(self.fractions, order, counts=counts).cpu()
            kept |= {(i, label, order): one for i, row in enumerate(rows) if isinstance(row, dict)}
        return rows, kept, rows, next(iter(subject.prepared.values()))

    def _scores(
        self, subject: Subject, batch: AnyBatch, methods: Sequence[MethodSpec], seeds: list[int]
    ) -> tuple[list, list[Scored | str]]:
        """Return a batch's rows and their scores; a reason in the place of what has none."""
        rows = rows_of(subject, batch)
        good = [i for i, row in enumerate(rows) if isinstance(row, dict)]
        target = [int(batch.labels[i]) for i in good] if self.explain == "label" else None
        scored = scored_rows(
            subject, [rows[i] for i in good], methods, self.level, target, [seeds[i] for i in good]
        )
        found = list(rows)
        for place, entry in zip(good, scored, strict=True):
            found[place] = entry
        return rows, found

    def _numbers(
        self,
        logits: Float[Tensor, "steps classes"],
        whole: Float[Tensor, " classes"],
        credit: Mapping[int, float],
        label: int | None,
    ) -> Row:
        predicted = int(whole.argmax())
        explained = predicted if label is None else label
        probability = logits.softmax(1)[:, explained].tolist()
        if not np.isfinite(probability).all():
            return dict.fromkeys(COLUMNS) | {"error": NOT_FINITE}
        accuracy = accuracies(logits, credit).tolist()
        return {
            "accuracy": accuracy,
            "probability": probability,
            "unpruned": float(accuracies(whole[None], credit)),
            "auc": area(accuracy, self.fractions),
            "auc_probability": area(probability, self.fractions),
            "explained": explained,
            "predicted": predicted,
            "error": None,
        }


def _published_counts(subject: Subject) -> str:
    kind = getattr(getattr(subject.model, "config", None), "model_type", None)
    return "floor_kept" if kind == "lxmert" else "floor_pruned"
