"""What is true of plain objects in a scene: a shape, a colour, a size and a place, known exactly.

Captions and questions speak about these four attributes, so the pixels and the words that decide an
answer follow from the scene.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# Flowers and hexagons are left out: at six pixels of radius both look like discs.
SHAPES = ("disc", "square", "triangle", "star", "cross", "heart", "moon", "ring")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
SIZES = ("small", "large")
# The cells of a 3 x 3 grid, row by row.
PLACES = (
    "top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom",
    "bottom right",
)  # fmt: skip
ATTRIBUTE_CLASSES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
ATTRIBUTE_SIZE, MAX_ATTRIBUTE_OBJECTS = 64, 6
# Of the scenes that have captions: one or two objects, half as large again.
CAPTION_ZOOM = 1.5


@dataclass(frozen=True)
class Attributes:
    """What is true of one object: a word of SHAPES, COLOURS, SIZES and PLACES each."""

    shape: str
    colour: str
    size: str
    place: str

    @property
    def name(self) -> str:
        """Colour and shape, one of ATTRIBUTE_CLASSES."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class AttributeScene:
    """One scene: its pixels, and what is where.

    `image` and `background` are in [0, 1] with the 256 levels of a PNG; `masks` are the pixels that
    an object touches and no later object covers; `boxes` are x0, y0, x1, y1 around each mask in
    parts of the width and height. Outside the masks image and background are equal to the bit.
    """

    image: Float[Tensor, "3 h w"]
    background: Float[Tensor, "3 h w"]
    masks: Bool[Tensor, "k h w"]
    boxes: Float[Tensor, "k 4"]
    objects: tuple[Attributes, ...]

    def without(self, slot: int | None = None) -> Float[Tensor, "3 h w"]:
        """Image with the object in `slot` (default: all objects) replaced by the background."""
        mask = self.masks.any(0) if slot is None else self.masks[slot]
        return torch.where(mask, self.background, self.image)

    def only(
        self, slot: int | None = None, backdrop: Tensor | float = 0.5
    ) -> Float[Tensor, "3 h w"]:
        """Image that keeps the object in `slot` (default: all) on another backdrop or one grey."""
        mask = self.masks.any(0) if slot is None else self.masks[slot]
        return torch.where(mask, self.image, torch.as_tensor(backdrop))


def boxes_of(masks: Bool[Tensor, "k h w"]) -> Float[Tensor, "k 4"]:
    """Return the smallest boxes x0, y0, x1, y1 around masks, in parts of width and height."""
    height, width = masks.shape[1:]
    rows, columns = masks.any(2).int(), masks.any(1).int()
    edges = (
        columns.argmax(1) / width,
        rows.argmax(1) / height,
        1 - columns.flip(1).argmax(1) / width,
        1 - rows.flip(1).argmax(1) / height,
    )
    return torch.stack(edges, 1)
