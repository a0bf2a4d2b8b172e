"""Where the tokens lie: prefix tokens, then the patch grid, read off the traced forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from xai_lib.errors import MethodNotApplicableError
from xai_lib.tracing import Trace


class Layout(Protocol):
    """Where the tokens of a batch lie: how many there are, and which of them hold content."""

    tokens: int

    def content_of(self, batch: int, device) -> Tensor: ...


@dataclass(frozen=True)
class TokenLayout:
    """tokens = prefix + rows·columns for a plain ViT.

    `grid` (rows, columns) is the output of the patch embedding's convolution, `patch` its kernel
    size; `prefix` counts the class, distillation and register tokens before the patches, found by
    following the patches to where other tokens join them (models may append theirs instead). A
    model that merges its patches on the way (Swin) has no token row of its own: its tokens are the
    patches of its first grid.
    """

    tokens: int
    prefix: int
    grid: tuple[int, int] | None
    size: tuple[int, int]
    patch: tuple[int, int] | None = None

    @classmethod
    def of(cls, trace: Trace, pixels: Tensor) -> TokenLayout:
        """Read the layout from a finished trace of `pixels` (batch, channels, H, W)."""
        batch, first = pixels.shape[0], trace.shapes[0]
        grid, size = trace.grid, tuple(pixels.shape[-2:])
        patches = grid[0] * grid[1] if grid else first[2]
        if first[0] != batch:
            return cls(patches, 0, grid, size, trace.patch)
        tokens = first[2]
        for _, queries, keys in trace.shapes:
            if queries < keys and keys == first[2] + queries:
                tokens = keys
        if tokens < patches:
            return cls(tokens, 0, None, size)
        offset, others = trace.guards.offset, first[2] - patches
        behind = others - offset if offset is not None and 0 <= offset <= others else 0
        return cls(tokens, tokens - patches - behind, grid, size, trace.patch)

    @property
    def patches(self) -> slice:
        """Where the patches are among the tokens."""
        count = self.grid[0] * self.grid[1] if self.grid else self.tokens - self.prefix
        return slice(self.prefix, self.prefix + count)

    @staticmethod
    def is_shared(trace: Trace, batch: int) -> bool:
        """Whether every attention map of the trace lies between the same tokens of one sample.

        Class tokens may join in front (keys = rows + queries) and a probe may pool the tokens;
        windows and merged patches may not.
        """
        rows = {trace.shapes[0][2]}
        for first, queries, keys in trace.shapes:
            joined = keys - queries in rows and queries < keys
            if first != batch or queries > keys or not (keys in rows or joined):
                return False
            rows = {keys} if joined or queries == keys else {keys, queries}
        return True

    def content_of(self, batch: int, device) -> Tensor:
        """Return bool (batch, tokens): True for patches."""
        content = torch.zeros(batch, self.tokens, dtype=torch.bool, device=device)
        content[:, self.patches] = True
        return content

    def patch_sums(self, pixels: Tensor) -> Tensor:
        """Sum a pixel map (..., H, W) over each patch: (..., tokens), 0 for prefix tokens.

        A prefix token has no pixels: its embedding does not depend on the input, so a method that
        distributes the output over the input leaves it nothing.
        """
        if self.grid is None:
            raise MethodNotApplicableError(
                "The model has no patch grid that could be read from its first convolution, so "
                "pixel relevance cannot be summed per token; att.pixels is what you want."
            )
        (rows, columns), (height, width) = self.grid, pixels.shape[-2:]
        h, w = self.patch or (0, 0)
        if not h or rows * h > height or columns * w > width:
            # Overlapping or stacked convolutions: the grid's cells tile the image instead.
            h, w = height // rows, width // columns
        cropped = pixels[..., : rows * h, : columns * w]
        sums = cropped.unflatten(-1, (columns, w)).unflatten(-3, (rows, h)).sum((-3, -1))
        return F.pad(sums.flatten(-2), (self.prefix, self.tokens - self.patches.stop))
