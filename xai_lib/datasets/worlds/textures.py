"""Shapes and surfaces: what makes an object of a scene belong to its class.

Everything is a function of pixel coordinates, so a batch of any size is painted at once and edges
are anti-aliased analytically: a signed distance in pixels becomes coverage by clipping
0.5 - distance to [0, 1].
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

TAU = 2 * math.pi


def _polygon(u: Tensor, v: Tensor, sides: int, apothem: float) -> Tensor:
    sector = TAU / sides
    angle = torch.remainder(torch.atan2(v, u) + sector / 2, sector) - sector / 2
    return torch.hypot(u, v) * torch.cos(angle) - apothem


def _disc(u, v):
    return torch.hypot(u, v) - 0.95


def _square(u, v):
    x, y = (u.abs() - 0.6).clamp_min(0), (v.abs() - 0.6).clamp_min(0)
    return torch.hypot(x, y) - 0.2


def _triangle(u, v):
    return _polygon(u, v, 3, 0.58)


def _star(u, v):
    sector = TAU / 5
    angle = (torch.remainder(torch.atan2(v, u) + sector / 2, sector) - sector / 2).abs()
    radius = torch.hypot(u, v)
    x, y = radius * torch.cos(angle), radius * torch.sin(angle)
    tip, notch = 1.1, (0.56 * math.cos(sector / 2), 0.56 * math.sin(sector / 2))
    edge = (notch[0] - tip, notch[1])
    return ((x - tip) * edge[1] - y * edge[0]) / math.hypot(*edge)


def _cross(u, v):
    u, v = u.abs(), v.abs()
    bar = torch.maximum(u - 1.0, v - 0.38)
    return torch.minimum(bar, torch.maximum(v - 1.0, u - 0.38))


def _flower(u, v):
    # Dividing by the largest slope keeps the edge about one pixel wide.
    return (torch.hypot(u, v) - 0.82 - 0.2 * torch.cos(6 * torch.atan2(v, u))) / 1.4


def _hexagon(u, v):
    return _polygon(u, v, 6, 0.88)


def _heart(u, v):
    side, v = 0.6, v - 0.1
    x, y = (u - v) / math.sqrt(2), (u + v) / math.sqrt(2)
    square = torch.maximum(x.abs(), y.abs()) - side
    lobes = torch.minimum(torch.hypot(x - side, y), torch.hypot(x, y + side)) - side
    return torch.minimum(square, lobes)


def _moon(u, v):
    return torch.maximum(torch.hypot(u, v) - 1.0, 0.78 - torch.hypot(u - 0.6, v))


def _ring(u, v):
    return (torch.hypot(u, v) - 0.69).abs() - 0.31


def _edge(wave: Tensor, wavelength) -> Tensor:
    """Turn a sine of the given wavelength (pixels) into two tones with one-pixel-wide edges."""
    return (0.5 + wave * wavelength / TAU).clamp(0, 1)


def _cell(x: Tensor, period: Tensor) -> Tensor:
    return (torch.remainder(x / period, 1) - 0.5) * period


def _striped(x, y, p):
    return _edge(torch.sin(TAU * x / p), p)


def _dotted(x, y, p):
    p = 1.15 * p
    return (0.5 + 0.31 * p - torch.hypot(_cell(x, p), _cell(y, p))).clamp(0, 1)


def _checkered(x, y, p):
    return _edge(torch.sin(TAU * x / (1.5 * p)) * torch.sin(TAU * y / (1.5 * p)), 1.5 * p)


def _ringed(x, y, p):
    return _edge(torch.sin(TAU * torch.hypot(x, y) / p), p)


def _zigzag(x, y, p):
    bend = _cell(y, 1.6 * p).abs() * 1.1
    return _edge(torch.sin(TAU * (x + bend) / p), p)


def _spoked(x, y, p):
    radius, spokes = torch.hypot(x, y), 6
    return (0.5 + torch.sin(spokes * torch.atan2(y, x)) * radius / spokes).clamp(0, 1)


def _latticed(x, y, p):
    return (1.6 - torch.minimum(_cell(x, p).abs(), _cell(y, p).abs())).clamp(0, 1)


def _halved(x, y, p):
    return (0.5 + x).clamp(0, 1)


def _speckled(x, y, p):
    k = 7 / p
    wave = torch.sin(1.5 * k * x + 1.4 * torch.sin(1.1 * k * y))
    wave = wave * torch.sin(1.3 * k * y + 1.7 * torch.sin(0.9 * k * x + 1))
    return (0.5 + 2 * (wave - 0.12)).clamp(0, 1)


def _twisted(x, y, p):
    arms = 7
    angle = torch.atan2(y, x) * arms + 1.9 * torch.hypot(x, y) / p
    return (0.5 + torch.sin(angle) * torch.hypot(x, y) / arms).clamp(0, 1)


# A class is a shape together with a surface. Shapes take coordinates in units of the radius and
# return a signed distance in that unit; surfaces take pixels and a period in pixels.
CLASSES = {
    "striped disc": (_disc, _striped),
    "dotted square": (_square, _dotted),
    "checkered triangle": (_triangle, _checkered),
    "ringed star": (_star, _ringed),
    "zigzag cross": (_cross, _zigzag),
    "spoked flower": (_flower, _spoked),
    "latticed hexagon": (_hexagon, _latticed),
    "halved heart": (_heart, _halved),
    "speckled moon": (_moon, _speckled),
    "twisted ring": (_ring, _twisted),
}
SHAPES = {name.split()[1]: shape for name, (shape, _) in CLASSES.items()}


def pixel_grid(size: int) -> tuple[Tensor, Tensor]:
    """Return x and y of the pixel centres, each (size, size), in pixels."""
    centres = torch.arange(size, dtype=torch.float32) + 0.5
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return x, y


def rotate(x: Tensor, y: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
    """Return x and y in a frame turned by `turn` (in turns)."""
    cos, sin = torch.cos(TAU * turn), torch.sin(TAU * turn)
    return x * cos + y * sin, y * cos - x * sin


def paint_object(
    name: str, size: int, place: Float[Tensor, "n 2"], radius: Tensor, turn: Tensor,
    period: Tensor, tones: Float[Tensor, "n 2 3"],
) -> tuple[Float[Tensor, "n s s"], Float[Tensor, "n 3 s s"]]:  # fmt: skip
    """Paint n objects of one class: coverage (n, size, size) in [0, 1] and colour.

    `place` is the centre (x, y) in pixels, `radius` and `period` (n,) are in pixels, `turn` in
    turns; `tones` are the two surface colours.
    """
    shape, surface = CLASSES[name]
    gx, gy = pixel_grid(size)
    at = [value[:, None, None] for value in (place[:, 0], place[:, 1], turn, radius, period)]
    x, y = rotate(gx - at[0], gy - at[1], at[2])
    distance = shape(x / at[3], y / at[3]) * at[3]
    mix = surface(x, y, at[4])[:, None]
    colour = tones[:, 0, :, None, None] * (1 - mix) + tones[:, 1, :, None, None] * mix
    # A darker rim and a soft light from above give the flat shapes some body.
    rim = 0.72 + 0.28 * (-distance / 2.2).clamp(0, 1)
    light = 1.06 - 0.16 * ((gy - at[1]) / at[3])
    return (0.5 - distance).clamp(0, 1), (colour * (rim * light)[:, None]).clamp(0, 1)
