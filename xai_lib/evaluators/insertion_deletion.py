"""Insertion and deletion: the predicted class's probability as its evidence comes or goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from xai_lib.evaluators.base import Row, Subject
from xai_lib.evaluators.batches import Batch
from xai_lib.evaluators.maps import MAPS, explained, ranked
from xai_lib.evaluators.packing import PixelEdits
from xai_lib.evaluators.registry import evaluator
from xai_lib.evaluators.removal import Removal, Setting
from xai_lib.evaluators.specs import MethodSpec
from xai_lib.options import check_range
from xai_lib.statistics.metric import Metric
from xai_lib.streams.scales import Scale

ORDERS = ("deletion", "insertion")
# Width and deviation of the published blur, in pixels of an image of the published size.
_KERNEL, _SIGMA, _SIZE = 11, 5.0, 224


@evaluator("insertion_deletion")
@dataclass
class InsertionDeletion(Removal):
    """Petsiuk et al., RISE (BMVC 2018), section 4.

    Pixels change in the order of the predicted class's map, most relevant first, in `steps` equal
    parts: after part i, int(H·W·i / steps) of them. deletion: the image's pixels become 0 after
    normalisation (the model's mean colour; `perturbation` takes black). insertion: the pixels of a
    blurred image become the image's own. probabilities: of the class that the map explains,
    before any change and after every part (steps + 1 numbers). auc: their trapezoid
    over [0, 1]; low is good in deletion, high in insertion.

    The blur is a Gaussian, kernel 11 and deviation 5 for 224 pixels, both in proportion for other
    sizes (the kernel odd, 3 at least). The published code pads the image with 0 before blurring;
    here it is mirrored, which keeps the borders' brightness. The published steps are 224 pixels
    each, 224 for 224 x 224; 28 cost an eighth and give nearly the same area. Equal relevance: row
    by row. maps: see `maps.explained`.
    """

    steps: int = 28
    maps: str = "native"

    groups = ("method", "order")
    settings = tuple((order,) for order in ORDERS)
    columns = ("probabilities", "auc")
    not_finite = "The model's logits hold NaN or Inf for an edited image of this sample"
    metrics = (Metric("auc", ("auc",), better={"deletion": "low", "insertion": "high"}, scale=100),)

    def __post_init__(self):
        check_range("steps", self.steps, 1, 100_000, "parts that the pixels change in.")
        self.check_choices(maps=MAPS)

    def shared(self, subject: Subject, batch: Batch) -> list[PixelEdits]:
        # Where every curve starts and ends.
        clean = subject.normalize(batch.images)
        named = {"clean": clean, "blurred": blurred(clean)}
        edits = [
            PixelEdits.none(image, (name, place))
            for name, images in named.items()
            for place, image in enumerate(images)
        ]
        return [*edits, PixelEdits.none(torch.zeros_like(clean[0]), "empty")]

    def found(
        self, subject: Subject, batch: Batch, methods: Sequence[MethodSpec]
    ) -> Iterator[tuple[str, list[tuple | str]]]:
        clean = subject.normalize(batch.images)
        faint, pixels = blurred(clean), clean.shape[-2] * clean.shape[-1]
        parts = [pixels * i // self.steps for i in range(self.steps + 1)]
        counts = torch.tensor(parts, device=clean.device)
        for spec in methods:
            found = explained(subject, batch, spec, maps=self.maps)
            entries = []
            columns = clean, faint, ranked(found, False), found.explained.tolist()
            for image, blur, ranks, chosen in zip(*columns, strict=True):
                known = (spec.label, counts, image, blur, *ranks, chosen)
                entries.append(ranks if isinstance(ranks, str) else known)
            yield spec.label, entries

    def copies(
        self, subject: Subject, batch: Batch, place: int, found: tuple
    ) -> list[tuple[list[Setting], PixelEdits, object]]:
        label, counts, image, faint, ranks, chosen = found
        clean, empty, blurry = ("clean", place), "empty", ("blurred", place)
        made = []
        for order, start, end, first, last in (
            ("deletion", image, torch.zeros_like(image[:, :1, :1]), clean, empty),
            ("insertion", faint, image, blurry, clean),
        ):
            between = [(place, label, order, step) for step in range(1, self.steps)]
            edits = PixelEdits(start, ranks, counts, end, [first, *between, last])
            made.append(([(order,)], edits, chosen))
        return made

    def numbers(
        self, logits: Float[Tensor, "points classes"], facts: Any, scale: Scale
    ) -> Row | None:
        curve = scale.probabilities(logits)[:, facts]
        if not curve.isfinite().all():
            return None
        area = torch.trapezoid(curve, dx=1 / self.steps).item()
        return {"probabilities": curve.tolist(), "auc": area}


def blurred(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Return images under the published blur, in proportion to their shorter side."""
    ratio = min(images.shape[-2:]) / _SIZE
    kernel = max(3, 2 * round((_KERNEL * ratio - 1) / 2) + 1)
    return gaussian_blur(images, [kernel, kernel], [_SIGMA * ratio, _SIGMA * ratio])
