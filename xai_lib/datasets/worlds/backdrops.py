"""What surrounds the objects of a scene: colours, textured backgrounds, unlabelled distractors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from xai_lib.datasets.worlds.textures import TAU, pixel_grid, rotate

BACKGROUNDS = ("gradient", "clouds", "wood", "weave", "sand")


def oklch_to_rgb(lightness: Tensor, chroma: Tensor, hue: Tensor) -> Tensor:
    """Convert OKLCH (lightness in [0, 1], chroma about 0 to 0.25, hue in turns) to sRGB in [0, 1].

    Equal steps in this space look equally large, so random hues are equally bright to the eye. The
    channel is appended as the last axis; out-of-gamut colours are clipped. Matrices: B. Ottosson,
    "A perceptual color space for image processing" (2020).
    """
    # In float32 the last bit of a product depends on how many scenes are painted together.
    dtype = hue.dtype
    lightness, chroma, hue = (x.double() for x in (lightness, chroma, hue))
    a, b = chroma * torch.cos(TAU * hue), chroma * torch.sin(TAU * hue)
    lms = torch.stack(
        (
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ),
        -1,
    )
    to_linear = lms.new_tensor(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = (lms**3 @ to_linear.T).clamp(0, 1)
    curved = 1.055 * linear.clamp_min(1e-6) ** (1 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, 12.92 * linear, curved).to(dtype)


def paint_distractor(
    kind: Tensor, size: int, place: Float[Tensor, "n 2"], radius: Tensor, turn: Tensor,
    colour: Float[Tensor, "n 3"],
) -> tuple[Float[Tensor, "n s s"], Float[Tensor, "n 3 s s"]]:  # fmt: skip
    """Paint n plain things that are no class: pebbles (kind 0), twigs (1) and hoops (2)."""
    gx, gy = pixel_grid(size)
    r = radius[:, None, None]
    x, y = rotate(gx - place[:, 0, None, None], gy - place[:, 1, None, None], turn[:, None, None])
    pebble = (torch.hypot(x, 1.5 * y) - r) / 1.3
    twig = torch.hypot((x.abs() - 1.8 * r).clamp_min(0), y) - 1.3
    hoop = (torch.hypot(x, y) - r).abs() - 1.2
    distance = torch.where(
        kind[:, None, None] == 0, pebble, torch.where(kind[:, None, None] == 1, twig, hoop)
    )
    rim = 0.78 + 0.22 * (-distance / 2.0).clamp(0, 1)
    return (0.5 - distance).clamp(0, 1), colour[:, :, None, None] * rim[:, None]


def paint_background(
    kind: Tensor, size: int, tones: Float[Tensor, "n 2 3"], turn: Tensor, period: Tensor,
    coarse: Float[Tensor, "n a a"], fine: Float[Tensor, "n b b"], offset: Tensor,
) -> Float[Tensor, "n 3 s s"]:  # fmt: skip
    """Paint n textured backgrounds (n, 3, size, size); `kind` indexes BACKGROUNDS.

    `coarse` and `fine` are grids of uniform numbers, interpolated to smooth random fields; `offset`
    (n, 2), integers, says where the fixed grain is cut out.
    """
    gx, gy = pixel_grid(size)
    x, y = rotate(gx - size / 2, gy - size / 2, turn[:, None, None])
    fields = [
        F.interpolate(grid[:, None], (size, size), mode="bicubic", align_corners=True)[:, 0]
        for grid in (coarse, fine)
    ]
    tile = torch.rand(128, 128, generator=torch.Generator().manual_seed(20210617))
    steps = torch.arange(size)
    rows, columns = (offset[:, :, None] + steps).remainder(128).unbind(1)
    grain = tile[rows[:, :, None], columns[:, None, :]]
    p = period[:, None, None]
    mixes = torch.stack(
        (
            0.5 + 0.62 * x / size,
            1.1 * fields[0] + 0.5 * fields[1] - 0.3,
            0.5 + 0.4 * torch.sin(TAU * (x / (2.2 * p) + 1.3 * fields[0] + 0.15 * fields[1])),
            0.4 * fields[0] + 0.3 + 0.2 * (torch.sin(TAU * x / p) + torch.sin(TAU * y / p)),
            0.8 * fields[0] + 0.4 * grain - 0.1,
        )
    )
    mix = mixes[kind, torch.arange(len(kind))][:, None].clamp(0, 1)
    painted = tones[:, 0, :, None, None] * (1 - mix) + tones[:, 1, :, None, None] * mix
    return (painted + 0.05 * (grain[:, None] - 0.5)).clamp(0, 1)
