"""Receptive fields: the pixels that a convolution's places depend on, and the tokens made of them.

A cotangent on some of the places goes back to the pixels, and where a gradient arrives, there they
look; a cotangent on some of the tokens goes back to the places.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from xai_lib.streams.cells import Cells, Span, is_tiled, spans_of

# What is exactly zero where nothing depends, left for kernels that do not compute zero as zero.
NOTHING = 1e-6

# The rows and the columns of pixels that something depends on.
Around = tuple[Span | None, Span | None]


@dataclass
class Convolution:
    """One convolution over an image's plane, as the model called it."""

    given: Tensor
    output: Tensor
    kernel: tuple[int, int]
    steps: dict[str, tuple[int, int]]


def exact_cells(
    conv: Convolution, pixels: Shaped[Tensor, "batch channels height width"], count: int
) -> Cells | None:
    """Return the cells of the one convolution that takes the pixels, if its windows are apart."""
    if count != 1 or conv.given is not pixels:
        return None
    size, found = (pixels.shape[-2], pixels.shape[-1]), []
    for axis in (0, 1):
        kernel = conv.kernel[axis]
        stride, padding, dilation = (
            conv.steps[name][axis] for name in ("stride", "padding", "dilation")
        )
        if kernel > stride or dilation != 1:
            return None
        starts = [i * stride - padding for i in range(conv.output.shape[-2 + axis])]
        spans = tuple((max(s, 0), min(s + kernel, size[axis])) for s in starts)
        if any(start >= end for start, end in spans):
            return None
        found.append(spans)
    return Cells(found[0], found[1], size)


def seen_cells(
    convolutions: list[Convolution], pixels: Shaped[Tensor, "batch channels height width"]
) -> Cells | None:
    """Return the cells of the last convolution's places, by where its gradient arrives."""
    output = convolutions[-1].output
    (rows, columns), size = output.shape[-2:], (pixels.shape[-2], pixels.shape[-1])
    even = Cells.tiles((rows, columns), size)
    # Opposite corners and the middle: an image that was cropped or turned has others there.
    places = (0, columns - 1), (rows - 1, 0), (rows // 2, columns // 2)
    if rows <= size[0] and columns <= size[1]:
        seen = [_around(output, pixels, place) for place in places]
        if all(
            _is_tiled(axis, place, around, even, stacked=len(convolutions) > 1)
            for place, around in zip(places, seen, strict=True)
            for axis in (0, 1)
        ):
            return even
    found = []
    for axis, count in enumerate((rows, columns)):
        spans = spans_of([_along(output, pixels, axis, i) for i in range(count)], size[axis])
        if spans is None:
            return None
        found.append(spans)
    cells = Cells(found[0], found[1], size)
    # Rows and columns alone do not show that they were exchanged.
    for row, column in places[:2]:
        around = _around(output, pixels, (row, column))
        for span, support in zip((cells.rows[row], cells.columns[column]), around, strict=True):
            if support is None or not (support[0] <= span[0] and span[1] <= support[1]):
                return None
    return cells


def _is_tiled(
    axis: int, place: tuple[int, int], around: Around, even: Cells, *, stacked: bool
) -> bool:
    """Whether what one place depends on holds its even part along an axis.

    What several convolutions see at the very border of their window is next to nothing.
    """
    support, count, length = around[axis], even.grid[axis], even.size[axis]
    if support is None:
        return False
    slack = length // count // 8 if stacked else 0
    wider = max(support[0] - slack, 0), min(support[1] + slack, length)
    return is_tiled({place[axis]: wider}, count, length)


def _around(output: Tensor, pixels: Tensor, place: tuple[int, int]) -> Around:
    """Return the rows and the columns of pixels that one place depends on."""
    seed = torch.zeros_like(output)
    noise = torch.randn(output.shape[:2], generator=torch.Generator().manual_seed(0))
    seed[..., place[0], place[1]] = noise.to(seed)
    sizes = _sizes(seed, output, pixels)
    return _span(sizes.amax(1)), _span(sizes.amax(0))


def _along(output: Tensor, pixels: Tensor, axis: int, number: int) -> Span | None:
    """Return the pixels along an axis that one row or column of places depends on."""
    seed = torch.zeros_like(output)
    row = seed.select(-2 + axis, number)
    row.copy_(torch.randn(row.shape, generator=torch.Generator().manual_seed(number)))
    return _span(_sizes(seed, output, pixels).amax(1 - axis))


def _sizes(seed: Tensor, output: Tensor, pixels: Tensor) -> Float[Tensor, "height width"]:
    (found,) = torch.autograd.grad(output, [pixels], seed, retain_graph=True)
    return found.abs().amax((0, 1))


def _span(sizes: Float[Tensor, " length"]) -> Span | None:
    """Return first and end of what a gradient reached, None where it reached nothing."""
    reached = _alive(sizes).nonzero().flatten().tolist()
    if not reached:
        return None
    # A model that shrinks the image by leaving out pixels leaves out some behind the last, too.
    skipped = max((b - a for a, b in pairwise(reached)), default=1)
    return reached[0], min(reached[-1] + skipped, len(sizes))


def _alive(sizes: Float[Tensor, "*n"]) -> Bool[Tensor, "*n"]:
    return sizes > NOTHING * sizes.amax()


def places_of(
    convolutions: list[Convolution], value: Shaped[Tensor, "..."]
) -> tuple[int | None, bool]:
    """Return the place of the first patch among the tokens, and whether patches are in order.

    (None, True) where a token is made of several places, so that this cannot be said.
    """
    grid, keys = convolutions[-1].output.shape[-2:], value.shape[-2]
    count = grid.numel()
    if keys < count or value.dim() != 4 or value.shape[0] != 1:
        return None, True
    # The last branch of a residual network may begin at zero, and let no gradient through.
    every = torch.ones(keys, dtype=torch.bool, device=value.device)
    outputs = (c.output for c in reversed(convolutions) if c.output.shape[-2:] == grid)
    output = next((x for x in outputs if bool(_cells_of(every, x, value).all())), None)
    if output is None:
        return None, True
    generator = torch.Generator().manual_seed(0)
    chosen = torch.rand(count, generator=generator) < 0.5
    chosen[0], chosen[-1] = True, False
    chosen = chosen.to(value.device)
    for first in range(keys - count + 1):
        rows = torch.zeros(keys, dtype=torch.bool, device=value.device)
        rows[first : first + count] = chosen
        if torch.equal(_cells_of(rows, output, value), chosen):
            return first, True
    # Each place by the bits of the number of its token.
    numbers = torch.zeros(count, dtype=torch.long, device=value.device)
    tokens = torch.arange(keys, device=value.device)
    for bit in range(max(keys - 1, 1).bit_length()):
        on = (tokens >> bit & 1).bool()
        with_bit, without = (_cells_of(rows, output, value) for rows in (on, ~on))
        if bool((with_bit == without).any()):
            return None, True
        numbers += with_bit.long() << bit
    return None, len(numbers.unique()) < count


def _cells_of(rows: Tensor, output: Tensor, value: Tensor) -> Bool[Tensor, " count"]:
    """Return which places of a convolution the tokens `rows` depend on."""
    generator = torch.Generator().manual_seed(1)
    seed = torch.randn(value.shape, generator=generator).to(value) * rows[:, None].to(value)
    (found,) = torch.autograd.grad(value, [output], seed, retain_graph=True, allow_unused=True)
    if found is None:
        return torch.zeros(output.shape[-2:].numel(), dtype=torch.bool, device=value.device)
    return _alive(found.abs().amax((0, 1)).flatten())
