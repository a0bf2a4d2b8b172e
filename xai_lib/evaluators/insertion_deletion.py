"""Insertion and deletion: the predicted class's probability as its evidence comes or goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from xai_lib.errors import TargetError
from xai_lib.evaluators.base import Batch, Evaluator, Row, Subject
from xai_lib.evaluators.maps import check_maps, explained, ranks
from xai_lib.evaluators.registry import evaluator
from xai_lib.evaluators.specs import MethodSpec
from xai_lib.evaluators.streaming import Edits, stream
from xai_lib.options import check_range
from xai_lib.statistics.metric import Metric

ORDERS = ("deletion", "insertion")
# Width and deviation of the published blur, in pixels of an image of the published size.
_KERNEL, _SIGMA, _SIZE = 11, 5.0, 224


@evaluator("insertion_deletion")
@dataclass(frozen=True)
class InsertionDeletion(Evaluator):
    """Petsiuk et al., RISE (BMVC 2018), section 4.

    Pixels change in the order of the predicted class's map, most relevant first, in `steps` equal
    parts: after part i, int(H·W·i / steps) of them. deletion: the image's pixels become 0 after
    normalisation (the model's mean colour; `perturbation` takes black). insertion: the pixels of a
    blurred image become the image's own. probabilities: softmax of the class that the map explains,
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
    metrics = (Metric("auc", ("auc",), better={"deletion": "low", "insertion": "high"}, scale=100),)

    def __post_init__(self):
        check_range("steps", self.steps, 1, 100_000, "parts that the pixels change in.")
        check_maps(self.maps)

    def rows(self, subject: Subject, batch: Batch, methods: Sequence[MethodSpec]) -> Iterator[Row]:
        size = tuple(batch.images.shape[-2:])
        counts = [size[0] * size[1] * i // self.steps for i in range(1, self.steps)]
        samples: list[list[int]] = []
        classes: list[Tensor] = []
        errors: dict[str, tuple[str | None, ...]] = {}

        def edits() -> Iterator[Edits]:
            clean = subject.normalize(batch.images)
            empty, faint = torch.zeros_like(clean[:1]), blurred(clean)
            # Where every curve starts and ends does not depend on the method.
            yield from (Edits.none(images) for images in (clean, empty, faint))
            for spec in methods:
                found = explained(subject, batch, spec, maps=self.maps)
                errors[spec.label] = found.errors
                samples.append(found.scored)
                classes.append(found.explained[found.scored])
                places, whole = ranks(found.values[found.scored]), clean[found.scored]
                yield Edits(whole, places, counts, empty)
                yield Edits(faint[found.scored], places, counts, whole)

        clean, empty, faint, *edited = (part.cpu() for part in stream(subject, edits()))
        if clean.shape[2] < 2:
            raise TargetError(
                "The model has 1 class, whose softmax is 1 whatever the image shows, so there is "
                "no probability to follow; insertion and deletion need two classes at least."
            )
        parts_of = zip(methods, samples, classes, edited[::2], edited[1::2], strict=True)
        for spec, which, chosen, gone, come in parts_of:
            start, end = clean[:, which], empty.expand(-1, len(which), -1)
            for order, parts in (
                ("deletion", (start, gone, end)),
                ("insertion", (faint[:, which], come, start)),
            ):
                curves = probabilities(torch.cat(parts), chosen.cpu())
                numbers = dict(zip(which, curves, strict=True))
                for i, (index, key) in enumerate(zip(batch.index, batch.key, strict=True)):
                    row = {"index": index, "key": key, "method": spec.label, "order": order}
                    yield row | self._numbers(numbers.get(i), errors[spec.label][i])

    def _numbers(self, curve: Float[Tensor, " points"] | None, error: str | None) -> Row:
        if curve is not None and not curve.isfinite().all():
            error = "The model's logits hold NaN or Inf for an edited image of this sample"
        if error is not None:
            return {"probabilities": None, "auc": None, "error": error}
        area = torch.trapezoid(curve, dx=1 / self.steps).item()
        return {"probabilities": curve.tolist(), "auc": area, "error": None}


def probabilities(
    logits: Float[Tensor, "points b classes"], chosen: Int[Tensor, " b"]
) -> Float[Tensor, "b points"]:
    """Return softmax(logits) of one class a sample."""
    index = chosen.view(1, -1, 1).expand(len(logits), -1, 1)
    logits = logits.double()
    return (logits.gather(2, index).squeeze(2) - logits.logsumexp(2)).exp().t()


def blurred(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Return images under the published blur, in proportion to their shorter side."""
    ratio = min(images.shape[-2:]) / _SIZE
    kernel = max(3, 2 * round((_KERNEL * ratio - 1) / 2) + 1)
    return gaussian_blur(images, [kernel, kernel], [_SIGMA * ratio, _SIGMA * ratio])
