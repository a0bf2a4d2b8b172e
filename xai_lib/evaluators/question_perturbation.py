"""Question perturbation: accuracy while the most (or least) relevant regions or tokens go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from xai_lib.errors import OptionError
from xai_lib.evaluators.answers import accuracies, credits_of
from xai_lib.evaluators.base import Evaluator, QuestionBatch, Row, Subject
from xai_lib.evaluators.model_rows import ModelRow, stream_rows
from xai_lib.evaluators.question_removal import (
    KEPT_AT_END,
    STEPS,
    kept_regions,
    kept_tokens,
    with_only,
)
from xai_lib.evaluators.questions import STREAMS, ExplainedQuestion, explained_questions
from xai_lib.evaluators.registry import evaluator
from xai_lib.evaluators.specs import MethodSpec
from xai_lib.evaluators.text_perturbation import BETTER, ORDERS, area
from xai_lib.evaluators.texts import check_explain
from xai_lib.statistics.metric import Metric

NOT_FINITE = "The model's logits hold NaN or Inf where regions or tokens are taken from this sample"
COLUMNS = ("accuracy", "probability", "kept", "auc", "auc_probability")


@evaluator("question_perturbation")
@dataclass(frozen=True)
class QuestionPerturbation(Evaluator):
    """Chefer et al. (ICCV 2021, section 4): regions or tokens of a question are taken away.

    At each step f, ⌊(1 - f) n⌋ regions (stream "image") or tokens ("text") stay; the most relevant
    go first (order "positive", where accuracy should fall) or the least relevant ("negative", where
    it should stay). The other stream is whole. Tokens close up; the first and the last one stay,
    and in VisualBERT the one before it, which the answer is read at. At f = 1 there is no region.
    image_steps, text_steps: fractions; None for the published ones of LXMERT or VisualBERT.
    explain: the predicted answer, as published, or the label's.

    Curves, one entry a step: accuracy, VQA's soft accuracy of the predicted answer (1 for the label
    where answers have no scores); probability, of the explained answer; kept, how many stay.
    auc, auc_probability: the trapezoid over f from the first step to the last.
    """

    image_steps: list | tuple | None = None
    text_steps: list | tuple | None = None
    explain: str = "predicted"

    modality = "question"
    needs = frozenset({"answers"})
    groups = ("method", "stream", "order")
    metrics = (
        Metric("auc", ("auc",), better=BETTER, scale=100),
        Metric("auc_probability", ("auc_probability",), better=BETTER, scale=100),
    )

    def __post_init__(self):
        check_explain(self.explain)
        for name in ("image_steps", "text_steps"):
            object.__setattr__(self, name, check_fractions(name, getattr(self, name)))
        if self.explain == "label":
            object.__setattr__(self, "needs", frozenset({"answers", "labels"}))

    def steps(self, kind: str) -> dict[str, tuple[float, ...]]:
        """Return the fractions by stream for a model type, "lxmert" or "visual_bert"."""
        given = {"image": self.image_steps, "text": self.text_steps}
        return {stream: STEPS[kind][stream] if s is None else s for stream, s in given.items()}

    def rows(
        self, subject: Subject, batch: QuestionBatch, methods: Sequence[MethodSpec]
    ) -> Iterator[Row]:
        credit = credits_of(batch)
        target = batch.labels if self.explain == "label" else None
        kind = subject.processor.kind
        steps = self.steps(kind)
        settings = [(stream, order) for stream in STREAMS for order in ORDERS]
        for spec in methods:
            found = explained_questions(subject, batch, spec, target)
            edits: list[ModelRow] = []
            counts: dict[tuple, list[int]] = {}
            for i, entry in enumerate(found):
                for stream, order in settings if isinstance(entry, ExplainedQuestion) else ():
                    kept = kept_parts(entry, stream, steps[stream], order, kind)
                    edits += [with_only(entry.row, stream, places) for places in kept]
                    counts[i, stream, order] = [len(places) for places in kept]
            sizes = [len(n) for n in counts.values()]
            logits = dict(zip(counts, stream_rows(subject, edits).split(sizes), strict=True))
            for stream, order in settings:
                for i, (index, key) in enumerate(zip(batch.index, batch.key, strict=True)):
                    line = {"index": index, "key": key, "method": spec.label}
                    line |= {"stream": stream, "order": order}
                    place = (i, stream, order)
                    if place not in logits:
                        yield line | dict.fromkeys(COLUMNS) | {"error": found[i]}
                        continue
                    explained = found[i].explained
                    numbers = curves(logits[place], credit[i], explained, steps[stream])
                    yield line | numbers | {"kept": counts[place], "explained": explained}


def kept_parts(
    found: ExplainedQuestion, stream: str, steps: Sequence[float], order: str, kind: str
) -> list[list[int]]:
    """Return the places of the regions or tokens that stay at each step."""
    least_first = order == "negative"
    if stream == "image":
        return kept_regions(found.regions, steps, least_first)
    return kept_tokens(found.tokens, steps, least_first, KEPT_AT_END[kind])


def curves(
    logits: Float[Tensor, "steps classes"], credit, explained: int, steps: Sequence[float]
) -> Row:
    """Return accuracy and probability at each step and their areas; or that they are not finite."""
    accuracy = accuracies(logits, credit).tolist()
    probability = logits.softmax(1)[:, explained].tolist()
    if not np.isfinite(probability).all():
        return dict.fromkeys(COLUMNS) | {"error": NOT_FINITE}
    return {
        "accuracy": accuracy,
        "probability": probability,
        "auc": area(accuracy, steps),
        "auc_probability": area(probability, steps),
        "error": None,
    }


def check_fractions(name: str, steps: Sequence[float] | None, most: float = 1.0):
    """Return fractions as a tuple, or raise an OptionError; None stays None."""
    if steps is None:
        return None
    numbers = [s for s in steps if isinstance(s, int | float) and 0 <= s <= most]
    if len(numbers) < 2 or len(numbers) < len(steps) or any(np.diff(numbers) <= 0):
        raise OptionError(
            f"{name} is {list(steps)!r}; expected at least two rising fractions from 0 to {most:g}."
        )
    return tuple(map(float, numbers))
