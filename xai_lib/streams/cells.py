"""Cells: the pixels that each patch of a grid is computed from, and maps over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

Span = tuple[int, int]


@dataclass(frozen=True)
class Cells:
    """The cell of the patch (r, c) is rows[r] x columns[c], in pixels of an image of `size`.

    rows, columns: disjoint (start, end) spans, which need not touch, be of one length or cover the
    image: what lies in none belongs to no patch.
    """

    rows: tuple[Span, ...]
    columns: tuple[Span, ...]
    size: tuple[int, int]

    @classmethod
    def tiles(
        cls, grid: tuple[int, int], size: tuple[int, int], patch: tuple[int, int] | None = None
    ) -> Cells:
        """Return cells of `patch` pixels from the top left corner on.

        Without a patch that fits so often, they divide the image evenly, rounded down.
        """
        fits = patch is not None and all(
            n * step <= length for n, step, length in zip(grid, patch, size, strict=True)
        )
        steps = patch if fits and patch else (size[0] // grid[0], size[1] // grid[1])
        rows, columns = (
            tuple((i * step, (i + 1) * step) for i in range(n))
            for n, step in zip(grid, steps, strict=True)
        )
        return cls(rows, columns, size)

    @property
    def grid(self) -> tuple[int, int]:
        """The number of rows and of columns."""
        return len(self.rows), len(self.columns)

    @property
    def whole(self) -> bool:
        """Whether the cells are an even division of all of the image, in its order."""
        return all(
            _even(spans) and _extent(spans) == (0, length)
            for spans, length in zip((self.rows, self.columns), self.size, strict=True)
        )

    @property
    def covered(self) -> Bool[Tensor, "height width"]:
        """Bool (H, W): which pixels belong to a patch."""
        inside = (
            _indicators(spans, length).any(0)
            for spans, length in zip((self.rows, self.columns), self.size, strict=True)
        )
        down, across = inside
        return down[:, None] & across

    def sums(self, pixels: Float[Tensor, "*n height width"]) -> Float[Tensor, "*n rows columns"]:
        """Sum a pixel map (..., H, W) over each cell: (..., rows, columns)."""
        even = _even(self.rows), _even(self.columns)
        if all(even):
            (top, bottom), (left, right) = _extent(self.rows), _extent(self.columns)
            inner = pixels[..., top:bottom, left:right]
            rows, columns = self.grid
            parted = inner.unflatten(-1, (columns, -1)).unflatten(-3, (rows, -1))
            return parted.sum((-3, -1))
        down, across = (
            _indicators(spans, length).to(pixels)
            for spans, length in zip((self.rows, self.columns), self.size, strict=True)
        )
        return down @ pixels @ across.t()

    def enlarged(
        self, maps: Float[Tensor, "*n rows columns"], size: tuple[int, int]
    ) -> Float[Tensor, "*n height width"]:
        """Enlarge maps (..., rows, columns) to an image of `size`, bilinearly between the cells.

        A value stands at the centre of its cell; beyond the outermost centres it stays as it is,
        and where no cell lies there is 0.
        """
        if self.whole:
            flat = maps.reshape(-1, 1, *self.grid)
            large = F.interpolate(flat, size=size, mode="bilinear", align_corners=False)
            return large.reshape(*maps.shape[:-2], *size)
        down, across = (
            _weights(spans, length, wanted).to(maps)
            for spans, length, wanted in zip(
                (self.rows, self.columns), self.size, size, strict=True
            )
        )
        return down @ maps @ across.t()


def spans_of(supports: Sequence[Span | None], length: int) -> tuple[Span, ...] | None:
    """Return disjoint spans for the pixels on which each row of patches was seen to depend.

    supports: first pixel and end of each row; None where it depends on none. Where they overlap
    (convolutions that look at neighbours, interpolation) an even division of the `length` pixels
    stands if every row depends on all of its part, else neighbours meet in the middle of what they
    share. None where they are not in order, so that no row has pixels of its own.
    """
    known = [support for support in supports if support is not None]
    if len(known) < len(supports):
        return None
    ascending = sorted(known)
    if all(one[1] <= other[0] for one, other in pairwise(ascending)):
        return tuple(known)
    if is_tiled(dict(enumerate(known)), len(known), length):
        step = length // len(known)
        return tuple((i * step, (i + 1) * step) for i in range(len(known)))
    ends = [end for _, end in ascending]
    edges = [ascending[0][0]]
    edges += [(one[1] + other[0] + 1) // 2 for one, other in pairwise(ascending)]
    edges.append(ends[-1])
    if ends != sorted(ends) or any(a >= b for a, b in pairwise(edges)):
        return None
    places = {support: span for support, span in zip(ascending, pairwise(edges), strict=True)}
    return tuple(places[support] for support in known) if len(places) == len(known) else None


def is_tiled(supports: dict[int, Span], count: int, length: int) -> bool:
    """Whether the i-th row's support holds the i-th of `count` even parts, for all given."""
    if length % count:
        return False
    step = length // count
    return all(a <= i * step and (i + 1) * step <= b for i, (a, b) in supports.items())


def _even(spans: Sequence[Span]) -> bool:
    """Whether spans are of one length and touch, in ascending order."""
    step = spans[0][1] - spans[0][0]
    start = spans[0][0]
    return all(span == (start + i * step, start + (i + 1) * step) for i, span in enumerate(spans))


def _extent(spans: Sequence[Span]) -> Span:
    return min(start for start, _ in spans), max(end for _, end in spans)


def _indicators(spans: Sequence[Span], length: int) -> Bool[Tensor, "spans length"]:
    places = torch.arange(length)
    return torch.stack([(places >= start) & (places < end) for start, end in spans])


def _weights(spans: Sequence[Span], length: int, wanted: int) -> Float[Tensor, "wanted spans"]:
    """Return how much of each span's value a pixel takes, of `wanted` pixels for `length`."""
    centres = torch.tensor([(start + end) / 2 for start, end in spans], dtype=torch.float64)
    order = centres.argsort()
    pixels = (torch.arange(wanted, dtype=torch.float64) + 0.5) * length / wanted
    sorted_centres = centres[order]
    right = torch.searchsorted(sorted_centres, pixels).clamp(1, len(spans) - 1)
    weights = torch.zeros(wanted, len(spans), dtype=torch.float64)
    if len(spans) == 1:
        weights[:] = 1
    else:
        low, high = sorted_centres[right - 1], sorted_centres[right]
        part = ((pixels - low) / (high - low)).clamp(0, 1)
        weights.scatter_(1, order[right - 1, None], (1 - part)[:, None])
        weights.scatter_(1, order[right, None], part[:, None])
    inside = torch.stack([(pixels >= start) & (pixels < end) for start, end in spans]).any(0)
    return weights * inside[:, None]
