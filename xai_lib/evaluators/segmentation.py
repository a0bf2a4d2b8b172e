"""Segmentation: a relevance map, thresholded at its mean, against the object's mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int8
from torch import Tensor

from xai_lib.api import COMPAT
from xai_lib.datasets.base import FOREGROUND, IGNORED
from xai_lib.errors import unknown_name
from xai_lib.evaluators.base import Evaluator, Row, Subject
from xai_lib.evaluators.batches import Batch
from xai_lib.evaluators.maps import MAPS, explained, min_max
from xai_lib.evaluators.registry import evaluator
from xai_lib.evaluators.specs import MethodSpec
from xai_lib.evaluators.truth import classes_to_explain
from xai_lib.statistics.metric import Metric, Values

EXPLAIN = ("predicted", "label")
COUNTS = ("correct", "labelled", "inter_bg", "union_bg", "inter_fg", "union_fg")
COLUMNS = (*COUNTS, "ap", "f1")


def _ratio(parts: np.ndarray) -> Values:
    with np.errstate(invalid="ignore"):
        return parts[..., 0] / parts[..., 1]


def _mean_iou(parts: np.ndarray) -> Values:
    return (_ratio(parts[..., :2]) + _ratio(parts[..., 2:])) / 2


@evaluator("segmentation")
@dataclass
class Segmentation(Evaluator):
    """Pixel accuracy, mIoU, mAP and mF1 of Chefer et al. (CVPR 2021, section 4).

    A map is scaled to v in [0, 1] by its minimum and maximum; foreground is v > mean(v). Pixels
    that the mask ignores count nowhere, save in the mean and the extremes.
    pixel_accuracy: Σ correct / Σ labelled, over the data set. mIoU: mean over background and
    foreground of Σ intersection / Σ union; a class that no mask and no map of the whole set has
    makes it undefined. mAP: mean average precision (area under the stepwise curve, equal scores
    together) of both classes at once, scores (1 - v, v) of every pixel against its one-hot label.
    mF1: mean F1 of the foreground, 2TP / (2TP + FP + FN), per image; 0 where that is 0/0.

    A constant map ranks nothing: all background, both scores 0 everywhere (so that AP = 0.5). A
    mask without foreground has defined values (F1 = 0) and counts. A mask with no labelled pixel
    and a map with NaN give an error row.
    compat="reference": F1 as the published code takes it, per image the mean over the labelled
    pixels cut into as many rows as the image has (an error row where they do not divide evenly),
    and a map with NaN scores as a constant one. explain: the predicted class, as in the paper, or
    the label. maps: see `maps.explained`.
    """

    compat: str | None = None
    maps: str = "native"
    explain: str = "predicted"

    needs = frozenset({"masks"})
    metrics = (
        Metric("pixel_accuracy", ("correct", "labelled"), _ratio, scale=100),
        Metric("mIoU", ("inter_bg", "union_bg", "inter_fg", "union_fg"), _mean_iou, scale=100),
        Metric("mAP", ("ap",), scale=100),
        Metric("mF1", ("f1",), scale=100),
    )

    def __post_init__(self):
        if self.compat not in COMPAT:
            raise unknown_name("compat", self.compat, ("reference",))
        if self.explain not in EXPLAIN:
            raise unknown_name("explain", self.explain, EXPLAIN)
        self.check_choices(maps=MAPS)
        if self.explain == "label":
            self.needs = frozenset({"labels", "masks"})

    def rows(self, subject: Subject, batch: Batch, methods: Sequence[MethodSpec]) -> Iterator[Row]:
        target = classes_to_explain(batch, self.explain, "Segmentation", truth="masks")
        for spec in methods:
            found = explained(subject, batch, spec, target, maps=self.maps)
            errors, values = list(found.errors), found.values
            if self.compat and found.patches.numel():
                # The published code sets 0/0 to 0 after scaling, also where the map itself is NaN.
                undefined = values.isnan().flatten(1).any(1) & (found.predicted >= 0)
                values = values.masked_fill(undefined[:, None, None], 0.0)
                errors = [None if u else e for u, e in zip(undefined.tolist(), errors, strict=True)]
            yield from self._scored(batch, spec, values, errors)

    def _scored(
        self, batch: Batch, spec: MethodSpec, values: Tensor, errors: list[str | None]
    ) -> Iterator[Row]:
        assert batch.masks is not None, "`rows` asked for them"
        masks = batch.masks.to(values.device)
        for i, count in enumerate((masks != IGNORED).flatten(1).sum(1).tolist()):
            if errors[i] is None and count == 0:
                errors[i] = "The mask ignores every pixel of this sample, so nothing can be scored"
            elif errors[i] is None and self.compat and count % len(masks[i]):
                errors[i] = (
                    f"The {count} labelled pixels do not divide into {len(masks[i])} rows, which "
                    "F1 under compat='reference' needs; the default F1 does not"
                )
        good = [i for i, error in enumerate(errors) if error is None]
        table = scores(values[good], masks[good], rows=self.compat is not None).tolist()
        places = {i: line for i, line in zip(good, table, strict=True)}
        for i, (index, key) in enumerate(zip(batch.index, batch.key, strict=True)):
            line = places.get(i, [None] * len(COLUMNS))
            numbers = dict(zip(COLUMNS, line, strict=True))
            yield {
                "index": index, "key": key, "method": spec.label, **numbers, "error": errors[i]
            }  # fmt: skip


def scores(
    values: Float[Tensor, "b h w"], masks: Int8[Tensor, "b h w"], rows: bool = False
) -> Float[Tensor, "b columns"]:
    """Return `COLUMNS` of every map: pixel counts, average precision and F1, in float64.

    rows: F1 as the mean over rows of pixels. Every mask has a labelled pixel.
    """
    values = min_max(values)
    constant = (values == 0).flatten(1).all(1)[:, None, None]
    labelled, truth = masks != IGNORED, masks == FOREGROUND
    guess = values > values.mean((1, 2), keepdim=True)
    counts = [_count(labelled & (guess == truth)), _count(labelled)]
    for mine, its in ((~guess, ~truth), (guess, truth)):
        counts += [_count(labelled & mine & its), _count(labelled & (mine | its))]
    background = torch.where(constant, 0.0, 1 - values)
    ap = average_precision(
        *(torch.cat([x.flatten(1) for x in pair], 1)
          for pair in ((background, values), (~truth, truth), (labelled, labelled)))
    )  # fmt: skip
    f1 = f1_of_rows(guess, truth, labelled).mean(1) if rows else _f1(guess, truth, labelled)
    return torch.stack([*(c.double() for c in counts), ap, f1], 1)


def average_precision(
    scores: Float[Tensor, "b n"], truth: Bool[Tensor, "b n"], counted: Bool[Tensor, "b n"]
) -> Float[Tensor, " b"]:
    """Return Σ_k (R_k - R_(k-1)) P_k over the distinct scores, from the highest down.

    P and R are precision and recall of all entries at or above a score, entries not counted left
    out; as scikit-learn defines it. NaN for a row without a true entry.
    """
    n = scores.shape[1]
    ordered, order = scores.sort(1, descending=True)
    truth = (truth & counted).gather(1, order).double()
    seen = counted.gather(1, order).cumsum(1).clamp(min=1)
    precision = truth.cumsum(1) / seen
    # Every entry takes the precision at the last entry of its score.
    place = torch.arange(n, device=scores.device).expand_as(ordered)
    is_last = torch.ones_like(ordered, dtype=torch.bool)
    is_last[:, :-1] = ordered[:, 1:] != ordered[:, :-1]
    last = torch.where(is_last, place, n).flip(1).cummin(1).values.flip(1)
    return (truth * precision.gather(1, last)).sum(1) / truth.sum(1)


def _count(pixels: Bool[Tensor, "b h w"]) -> Tensor:
    return pixels.flatten(1).sum(1)


def _f1(guess: Tensor, truth: Tensor, labelled: Tensor) -> Float[Tensor, " b"]:
    """Return 2TP / (TP + FP + TP + FN) over all but the first dimension; 0 where that is 0/0."""
    guess, truth = ((x & labelled).flatten(1) for x in (guess, truth))
    positives = guess.sum(1) + truth.sum(1)
    return 2 * (guess & truth).sum(1).double() / positives.clamp(min=1)


def f1_of_rows(
    guess: Bool[Tensor, "b h w"], truth: Bool[Tensor, "b h w"], labelled: Bool[Tensor, "b h w"]
) -> Float[Tensor, "b h"]:
    """Return F1 of the labelled pixels of each mask, cut into h rows of equal length."""
    rows = guess.shape[1]
    found = guess.new_zeros(guess.shape[:2], dtype=torch.float64)
    for i, keep in enumerate(labelled):
        g, t = (x[i][keep].view(rows, -1) for x in (guess, truth))
        found[i] = _f1(g, t, torch.ones_like(g))
    return found
