"""Boxes as x0, y0, x1, y1 in pixels: decoding offsets, cutting at the border, suppression."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

# An offset that would enlarge a box more than this is taken for a mistake of the network.
LARGEST_GROWTH = math.log(1000 / 16)


def decode_boxes(
    deltas: Float[Tensor, "*n k4"], boxes: Float[Tensor, "*n 4"], weights: Sequence[float]
) -> Float[Tensor, "*n k4"]:
    """Return `boxes` moved by `deltas`, k offsets (tx, ty, tw, th) per box.

    With the centre (x, y) and the size (w, h) of a box, the new centre is (x + w tx / a,
    y + h ty / b) and the new size (w exp(min(tw / c, log(1000 / 16))), and likewise h), for
    `weights` (a, b, c, d) (Girshick et al., CVPR 2014; Ren et al., NeurIPS 2015).
    """
    scale = deltas.new_tensor(weights)
    moves = deltas.unflatten(-1, (-1, 4)) / scale
    low, high = boxes[..., None, :2], boxes[..., None, 2:]
    size = high - low
    centre = low + size / 2 + moves[..., :2] * size
    half = size * moves[..., 2:].clamp(max=LARGEST_GROWTH).exp() / 2
    return torch.cat([centre - half, centre + half], dim=-1).flatten(-2)


def clip_boxes(boxes: Float[Tensor, "*n 4"], height: float, width: float) -> Float[Tensor, "*n 4"]:
    """Return `boxes` cut at the border of an image, x in [0, width] and y in [0, height]."""
    limit = boxes.new_tensor([width, height, width, height])
    return torch.minimum(boxes.clamp(min=0), limit)


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float]) -> Float[Tensor, "a 4"]:
    """Return the anchors around (0, 0): for each size s and ratio r, w = s / sqrt(r), h = r w."""
    rows = []
    for size in sizes:
        for ratio in ratios:
            width = size / math.sqrt(ratio)
            height = ratio * width
            rows.append([-width / 2, -height / 2, width / 2, height / 2])
    return torch.tensor(rows)


def grid_anchors(
    cell: Float[Tensor, "a 4"], rows: int, columns: int, stride: int, offset: float
) -> Float[Tensor, "n 4"]:
    """Return `cell` shifted to all places of a grid, in the order row, column, anchor."""
    y = (torch.arange(rows, device=cell.device, dtype=cell.dtype) + offset) * stride
    x = (torch.arange(columns, device=cell.device, dtype=cell.dtype) + offset) * stride
    y, x = torch.meshgrid(y, x, indexing="ij")
    shifts = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
    return (shifts + cell).reshape(-1, 4)


def first_sufficient(
    kept: Sequence[Int[Tensor, " k"]], smallest: int, largest: int
) -> Int[Tensor, " r"]:
    """Return the first of `kept` with at least `smallest` entries, cut to `largest`.

    `kept` holds what survives each NMS threshold, best first. Where none suffices, this is the last
    one; the published code ends with an UnboundLocalError there.
    """
    for survivors in kept:
        if len(survivors) >= smallest:
            return survivors[:largest]
    return kept[-1][:largest]
