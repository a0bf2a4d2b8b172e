"""Word scores: every word of every sentence with its score, for tables of words over a data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from xai_lib.evaluators.base import Evaluator, Row, Subject
from xai_lib.evaluators.batches import TextBatch
from xai_lib.evaluators.explained import (
    EXPLAIN,
    Explained,
    check_max_length,
    explained_rows,
    targets_of,
)
from xai_lib.evaluators.randomisation import cascade_of
from xai_lib.evaluators.registry import evaluator
from xai_lib.evaluators.specs import MethodSpec
from xai_lib.statistics.metric import Metric
from xai_lib.streams.words import REDUCTIONS, words_of

UNITS = ("word", "token")
COLUMNS = ("words", "scores", "units", "tokens", "explained", "predicted")


@evaluator("word_scores")
@dataclass
class WordScores(Evaluator):
    """Wu & Ong (2021), sections 3.2.1, 3.4 and 3.5: the scores that their word tables rest on.

    Each row holds `words` and `scores`, lists of equal length: of the "word"s between white space,
    in lower case (lower), with the maximum (reduce) of their pieces' scores, or of the "token"s, as
    published; signs are kept and nothing is scaled. tokens: how many the text has, special ones
    aside. `word_statistics` makes rank tables and correlations of the records.

    randomise: explain the same class in a copy of the model whose parameters are all random, too
    (weights "randomised" beside "trained"): each gets normal numbers of its own mean and standard
    deviation, drawn from `seed` (`randomisation`); the publication draws from the initialiser.
    explain, max_length: as in `word_deletion`.
    """

    unit: str = "word"
    reduce: str = "max"
    lower: bool = True
    explain: str = "predicted"
    randomise: bool = False
    seed: int = 0
    max_length: int | None = None

    modality = "text"
    groups = ("method", "weights")
    metrics = (
        Metric("units", ("units",), better=None),
        Metric("tokens", ("tokens",), better=None),
    )

    def __post_init__(self):
        self.check_choices(unit=UNITS, reduce=tuple(REDUCTIONS), explain=(*EXPLAIN, "last"))
        check_max_length(self.max_length)
        if self.explain == "label":
            self.needs = frozenset({"labels"})

    def rows(
        self, subject: Subject, batch: TextBatch, methods: Sequence[MethodSpec]
    ) -> Iterator[Row]:
        found = {}
        for spec in methods:
            target = targets_of(subject, batch, self.explain)
            found[spec.label] = self._explained(subject, batch, spec, target)
            yield from self._rows(batch, spec, "trained", found[spec.label])
        good = next((e for row in found.values() for e in row if isinstance(e, Explained)), None)
        if not self.randomise:
            return
        if good is None:
            for spec in methods:
                yield from self._rows(batch, spec, "randomised", found[spec.label])
            return
        inputs = {name: v[None].to(subject.device) for name, v in good.row.items()}
        cascade = cascade_of(subject.model, inputs, self.seed)
        with cascade.randomised(len(cascade.stages)) as model:
            random = replace(subject, model=model, keep=None)
            for spec in methods:
                # A random model predicts a class of its own; another class is no comparison.
                target = [getattr(e, "explained", 0) for e in found[spec.label]]
                again = self._explained(random, batch, spec, target)
                pairs = zip(found[spec.label], again, strict=True)
                entries = [old if isinstance(old, str) else new for old, new in pairs]
                yield from self._rows(batch, spec, "randomised", entries)

    def _explained(self, subject: Subject, batch: TextBatch, spec: MethodSpec, target):
        return explained_rows(
            subject,
            batch,
            spec,
            target,
            max_length=self.max_length,
            reduce=self.reduce,
            divide=words_of,
        )

    def _rows(
        self, batch: TextBatch, spec: MethodSpec, weights: str, found: list[Explained | str]
    ) -> Iterator[Row]:
        for index, key, entry in zip(batch.index, batch.key, found, strict=True):
            row = {"index": index, "key": key, "method": spec.label, "weights": weights}
            if isinstance(entry, str):
                yield row | dict.fromkeys(COLUMNS) | {"error": entry}
                continue
            words, scores = self._units(entry)
            numbers = (words, scores, len(words), int((~entry.special).sum()))
            classes = (entry.explained, entry.predicted)
            yield row | dict(zip(COLUMNS, (*numbers, *classes), strict=True)) | {"error": None}

    def _units(self, entry: Explained) -> tuple[list[str], list[float]]:
        if self.unit == "word":
            labels, scores = entry.words.labels, entry.words.scores.double().tolist()
        else:
            kept = (~entry.special).nonzero().flatten().tolist()
            labels = [entry.tokens.labels[i] for i in kept]
            scores = entry.scores[kept].tolist()
        return [label.lower() if self.lower else label for label in labels], scores
