"""What a detector saw in a batch of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class Regions:
    """The regions of B images, best first, padded with zeros to R rows.

    features (B, R, D). boxes (B, R, 4): x0, y0, x1, y1 in parts of the image's width and height.
    classes (B, R) and attributes (B, R): the best of each, as numbers from 0; attributes is None
    where the detector knows none. scores, attribute_scores (B, R): their probabilities. present
    (B, R): which rows are regions. sizes (B, 2): height and width of the images in pixels.

    LXMERT takes features as `visual_feats`, boxes as `visual_pos` and present as
    `visual_attention_mask`; VisualBERT features as `visual_embeds` and the same mask.
    """

    features: Float[Tensor, "b r d"]
    boxes: Float[Tensor, "b r 4"]
    classes: Int[Tensor, "b r"]
    attributes: Int[Tensor, "b r"] | None
    scores: Float[Tensor, "b r"]
    attribute_scores: Float[Tensor, "b r"] | None
    present: Bool[Tensor, "b r"]
    sizes: Int[Tensor, "b 2"]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.present)

    @property
    def pixel_boxes(self) -> Float[Tensor, "b r 4"]:
        """The boxes in pixels of the images, for drawing."""
        height, width = self.sizes.to(self.boxes).unbind(1)
        return self.boxes * torch.stack([width, height, width, height], dim=1)[:, None]

    def of(self, index: int) -> tuple[Float[Tensor, "r d"], Float[Tensor, "r 4"]]:
        """Return features and boxes of one image without padding, as `QuestionSample` holds."""
        rows = self.present[index]
        return self.features[index][rows], self.boxes[index][rows]


def padded(rows: Sequence[Tensor], length: int) -> Tensor:
    """Return tensors (r_i, ...) as one (B, length, ...): cut, or filled up with zeros."""
    filled = []
    for row in rows:
        missing = [0, 0] * (row.dim() - 1) + [0, max(length - len(row), 0)]
        filled.append(pad(row[:length], missing))
    return torch.stack(filled)
