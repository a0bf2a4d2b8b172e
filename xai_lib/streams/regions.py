"""Regions: a stream of what a detector saw in each image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from xai_lib.errors import InputError
from xai_lib.streams.stream import Grid, Stream
from xai_lib.tracing import Trace


@dataclass(frozen=True)
class RegionLayout:
    """Image regions of a batch, as a detector found them.

    boxes: (batch, regions, 4), x0, y0, x1, y1 in parts of the image's width and height, or None
    where the model is given none. present: (batch, regions), False for padding.
    """

    present: Bool[Tensor, "batch regions"]
    boxes: Float[Tensor, "batch regions 4"] | None = None

    kind: ClassVar[str] = "regions"
    stream: ClassVar[str] = "regions"
    leads: ClassVar[bool] = False

    @property
    def tokens(self) -> int:
        return self.present.shape[1]

    def content_of(self, batch: int, device: torch.device) -> Bool[Tensor, "*targets_batch tokens"]:
        """Return bool (batch, regions): True for regions that are no padding."""
        return self.present


@dataclass
class Regions(Stream):
    """Image regions as `data`, features (batch, regions, dim)."""

    present: Bool[Tensor, "batch regions"] = field(kw_only=True)
    boxes: Float[Tensor, "batch regions 4"] | None = field(default=None, kw_only=True)

    kind: ClassVar[str] = "regions"
    advice: ClassVar[str] = "processor(question, features, boxes) makes inputs that fit."

    def samples(self) -> list[Shaped[Tensor, "..."]]:
        return [row[kept] for row, kept in zip(self.data, self.present, strict=True)]

    def layout(self, trace: Trace) -> RegionLayout:
        return RegionLayout(self.present, self.boxes)

    def layout_among(self, tokens: int, grid: Grid, patch: Grid) -> RegionLayout:
        return RegionLayout(self.present, self.boxes)


def check_regions(model: nn.Module, inputs: dict, name: str) -> None:
    """Raise an InputError unless `inputs[name]` are region features that fit model and boxes."""
    features = inputs[name]
    if not isinstance(features, Tensor) or features.dim() != 3 or not features.is_floating_point():
        raise InputError(
            f"inputs[{name!r}] is {_shape(features)}; expected float features of shape (batch, "
            "regions, dim), as a detector or a file of region features gives them."
        )
    if not features.shape[1]:
        raise InputError(f"inputs[{name!r}] has no regions; expected at least one for each image.")
    if not torch.isfinite(features).all():
        raise InputError(f"inputs[{name!r}] holds NaN or Inf; expected finite features.")
    config = getattr(model, "config", None)
    width = getattr(config, "visual_feat_dim", getattr(config, "visual_embedding_dim", None))
    if isinstance(width, int) and features.shape[2] != width:
        raise InputError(
            f"inputs[{name!r}] has features of {features.shape[2]} numbers, the model takes "
            f"{width}: they come from another detector than the one it was trained with."
        )
    _check_boxes(inputs, features)
    mask = inputs.get("visual_attention_mask")
    if mask is not None and tuple(mask.shape) != tuple(features.shape[:2]):
        raise InputError(
            f"inputs['visual_attention_mask'] is {_shape(mask)}; expected "
            f"{tuple(features.shape[:2])}: 1 for each region, 0 for padding."
        )
    if mask is not None and not mask.bool().any(1).all():
        raise InputError("inputs['visual_attention_mask'] leaves an image without regions.")


def _check_boxes(inputs: dict, features: Tensor) -> None:
    boxes = inputs.get("visual_pos")
    if boxes is None:
        return
    expected = (*features.shape[:2], 4)
    if not isinstance(boxes, Tensor) or tuple(boxes.shape) != expected:
        raise InputError(
            f"inputs['visual_pos'] is {_shape(boxes)} for {features.shape[1]} regions; expected "
            f"boxes of shape {expected}."
        )
    # A detector may step over the border by rounding.
    if not ((boxes >= -0.01) & (boxes <= 1.01)).all():
        low, high = float(boxes.min()), float(boxes.max())
        raise InputError(
            f"inputs['visual_pos'] reaches from {low:g} to {high:g}; expected boxes x0, y0, x1, y1 "
            "in parts of the image's width and height, from 0 to 1: divide pixels by its size."
        )


def _shape(x) -> str:
    return f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
