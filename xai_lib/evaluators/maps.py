"""The map that an evaluator scores: a method's relevance as one number a pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xai_lib.api import explain
from xai_lib.attribution import Attribution
from xai_lib.evaluators.base import Subject
from xai_lib.evaluators.batches import Batch
from xai_lib.evaluators.explained import Classes, all_or_each
from xai_lib.evaluators.specs import MethodSpec
from xai_lib.streams.patches import TokenLayout

MAPS = ("native", "patches")
NOT_FINITE = "The relevance of {method!r} holds NaN or Inf for this sample, so no map can be scored"


@dataclass(frozen=True)
class Maps:
    """Evaluated maps of a batch in float64, and which of its samples have none.

    values: as `explained` was asked for, in the method's units. patches: the same explanation in
    the patch grid, in the method's dtype. explained, predicted: class indices. errors: None, or
    why a sample has no map; its values are not finite, and where not even a prediction exists, its
    patches and logits are NaN and its classes -1 (with no such row left, the grid is (0, 0) and
    there are 0 logits).
    """

    values: Float[Tensor, "b h w"]
    patches: Float[Tensor, "b rows columns"]
    explained: Int[Tensor, " b"]
    predicted: Int[Tensor, " b"]
    logits: Float[Tensor, "b classes"]
    errors: tuple[str | None, ...]

    @property
    def scored(self) -> list[int]:
        """Places of the samples that have a map."""
        return [i for i, error in enumerate(self.errors) if error is None]


def explained(
    subject: Subject,
    batch: Batch,
    spec: MethodSpec,
    target: Classes | None = None,
    *,
    maps: str = "native",
    keep: bool = True,
) -> Maps:
    """Explain every sample of a batch for `target` (None: its predicted class).

    maps: "native" takes the pixel map of a method that reaches the pixels (lrp, gradients), and for
    all others the patches enlarged bilinearly (corners not aligned) to the image, as the papers do,
    each over the pixels it was computed from;
    "patches" always takes the latter. keep: hand the maps to `subject.keep`.
    A sample that cannot be explained, such as one with NaN logits, costs only itself: the others
    are explained one by one. What holds for all samples (options, targets outside the model's
    classes, methods that the model has no use for) is raised.
    """

    def entries(places: list[int]) -> list[Maps]:
        # All samples, or a single one: where one fails, the others are explained alone.
        part = slice(places[0], places[-1] + 1)
        chosen = None if target is None else target[part]
        return [_explain(subject, batch[part], spec, chosen, maps)]

    found = _joined(all_or_each(list(range(len(batch))), entries), batch)
    if keep and subject.keep is not None:
        for i in found.scored:
            subject.keep(spec.label, batch.index[i], found.patches[i])
    return found


def enlarged(
    patches: Float[Tensor, "b rows columns"], size: tuple[int, int]
) -> Float[Tensor, "b h w"]:
    """Return patch maps enlarged bilinearly (corners not aligned) to `size`, in float64.

    What is equal stays equal to the bit, as at the borders, where the outermost patches repeat: a
    ranking of pixels breaks its ties by place, not by rounding that changes with the batch.
    """
    return _stretched(_stretched(patches.double(), 1, size[0]), 2, size[1])


def _over_image(found: Attribution, size: tuple[int, int]) -> Float[Tensor, "b h w"]:
    """Return an explanation's patches over the pixels of their own; 0 where no patch lies."""
    patches, layout = found.patches, found.layout
    assert isinstance(layout, TokenLayout), "of pixels"
    if layout.grid is None or layout.cells.whole:
        return enlarged(patches, size)
    return layout.cells.enlarged(patches.double(), size)


def _stretched(maps: Float[Tensor, "b rows columns"], dim: int, size: int) -> Tensor:
    last = maps.shape[dim] - 1
    pixels = torch.arange(size, dtype=torch.float64, device=maps.device)
    place = ((pixels + 0.5) * (last + 1) / size - 0.5).clamp(0, last)
    below = place.floor()
    share = (place - below).unsqueeze(1) if dim == 1 else place - below
    low = maps.index_select(dim, below.long())
    high = maps.index_select(dim, (below + 1).clamp(max=last).long())
    return low + share * (high - low)


def min_max(values: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """Return (v - min v) / (max v - min v) of each map; 0 everywhere where a map is constant."""
    flat = values.flatten(1)
    low, high = flat.amin(1), flat.amax(1)
    span = torch.where(high > low, high - low, 1.0)
    return (values - low[:, None, None]) / span[:, None, None]


def ranks(values: Float[Tensor, "b h w"], least_first: bool = False) -> Int[Tensor, "b h w"]:
    """Return each pixel's place, from 0, when the most (or least) relevant pixel comes first.

    Pixels of equal relevance follow each other row by row, in both directions.
    """
    flat = values.flatten(1)
    order = flat.argsort(dim=1, descending=not least_first, stable=True)
    places = torch.arange(flat.shape[1], dtype=torch.int32, device=flat.device)
    found = torch.empty_like(order, dtype=torch.int32)
    return found.scatter_(1, order, places.expand_as(order)).view_as(values)


def ranked(found: Maps, *least_first: bool) -> list[list[Int[Tensor, "h w"]] | str]:
    """Return the `ranks` (h, w) of each sample's map in several orders, or why it has none."""
    orders = [ranks(found.values[found.scored], least_first=flag) for flag in least_first]
    each = iter(zip(*orders, strict=True))
    return [list(next(each)) if error is None else error for error in found.errors]


def _explain(subject: Subject, batch: Batch, spec: MethodSpec, target, maps: str) -> Maps:
    pixels = subject.normalize(batch.images)
    found = explain(subject.model, pixels, spec.name, target=target, **spec.options)
    height, width = batch.images.shape[-2:]
    if maps == "native" and found.pixels is not None:
        values = found.pixels.double()
    else:
        values = _over_image(found, (height, width))
    finite = values.isfinite().flatten(1).all(1) & found.patches.isfinite().flatten(1).all(1)
    errors = (None if ok else NOT_FINITE.format(method=spec.label) for ok in finite.tolist())
    predicted = found.logits.argmax(-1)
    return Maps(values, found.patches, found.target, predicted, found.logits, tuple(errors))


def _joined(parts: Sequence[Maps | str], batch: Batch) -> Maps:
    """Return maps of parts of a batch as those of the whole; a reason stands for one sample."""
    found = [part for part in parts if isinstance(part, Maps)]
    grid = found[0].patches.shape[1:] if found else (0, 0)
    classes = found[0].logits.shape[1] if found else 0
    none = batch.images.new_full
    unknown = torch.full((1,), -1, device=batch.images.device)

    def missing(reason: str) -> Maps:
        values = none((1, *batch.images.shape[-2:]), torch.nan, dtype=torch.float64)
        patches, logits = none((1, *grid), torch.nan), none((1, classes), torch.nan)
        return Maps(values, patches, unknown, unknown, logits, (reason,))

    whole = [part if isinstance(part, Maps) else missing(part) for part in parts]
    if len(whole) == 1:
        return whole[0]
    return Maps(
        *(
            torch.cat([getattr(part, name) for part in whole])
            for name in ("values", "patches", "explained", "predicted", "logits")
        ),
        errors=tuple(error for part in whole for error in part.errors),
    )
