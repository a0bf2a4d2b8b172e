"""Question perturbation: accuracy while the most (or least) relevant regions or tokens go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from jaxtyping import Float
from torch import Tensor

from xai_lib.evaluators.base import Row, Subject
from xai_lib.evaluators.batches import QuestionBatch
from xai_lib.evaluators.explained import EXPLAIN, STREAMS, Explained
from xai_lib.evaluators.measures import curves
from xai_lib.evaluators.packing import RowEdits
from xai_lib.evaluators.registry import evaluator
from xai_lib.evaluators.removal import (
    BETTER,
    ORDERS,
    Removal,
    Setting,
    closed_up,
    fractions,
    kept_regions,
    kept_tokens,
)
from xai_lib.statistics.metric import Metric
from xai_lib.streams.scales import Scale


@evaluator("question_perturbation")
@dataclass
class QuestionPerturbation(Removal):
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
    settings = tuple(product(STREAMS, ORDERS))
    columns = ("accuracy", "probability", "kept", "auc", "auc_probability")
    not_finite = (
        "The model's logits hold NaN or Inf where regions or tokens are taken from this sample"
    )
    metrics = (
        Metric("auc", ("auc",), better=BETTER, scale=100),
        Metric("auc_probability", ("auc_probability",), better=BETTER, scale=100),
    )

    def __post_init__(self):
        self.check_choices(explain=EXPLAIN)
        for name in ("image_steps", "text_steps"):
            if getattr(self, name) is not None:
                setattr(self, name, fractions(name, getattr(self, name)))
        if self.explain == "label":
            self.needs = frozenset({"answers", "labels"})

    def copies(
        self, subject: Subject, batch: QuestionBatch, place: int, found: Explained
    ) -> list[tuple[list[Setting], RowEdits, object]]:
        family, credit = subject.processor.family, batch.credits()[place]
        given = {"image": self.image_steps, "text": self.text_steps}
        made = []
        for stream, order in self.settings:
            steps = given[stream] or family.steps(stream)
            assert found.regions is not None, "a question is asked about regions"
            scores = found.regions if stream == "image" else found.scores
            kept = kept_parts(scores, stream, steps, order, family.kept_at_end)
            facts = steps, credit, found.explained, [len(places) for places in kept]
            made.append(([(stream, order)], closed_up(found.row, kept, place, stream), facts))
        return made

    def numbers(
        self, logits: Float[Tensor, "steps classes"], facts: Any, scale: Scale
    ) -> Row | None:
        steps, credit, explained, kept = facts
        found = curves(logits, credit, explained, steps, scale)
        if found is None:
            return None
        names = ("accuracy", "probability", "auc", "auc_probability", "kept", "explained")
        return dict(zip(names, (*found, kept, explained), strict=True))


def kept_parts(
    scores: Float[Tensor, " units"], stream: str, steps: Sequence[float], order: str, at_end: int
) -> list[list[int]]:
    """Return the places of the regions or tokens that stay at each step."""
    least_first = order == "negative"
    if stream == "image":
        return kept_regions(scores, steps, least_first)
    return kept_tokens(scores, steps, least_first, at_end)
