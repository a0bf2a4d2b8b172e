"""Patches: a stream of pixels, and where its tokens lie as a traced pass shows."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from xai_lib.errors import InputError, MethodNotApplicableError, UnsupportedModelError
from xai_lib.streams.cells import Cells
from xai_lib.streams.stream import Grid, Stream
from xai_lib.tracing import Trace


@dataclass(frozen=True)
class Stem:
    """What was measured of how a model makes patches, up to its first attention (`passes.stem`).

    grid: rows and columns of the last convolution. cells: the pixels that each of its places
    depends on, None where they cannot be told. keys: the tokens that the first attention reads.
    first: the place of the first patch among these, None where that could not be measured. ordered:
    False where the patches stand there in another order than row by row.
    """

    grid: tuple[int, int]
    cells: Cells | None
    keys: int
    first: int | None
    ordered: bool = True

    @property
    def readable(self) -> bool:
        """Whether patches have pixels of their own and stand in the order of the image."""
        return self.cells is not None and self.ordered


@dataclass(frozen=True)
class TokenLayout:
    """tokens = prefix + rows·columns for a plain ViT.

    `grid` (rows, columns) is the output of the patch embedding's convolution, `patch` its kernel
    size, `cells` the pixels of each patch; `prefix` counts the class, distillation and register
    tokens before the patches (models may append theirs instead). Place and pixels are measured
    (`Stem`); where that was not possible, they follow from sizes and from where other tokens join
    the patches. A model that merges its patches on the way (Swin) has no token row of its own: its
    tokens are the patches of its first grid.
    """

    tokens: int
    prefix: int
    grid: Grid
    size: tuple[int, int]
    patch: Grid = None
    measured: Cells | None = None

    kind: ClassVar[str] = "patches"
    stream: ClassVar[str] = "image"
    leads: ClassVar[bool] = True
    present: ClassVar[None] = None

    @classmethod
    def of(
        cls,
        trace: Trace,
        pixels: Float[Tensor, "batch channels height width"],
        stem: Stem | None = None,
    ) -> TokenLayout:
        """Read the layout from a finished trace of `pixels` (batch, channels, H, W)."""
        grid, size = trace.grid, (pixels.shape[-2], pixels.shape[-1])
        if not trace.shapes:
            # No attention was seen. Of several convolutions, none is known to make tokens.
            if grid is None or trace.patch is None:
                return cls.of_pixels(size)
            return cls(grid[0] * grid[1], 0, grid, size, trace.patch)
        batch, first = pixels.shape[0], trace.shapes[0]
        patches = grid[0] * grid[1] if grid else first[2]
        if stem is not None and stem.grid != grid:
            stem = None
        if first[0] != batch or trace.guards.irregular:
            # Windows, beside the samples or in a dimension of their own (Twins).
            return cls(patches, 0, grid, size, trace.patch)._as_measured(stem)
        tokens = first[2]
        for _, queries, keys in trace.shapes:
            if queries < keys and keys == first[2] + queries:
                tokens = keys
        if tokens < patches:
            return cls(tokens, 0, None, size)
        offset, others = trace.guards.offset, first[2] - patches
        if stem is not None and stem.first is not None and stem.keys == first[2]:
            offset = stem.first
        behind = others - offset if offset is not None and 0 <= offset <= others else 0
        found = cls(tokens, tokens - patches - behind, grid, size, trace.patch)
        return found._as_measured(stem)

    @classmethod
    def after(
        cls,
        tokens: int,
        grid: Grid,
        patch: Grid,
        pixels: Float[Tensor, "batch channels height width"],
        stem: Stem | None = None,
    ) -> TokenLayout:
        """Return the layout of a sequence whose last tokens are a grid of patches.

        Unless they were seen to stand elsewhere.
        """
        size = pixels.shape[-2], pixels.shape[-1]
        if grid is None or grid[0] * grid[1] > tokens:
            return cls(tokens, 0, None, size)
        if stem is not None and stem.grid != grid:
            stem = None
        prefix = tokens - grid[0] * grid[1]
        if stem is not None and stem.first is not None and stem.keys == tokens:
            prefix = stem.first
        return cls(tokens, prefix, grid, size, patch)._as_measured(stem)

    def _as_measured(self, stem: Stem | None) -> TokenLayout:
        """Return the layout with measured cells; without a grid where patches have none."""
        if stem is None:
            return self
        if not stem.readable:
            return replace(self, grid=None, patch=None)
        return replace(self, measured=stem.cells)

    @classmethod
    def of_pixels(cls, size: tuple[int, int]) -> TokenLayout:
        """Return the layout of an image (height, width) whose tokens have no known place in it.

        Then what a method found at the pixels is not summed: each pixel is a patch of its own.
        """
        return cls(size[0] * size[1], 0, size, size, (1, 1))

    @property
    def patches(self) -> slice:
        """Where the patches are among the tokens."""
        count = self.grid[0] * self.grid[1] if self.grid else self.tokens - self.prefix
        return slice(self.prefix, self.prefix + count)

    @property
    def cells(self) -> Cells:
        """The pixels of each patch; `cells.covered` says which belong to none."""
        if self.grid is None:
            raise MethodNotApplicableError(
                "The model has no patch grid that could be read from its first convolution, so "
                "no patch has pixels of its own; att.pixels is what you want."
            )
        return self.measured or Cells.tiles(self.grid, self.size, self.patch)

    def content_of(self, batch: int, device: torch.device) -> Bool[Tensor, "*targets_batch tokens"]:
        """Return bool (batch, tokens): True for patches."""
        content = torch.zeros(batch, self.tokens, dtype=torch.bool, device=device)
        content[:, self.patches] = True
        return content

    def patch_sums(self, pixels: Float[Tensor, "*n height width"]) -> Float[Tensor, "*n tokens"]:
        """Sum a pixel map (..., H, W) over each patch: (..., tokens), 0 for prefix tokens.

        A prefix token has no pixels: its embedding does not depend on the input, so a method that
        distributes the output over the input leaves it nothing.
        """
        sums = self.cells.sums(pixels).flatten(-2)
        return F.pad(sums, (self.prefix, self.tokens - self.patches.stop))


@dataclass
class Patches(Stream):
    """An image as `data`, the pixels (batch, channels, H, W), which are the features.

    stem: how the model makes patches of such pixels, once that was measured.
    """

    stem: Stem | None = None

    kind: ClassVar[str] = "patches"
    channel: ClassVar[int] = -3
    advice: ClassVar[str] = "processor(image) makes inputs of the size it was built for."

    def samples(self) -> list[Shaped[Tensor, "..."]]:
        return list(self.data)

    def advise(self, model: nn.Module) -> str:
        return misfit(model, self.data) or self.advice

    def layout(self, trace: Trace) -> TokenLayout:
        return TokenLayout.of(trace, self.data, self.stem)

    def layout_among(self, tokens: int, grid: Grid, patch: Grid) -> TokenLayout:
        return TokenLayout.after(tokens, grid, patch, self.data, self.stem)


# What to do about pixels of so many dimensions.
REMEDIES = {
    3: " Add the batch: inputs[None].",
    5: " A video or a volume has a dimension more, and models of these are not explained; of a "
    "model of images explain its frames, one image each: inputs.flatten(0, 1).",
}


def check_pixels(model: nn.Module, pixels: object) -> None:
    """Raise an InputError unless `pixels` is a finite float batch.

    Whether they fit the model, in channels, size and type, a pass shows; see `misfit`.
    """
    if not isinstance(pixels, Tensor):
        raise InputError(
            f"inputs is {type(pixels).__name__}; expected a float tensor (batch, channels, height, "
            "width) or the dict a processor returns. processor(image) makes one of an image."
        )
    if pixels.dim() != 4 and "spatial_shapes" in inspect.signature(model.forward).parameters:
        raise UnsupportedModelError(
            f"{type(model).__name__} takes images that were cut into patches (NaFlex), which have "
            "no pixels to explain; checkpoints of a fixed image size are explained."
        )
    if pixels.dim() != 4:
        raise InputError(
            f"inputs has shape {tuple(pixels.shape)}; expected (batch, channels, height, width)."
            + REMEDIES.get(pixels.dim(), "")
        )
    if pixels.shape[0] == 0:
        raise InputError("inputs is an empty batch; expected at least one image.")
    if not pixels.is_floating_point():
        raise InputError(
            f"inputs has dtype {pixels.dtype}; expected floating point, normalised as the model "
            "was trained. processor(image) does both."
        )
    if not torch.isfinite(pixels).all():
        raise InputError(
            "inputs holds NaN or Inf pixels; expected finite numbers. Look at the image and at its "
            "normalisation (a standard deviation of 0 divides by zero)."
        )


def misfit(model: nn.Module, pixels: Float[Tensor, "batch channels height width"]) -> str | None:
    """Return what may be the reason why the model refuses these pixels, None where nothing shows.

    Guessed from its weights' type and its first convolution, which need not be what the pixels
    meet: a model may cast them, enlarge them or repeat grey three times.
    """
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    if parameter is not None and parameter.dtype != pixels.dtype:
        return (
            f"The model's weights are {parameter.dtype} and inputs is {pixels.dtype}. "
            f"Cast one: inputs.to({parameter.dtype})."
        )
    conv = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if conv is not None and pixels.shape[1] != conv.in_channels:
        return (
            f"inputs has {pixels.shape[1]} channels; the model expects {conv.in_channels}. "
            "Convert the image, e.g. image.convert('RGB')."
        )
    if conv is not None and any(
        n < k for n, k in zip(pixels.shape[-2:], conv.kernel_size, strict=True)
    ):
        return (
            f"inputs is {tuple(pixels.shape[-2:])} pixels, smaller than one patch "
            f"{tuple(conv.kernel_size)}. Resize the image; processor(image) does."
        )
    return None
