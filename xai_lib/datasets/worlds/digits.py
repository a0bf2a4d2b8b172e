"""The 1,797 handwritten digits that scikit-learn bundles, as images for a small ViT."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from xai_lib.errors import OptionError

DIGIT_CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGIT_SIZE = 32
HELD_OUT = 360
# Ink fainter than the first level is paper, darker than the second is full ink.
_PAPER, _INK = 0.3, 0.75


@dataclass(frozen=True)
class DigitBatch:
    """Digits in light ink on black paper, the same in all three channels.

    `image` is in [0, 1]; `strokes` are the pixels with any ink, so paper is exactly 0 outside them;
    `labels` are the digits. Indexing picks digits.
    """

    image: Float[Tensor, "n 3 h w"]
    strokes: Bool[Tensor, "n h w"]
    labels: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index) -> DigitBatch:
        rows = torch.arange(len(self))[index].reshape(-1)
        return DigitBatch(*(value[rows] for value in vars(self).values()))

    @property
    def evidence(self) -> Bool[Tensor, "n h w"]:
        """Pixels that decide the label: the strokes."""
        return self.strokes

    def without(self) -> Float[Tensor, "n 3 h w"]:
        """Images with the strokes replaced by paper."""
        return torch.where(self.strokes[:, None], 0.0, self.image)

    def only(self, backdrop: Tensor | float) -> Float[Tensor, "n 3 h w"]:
        """Images with the strokes on another backdrop; where both are light, the lighter shows."""
        return torch.maximum(self.image, torch.as_tensor(backdrop))


def ink(grey: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """Return smooth ink levels: 0 below the paper level, 1 above the ink level, a cubic between."""
    t = ((grey - _PAPER) / (_INK - _PAPER)).clamp(0, 1)
    return t * t * (3 - 2 * t)


@cache
def _scans() -> tuple[Float[Tensor, "n h w"], Int[Tensor, " n"]]:
    """Return all scans, interpolated to 32x32 but not yet inked, shuffled once and for all."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(1797).permutation(len(data.target))
    grey = torch.from_numpy(data.images[order]).float() / 16
    size = (DIGIT_SIZE, DIGIT_SIZE)
    grey = F.pad(grey[:, None], (1, 1, 1, 1))
    grey = F.interpolate(grey, size, mode="bicubic", align_corners=False)[:, 0]
    return grey.clamp(0, 1), torch.from_numpy(data.target[order]).long()


def handwritten_digits(split: Literal["train", "test"] = "test") -> DigitBatch:
    """Return the 1,437 training or the 360 held-out digits (E. Alpaydin, C. Kaynak, UCI 1998).

    The 8x8 scans are framed, interpolated to 32x32 (bicubic) and inked, which makes faint grey
    exactly paper; the split is fixed.

    >>> handwritten_digits("test").image.shape
    torch.Size([360, 3, 32, 32])
    """
    if split not in ("train", "test"):
        raise OptionError(f"Unknown split {split!r}. Choose 'train' or 'test'.")
    part = slice(HELD_OUT, None) if split == "train" else slice(HELD_OUT)
    grey, labels = (value[part] for value in _scans())
    level = (ink(grey) * 255).round() / 255
    return DigitBatch(level[:, None].repeat(1, 3, 1, 1), level > 0, labels.clone())


def warped_digits(n: int, seed: int | tuple[int, ...], strength: float = 1.0) -> DigitBatch:
    """Return n training digits under random small rotation, shear, scale, shift and paper.

    Half of them lie on noisy or tinted paper (levels up to 0.35), so that a model trained on them
    reads the strokes and not the emptiness around them. `strength` scales every change.
    """
    grey, labels = (value[HELD_OUT:] for value in _scans())
    draw = np.random.default_rng(seed)
    u = torch.from_numpy(draw.random((n, 10), dtype=np.float32))
    rows = (u[:, 0] * len(labels)).long()
    turn, shear = 0.5 * strength * (u[:, 1] - 0.5), 0.3 * strength * (u[:, 2] - 0.5)
    wide, tall = (1 + strength * (0.3 * u[:, k] - 0.12) for k in (3, 4))
    cos, sin = torch.cos(turn), torch.sin(turn)
    shift = 0.25 * strength * (u[:, 5:7] - 0.5)
    matrix = torch.stack(
        (wide * cos, shear * cos - sin, shift[:, 0], sin, tall * cos, shift[:, 1]), 1
    ).reshape(n, 2, 3)
    grid = F.affine_grid(matrix, (n, 1, DIGIT_SIZE, DIGIT_SIZE), align_corners=False)
    level = ink(F.grid_sample(grey[rows][:, None], grid, align_corners=False)[:, 0])
    noise = torch.from_numpy(draw.random((n, DIGIT_SIZE, DIGIT_SIZE), dtype=np.float32))
    tint = (
        0.35 * strength * u[:, 7, None, None] * torch.where(u[:, 8, None, None] < 0.5, noise, 1.0)
    )
    paper = torch.where(u[:, 9, None, None] < 0.5, tint, 0.0)
    image = torch.maximum(level, paper)
    return DigitBatch(image[:, None].repeat(1, 3, 1, 1), level > 0, labels[rows].clone())
