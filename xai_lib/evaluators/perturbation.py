"""Perturbation: accuracy while the most (or least) relevant pixels are blacked out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from xai_lib.evaluators.base import Row, Subject
from xai_lib.evaluators.batches import Batch
from xai_lib.evaluators.maps import MAPS, explained, ranked
from xai_lib.evaluators.measures import CURVES, MEANS, check_label, label_scores
from xai_lib.evaluators.packing import PixelEdits
from xai_lib.evaluators.registry import evaluator
from xai_lib.evaluators.removal import BETTER, ORDERS, Removal, Setting, rising
from xai_lib.evaluators.specs import MethodSpec
from xai_lib.statistics.metric import Metric
from xai_lib.streams.scales import Scale

STEPS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
EXPLAINED = ("predicted", "target")


@evaluator("perturbation")
@dataclass
class Perturbation(Removal):
    """Chefer et al. (CVPR 2021, section 4) and Chen et al. (TMLR 2023): pixels made black.

    For every fraction f of `steps`, int(H·W·f) pixels of the clean image become 0 in all channels
    of the image in [0, 1], before normalisation (fill "black"), or after it (fill "mean", the
    model's mean colour, as published for CLIP by Chen et al.): the most relevant ones (order
    "positive", where a fast fall is good) or the least relevant ones ("negative", where a slow one
    is). Pixels of equal relevance go row by row. The map is the predicted class's or the label's
    ("target"); a method that knows no classes has the same row in both. maps: see `maps.explained`.

    Curves, one entry a step, the first two with the clean image in front: hits, whether the label
    is predicted; log_odds, log(p_label / p_second) with the second largest probability of all;
    logit_change and probability_change, the largest value after less the largest before, whichever
    class holds it.
    auc_cvpr21: trapezoid of the accuracy over f from 0 to the last step. auc_tmlr23: the same up to
    f = 1, where accuracy is set to 0. Both are linear in the samples: a row holds its own share.
    mean_log_odds, mean_probability_change: over the steps, clean image left out.
    """

    steps: list | tuple = STEPS
    maps: str = "native"
    fill: str = "black"

    needs = frozenset({"labels"})
    groups = ("method", "explained", "order")
    settings = tuple(product(EXPLAINED, ORDERS))
    columns = (*CURVES, *MEANS)
    not_finite = "The model's logits hold NaN or Inf for a perturbed image of this sample"
    metrics = (
        Metric("auc_cvpr21", ("auc_cvpr21",), better=BETTER, scale=100),
        Metric("auc_tmlr23", ("auc_tmlr23",), better=BETTER, scale=100),
        Metric("mean_log_odds", ("mean_log_odds",), better=BETTER),
        Metric("mean_probability_change", ("mean_probability_change",), better=BETTER),
    )

    def __post_init__(self):
        expected = f"rising fractions between 0 and 1, both left out, such as {list(STEPS)}"
        self.steps = rising("steps", self.steps, lambda f: 0 < f < 1, expected, least=1)
        self.check_choices(maps=MAPS, fill=("black", "mean"))

    def shared(self, subject: Subject, batch: Batch) -> list[PixelEdits]:
        clean = subject.normalize(batch.images)
        return [PixelEdits.none(image, place) for place, image in enumerate(clean)]

    def found(
        self, subject: Subject, batch: Batch, methods: Sequence[MethodSpec]
    ) -> Iterator[tuple[str, list[_Found]]]:
        clean, labels = subject.normalize(batch.images), batch.labels
        assert labels is not None, "`check` asked for them"
        fill = torch.zeros_like(clean[0, :, :1, :1])
        if self.fill == "black":
            fill = subject.normalize(torch.zeros_like(batch.images[:1, :, :1, :1]))[0]
        counts = torch.tensor((0, *pixel_counts(clean.shape[-2:], self.steps)), device=clean.device)
        for spec in methods:
            found = explained(subject, batch, spec, maps=self.maps)
            maps: list[_Maps] = [[(EXPLAINED, one)] for one in ranked(found, False, True)]
            # Where the label is what the model predicts, one map serves both; where there is not
            # even a prediction, neither does another target help.
            other = (found.predicted >= 0) & (found.predicted != labels.to(found.predicted.device))
            wrong = other.nonzero().flatten().tolist()
            if spec.class_specific and wrong:
                part, target = batch[wrong], labels[wrong]
                found = explained(subject, part, spec, target, maps=self.maps, keep=False)
                for i, one in zip(wrong, ranked(found, False, True), strict=True):
                    maps[i] = [(("predicted",), maps[i][0][1]), (("target",), one)]
            yield (
                spec.label,
                [
                    _Found(spec.label, image, counts, fill, one)
                    for image, one in zip(clean, maps, strict=True)
                ],
            )

    def copies(
        self, subject: Subject, batch: Batch, place: int, found: _Found
    ) -> list[tuple[list[Setting], PixelEdits | str, object]]:
        assert batch.labels is not None, "`check` asked for them"
        label, steps, made = int(batch.labels[place]), range(1, len(found.counts)), []
        for classes, ranks in found.maps:
            if isinstance(ranks, str):
                made.append((list(product(classes, ORDERS)), ranks, None))
                continue
            for order, rank in zip(ORDERS, ranks, strict=True):
                keys = [place, *((place, found.label, classes, order, step) for step in steps)]
                edits = PixelEdits(found.image, rank, found.counts, found.fill, keys)
                made.append(([(one, order) for one in classes], edits, label))
        return made

    def numbers(
        self, logits: Float[Tensor, "steps classes"], facts: Any, scale: Scale
    ) -> Row | None:
        check_label(facts, logits.shape[1])
        row = label_scores(logits, facts, self.steps, scale)
        return row if np.isfinite([row[name] for name in MEANS]).all() else None


# Maps of an image: the classes that each is of, and its ranks by order or why none.
_Maps = list[tuple[tuple[str, ...], list[Tensor] | str]]


class _Found(NamedTuple):
    """An image, its maps, and what replaces its pixels."""

    label: str
    image: Tensor
    counts: Tensor
    fill: Tensor
    maps: _Maps


def pixel_counts(size: Sequence[int], steps: Sequence[float]) -> tuple[int, ...]:
    """Return int(H·W·f) for each fraction f."""
    pixels = size[0] * size[1]
    return tuple(int(pixels * step) for step in steps)
