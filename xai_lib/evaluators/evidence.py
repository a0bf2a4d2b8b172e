"""Evidence: does the relevance lie on the regions and words that are known to decide the answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from xai_lib.datasets.base import QuestionSample
from xai_lib.evaluators.base import Evaluator, Row, Subject
from xai_lib.evaluators.batches import QuestionBatch
from xai_lib.evaluators.eraser.metrics import auprc
from xai_lib.evaluators.explained import EXPLAIN, STREAMS, Explained, explained_rows
from xai_lib.evaluators.registry import evaluator
from xai_lib.evaluators.specs import MethodSpec
from xai_lib.evaluators.truth import agreement_with, classes_to_explain, deciding_words
from xai_lib.statistics.metric import Metric
from xai_lib.streams.words import REDUCTIONS, spaced_words_of

COLUMNS = ("pointing", "mass", "auprc", "chance")
NOTHING = {
    "image": "No region decides this answer, so there is nothing to find",
    "text": "No word of this question is marked as deciding, so there is nothing to find",
}
UNKNOWN = "Nobody knows which {what} decide this answer"
PARTS = {"image": "regions", "text": "words"}


@evaluator("evidence")
@dataclass
class Evidence(Evaluator):
    """Pointing game, relevance mass and AUPRC against the regions and words that decide an answer.

    Of n regions (stream "image") or words (stream "text", `question.split()`; a word's score is
    that of its pieces by `reduce`), M decide:
    pointing_game: whether the most relevant one is in M (Zhang et al. 2016, for maps); of several
    most relevant ones the share that is. relevance_mass: Σ_M R⁺ / Σ R⁺, R⁺ = max(R, 0) (Arras et
    al. 2022). auprc: area under precision and recall over the scores, by trapezoid (as ERASER).
    chance: the share of M, what equal positive scores get in the first two.

    Scores without a positive one have no mass (left out of that metric's n). A question of which no
    region decides ("no", "0": there is no such object) is an error row of that stream alone.
    explain: the label's answer, which the evidence is of, or the predicted one.
    """

    explain: str = "label"
    reduce: str = "max"

    modality = "question"
    needs = frozenset({"labels", "evidence"})
    groups = ("method", "stream")
    metrics = (
        Metric("pointing_game", ("pointing",), scale=100),
        Metric("relevance_mass", ("mass",), scale=100),
        Metric("auprc", ("auprc",), scale=100),
        Metric("chance", ("chance",), better=None, scale=100),
    )

    def __post_init__(self):
        self.check_choices(explain=EXPLAIN, reduce=tuple(REDUCTIONS))
        if self.explain == "predicted":
            self.needs = frozenset({"evidence"})

    def rows(
        self, subject: Subject, batch: QuestionBatch, methods: Sequence[MethodSpec]
    ) -> Iterator[Row]:
        target = classes_to_explain(batch, self.explain, "Evidence")
        truths = [{stream: truth_of(one, stream) for stream in STREAMS} for one in batch.samples]
        for spec in methods:
            found = explained_rows(subject, batch, spec, target, reduce=self.reduce)
            for stream in STREAMS:
                for i, (index, key) in enumerate(zip(batch.index, batch.key, strict=True)):
                    line: Row = {"index": index, "key": key, "method": spec.label, "stream": stream}
                    entry, truth = found[i], truths[i][stream]
                    if isinstance(entry, str) or isinstance(truth, str):
                        error = entry if isinstance(entry, str) else truth
                        yield line | dict.fromkeys(COLUMNS) | {"error": error}
                        continue
                    yield line | self._numbers(entry, batch.samples[i], stream, truth)

    def _numbers(
        self, found: Explained, sample: QuestionSample, stream: str, truth: np.ndarray
    ) -> Row:
        scores = scores_of(found, sample, stream)
        numbers = dict(zip(COLUMNS, evidence_scores(scores, truth), strict=True))
        predicted = int(found.logits.argmax())
        more = {"scores": scores.tolist(), "deciding": np.flatnonzero(truth).tolist()}
        return numbers | more | {
            "explained": found.explained, "predicted": predicted,
            "kind": getattr(sample, "kind", None), "error": None,
        }  # fmt: skip


def truth_of(sample: QuestionSample, stream: str) -> Bool[np.ndarray, " n"] | str:
    """Return which regions or words decide, or why none is known."""
    if stream == "image":
        truth = None if sample.regions is None else np.asarray(sample.regions, bool)
    else:
        spans = sample.rationale
        truth = None if spans is None else deciding_words(sample.question, spans)
    if truth is None:
        return UNKNOWN.format(what=PARTS[stream])
    return truth if truth.any() else NOTHING[stream]


def scores_of(found: Explained, sample: QuestionSample, stream: str) -> Float[np.ndarray, " n"]:
    """Return the score of every region or word; words that the tokenizer drops get the least."""
    if stream == "image":
        assert found.regions is not None, "a question is asked about regions"
        return found.regions.numpy()
    places = {span: place for place, span in enumerate(spaced_words_of(sample.question))}
    known = found.words.scores.double().cpu().numpy()
    scores = np.full(len(places), known.min(initial=np.inf))
    for span, score in zip(found.words.spans, known, strict=True):
        scores[places[span]] = score
    return np.where(np.isfinite(scores), scores, 0.0)


def evidence_scores(
    scores: Float[np.ndarray, " n"], truth: Bool[np.ndarray, " n"]
) -> tuple[float, float | None, float, float]:
    """Return `COLUMNS` for scores of which some decide; mass is None where no score is positive."""
    found = agreement_with(torch.from_numpy(truth)[None], torch.from_numpy(scores)[None])
    numbers = {name: float(value) for name, value in found.items()}
    mass = None if np.isnan(numbers["mass"]) else numbers["mass"]
    area = auprc(truth.tolist(), scores.tolist())
    return numbers["pointing"], mass, area, numbers["chance"]
