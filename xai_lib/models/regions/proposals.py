"""The region proposal network: anchors, how much each looks like an object, and its offsets."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import nms

from xai_lib.models.regions.backbone import STRIDE
from xai_lib.models.regions.boxes import cell_anchors, clip_boxes, decode_boxes, grid_anchors
from xai_lib.models.regions.config import DetectorConfig


class Proposals(NamedTuple):
    """What one image's anchors became, best first: boxes (n, 4) in pixels and logits (n,)."""

    boxes: Float[Tensor, "n 4"]
    logits: Float[Tensor, " n"]


class _Cells(nn.Module):
    """One buffer named "0", as the published file has it: one level of features."""

    def __init__(self, anchors: Float[Tensor, "a 4"]):
        super().__init__()
        self.register_buffer("0", anchors)


class AnchorGenerator(nn.Module):
    """Anchors on the grid of res4; the weights file holds those of one cell."""

    def __init__(self, config: DetectorConfig):
        super().__init__()
        self.cell_anchors = _Cells(cell_anchors(config.anchor_sizes, config.anchor_ratios))
        self.offset = config.anchor_offset

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "n 4"]:
        """Return the anchors (h w a, 4) of one image, in pixels."""
        cell = self.cell_anchors.get_buffer("0")
        return grid_anchors(cell, *features.shape[-2:], STRIDE, self.offset)


class ProposalHead(nn.Module):
    """A 3x3 convolution, and from it one logit and four offsets per anchor."""

    def __init__(self, config: DetectorConfig):
        super().__init__()
        anchors = len(config.anchor_sizes) * len(config.anchor_ratios)
        hidden = config.proposal_channels
        self.conv = nn.Conv2d(4 * config.res2, hidden, 3, padding=1)
        self.objectness_logits = nn.Conv2d(hidden, anchors, 1)
        self.anchor_deltas = nn.Conv2d(hidden, 4 * anchors, 1)

    def forward(
        self, features: Float[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "b a h w"], Float[Tensor, "b 4*a h w"]]:
        """Return the logits and the offsets of all anchors."""
        x = F.relu(self.conv(features))
        return self.objectness_logits(x), self.anchor_deltas(x)


class ProposalGenerator(nn.Module):
    """Decode the best anchors, cut them at the image's border and suppress the overlapping ones.

    Ren et al., "Faster R-CNN" (NeurIPS 2015). Kept are the `before_nms` largest logits, of these
    the boxes wider and higher than `min_box`, NMS at `proposal_nms`, then the best `after_nms`.
    """

    def __init__(self, config: DetectorConfig):
        super().__init__()
        self.anchor_generator = AnchorGenerator(config)
        self.rpn_head = ProposalHead(config)
        self.config = config

    def forward(
        self, features: Float[Tensor, "b c h w"], sizes: list[tuple[int, int]]
    ) -> list[Proposals]:
        """Return the proposals of each image; `sizes` are (height, width) of the resized images."""
        anchors = self.anchor_generator(features)
        logits, deltas = self.rpn_head(features)
        # To the order of the anchors: row, column, anchor.
        logits = logits.permute(0, 2, 3, 1).flatten(1)
        deltas = deltas.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3)
        return [self._of_one(anchors, *entry) for entry in zip(logits, deltas, sizes, strict=True)]

    def _of_one(
        self, anchors: Tensor, logits: Tensor, deltas: Tensor, size: tuple[int, int]
    ) -> Proposals:
        config = self.config
        logits, best = torch.topk(logits, min(config.before_nms, len(logits)))
        boxes = decode_boxes(deltas[best], anchors[best], config.proposal_weights)
        boxes = clip_boxes(boxes, *size)
        large = (boxes[:, 2:] - boxes[:, :2] > config.min_box).all(dim=1)
        boxes, logits = boxes[large], logits[large]
        kept = nms(boxes, logits, config.proposal_nms)[: config.after_nms]
        return Proposals(boxes[kept], logits[kept])
