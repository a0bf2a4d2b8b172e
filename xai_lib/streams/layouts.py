"""Where the tokens of several streams lie: side by side, each stream with its own layout."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from xai_lib.streams.patches import Layout, TokenLayout


@dataclass(frozen=True)
class RegionLayout:
    """Image regions of a batch, as a detector found them.

    boxes: (batch, regions, 4), x0, y0, x1, y1 in parts of the image's width and height, or None
    where the model is given none. present: (batch, regions), False for padding.
    """

    present: Tensor
    boxes: Tensor | None = None

    @property
    def tokens(self) -> int:
        return self.present.shape[1]

    def content_of(self, batch: int, device) -> Tensor:
        """Return bool (batch, regions): True for regions that are no padding."""
        return self.present


@dataclass(frozen=True)
class PlainLayout:
    """Tokens of which nothing is known but their number, such as a decoder's queries.

    present: (batch, tokens), False for padding, or None where nobody knows of any.
    """

    tokens: int
    present: Tensor | None = None

    def content_of(self, batch: int, device) -> Tensor:
        """Return bool (batch, tokens), True where no padding is known."""
        if self.present is not None:
            return self.present
        return torch.ones(batch, self.tokens, dtype=torch.bool, device=device)


@dataclass(frozen=True)
class StreamsLayout:
    """`parts`: (stream, its first token, its layout), in the order of the tokens.

    read: (batch, tokens), the tokens of one joint sequence that the head reads, where it is known.
    """

    tokens: int
    parts: tuple[tuple[str, int, Layout], ...]
    read: Tensor | None = None

    @classmethod
    def side_by_side(cls, layouts: dict[str, Layout]) -> StreamsLayout:
        """Put streams one after the other."""
        parts, start = [], 0
        for name, layout in layouts.items():
            parts.append((name, start, layout))
            start += layout.tokens
        return cls(start, tuple(parts))

    def slices(self) -> dict[str, slice]:
        """Return where each stream's tokens are."""
        return {name: slice(start, start + part.tokens) for name, start, part in self.parts}

    def layout(self, stream: str) -> Layout:
        """Return the layout of one stream."""
        return next(part for name, _, part in self.parts if name == stream)

    def content_of(self, batch: int, device) -> Tensor:
        """Return bool (batch, tokens): what holds content in each stream; False between streams.

        (targets, batch, tokens) where each target has texts of its own.
        """
        found = {n: self.layout(n).content_of(batch, device) for n in self.slices()}
        targets = max((len(part) // batch for part in found.values()), default=1)
        content = torch.zeros(targets, batch, self.tokens, dtype=torch.bool, device=device)
        for name, where in self.slices().items():
            content[..., where] = found[name].unflatten(0, (-1, batch))
        return content if targets > 1 else content[0]

    def patch_sums(self, pixels: Tensor) -> Tensor:
        """Sum a pixel map over the patches of the image stream; 0 for all other tokens."""
        _, start, part = next(p for p in self.parts if isinstance(p[2], TokenLayout))
        sums = part.patch_sums(pixels)
        return F.pad(sums, (start, self.tokens - start - part.tokens))


def image_layout(tokens: int, grid, patch, pixels: Tensor) -> TokenLayout:
    """Return the layout of an image whose stream has `tokens` tokens after a grid of patches."""
    size = tuple(pixels.shape[-2:])
    if grid is None or grid[0] * grid[1] > tokens:
        return TokenLayout(tokens, 0, None, size)
    return TokenLayout(tokens, tokens - grid[0] * grid[1], grid, size, patch)
