"""Generated scenes of plain objects: drawing what is where, and painting it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from xai_lib.datasets.worlds.attributes import (
    ATTRIBUTE_SIZE,
    CAPTION_ZOOM,
    COLOURS,
    MAX_ATTRIBUTE_OBJECTS,
    PLACES,
    SHAPES,
    SIZES,
    Attributes,
    AttributeScene,
    boxes_of,
)
from xai_lib.datasets.worlds.backdrops import (
    BACKGROUNDS,
    oklch_to_rgb,
    paint_background,
    paint_distractor,
)
from xai_lib.datasets.worlds.textures import SHAPES as DISTANCES
from xai_lib.datasets.worlds.textures import pixel_grid, rotate
from xai_lib.errors import InputError, OptionError

# Lightness, chroma and hue (degrees) in OKLCH, far enough apart that the jitter never mixes two.
_TONES = {
    "red": (0.60, 0.23, 27),
    "orange": (0.74, 0.17, 60),
    "yellow": (0.90, 0.18, 105),
    "green": (0.65, 0.19, 145),
    "cyan": (0.83, 0.13, 197),
    "blue": (0.52, 0.22, 262),
    "purple": (0.50, 0.21, 305),
    "pink": (0.79, 0.15, 350),
}
# Smallest and largest radius as a part of the image size.
_RADII = {"small": (0.090, 0.105), "large": (0.135, 0.155)}
_DISTRACTORS = 3
_COARSE, _FINE = 3, 8


class AttributeScenes:
    """A seeded set of n scenes; scene i depends on the seed and i alone.

    `objects` is the number of objects per scene, 1 to 6, or a sequence of such numbers from which
    each scene draws one. Every object has a cell of the 3 x 3 grid for itself (its place), and no
    two objects of a scene share both shape and colour; sharing one of them is made likely, so that
    there is something to count. `size` is the image side in pixels; `zoom` multiplies the radii,
    and above 1 a scene has at most two objects, in cells that do not touch. `scenes[i]` is one
    `AttributeScene`, `scenes[a:b]` or `scenes[list]` a list of them; painting happens on access and
    is faster for many. Raises InputError and OptionError for numbers out of range.

    >>> scene = AttributeScenes(8, seed=0, objects=2)[3]
    >>> scene.image.shape, scene.masks.shape, scene.boxes.shape, len(scene.objects)
    (torch.Size([3, 64, 64]), torch.Size([2, 64, 64]), torch.Size([2, 4]), 2)
    """

    def __init__(
        self,
        n: int,
        seed: int | Sequence[int] = 0,
        objects: int | Sequence[int] = 1,
        size: int = ATTRIBUTE_SIZE,
        zoom: float = 1.0,
    ):
        counts = [objects] if isinstance(objects, int) else list(objects)
        if n < 1 or size < 32:
            raise InputError(f"Scenes need n >= 1 and size >= 32 pixels, got n={n}, size={size}.")
        most = MAX_ATTRIBUTE_OBJECTS if zoom <= 1 else 2
        if not counts or not set(counts) <= set(range(1, most + 1)):
            raise OptionError(
                f"objects={objects!r} is not possible: give a number from 1 to {most}, or a "
                "sequence of such numbers."
            )
        if not 0.8 <= zoom <= CAPTION_ZOOM:
            raise OptionError(f"zoom={zoom!r}: give a number from 0.8 to {CAPTION_ZOOM}.")
        self.n, self.counts, self.size, self.zoom = n, counts, size, zoom
        self.seed = (seed,) if isinstance(seed, int) else tuple(seed)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index):
        rows = range(self.n)[index] if not isinstance(index, list) else index
        if isinstance(rows, int):
            return self._paint([rows])[0]
        rows = [range(self.n)[row] for row in rows]
        # Small temporaries stay in cache.
        return [
            scene for at in range(0, len(rows), 32) for scene in self._paint(rows[at : at + 32])
        ]

    def objects(self, index: int) -> tuple[Attributes, ...]:
        """Return the objects of scene `index` without painting it."""
        return self._draw(range(self.n)[index])[0]

    def _draw(self, row: int) -> tuple[tuple[Attributes, ...], np.ndarray, np.ndarray]:
        rng = np.random.default_rng((*self.seed, row))
        number = self.counts[rng.integers(len(self.counts))]
        cells = rng.permutation(len(PLACES))[:number]
        while self.zoom > 1 and number == 2 and _touch(*cells):
            cells = rng.permutation(len(PLACES))[:number]
        kinds = rng.integers((len(SHAPES), len(COLOURS), len(SIZES)), size=(number, 3))
        share = rng.random((number, 2))
        taken: set[tuple[int, int]] = set()
        for k in range(number):
            axis = int(share[k, 0] < 0.25)
            if k and share[k, 0] < 0.5:
                kinds[k, axis] = kinds[int(share[k, 1] * k), axis]
            while tuple(kinds[k, :2]) in taken:
                kinds[k, 1 - axis] = (kinds[k, 1 - axis] + 1) % 8
            taken.add(tuple(kinds[k, :2]))
        found = tuple(
            Attributes(SHAPES[a], COLOURS[b], SIZES[c], PLACES[cell])
            for (a, b, c), cell in zip(kinds, cells, strict=True)
        )
        looks = rng.random((number, 8), dtype=np.float32)
        rest = rng.random(12 + 9 * _DISTRACTORS + _COARSE**2 + _FINE**2, dtype=np.float32)
        return found, looks, rest

    def _paint(self, rows: list[int]) -> list[AttributeScene]:
        drawn = [self._draw(row) for row in rows]
        rest = torch.from_numpy(np.stack([numbers for _, _, numbers in drawn]))
        image = self._backdrop(rest)
        image = (image * 255).round() / 255
        backgrounds = image.clone()
        # All objects of all scenes are painted shape by shape, then laid over in their order.
        owners = [(i, k) for i, (found, _, _) in enumerate(drawn) for k in range(len(found))]
        alpha, colour = self._objects(
            [drawn[i][0][k] for i, k in owners],
            torch.from_numpy(np.concatenate([looks for _, looks, _ in drawn])),
        )
        masks = [torch.zeros(len(f), *image.shape[2:], dtype=torch.bool) for f, _, _ in drawn]
        for (i, k), cover, tone in zip(owners, alpha, colour, strict=True):
            image[i] += cover * (tone - image[i])
            touched = cover > 0
            masks[i][:k] &= ~touched
            masks[i][k] = touched
        image = (image * 255).round() / 255
        return [
            AttributeScene(image[i], backgrounds[i], masks[i], boxes_of(masks[i]), drawn[i][0])
            for i in range(len(rows))
        ]

    def _objects(self, found: list[Attributes], u: Tensor) -> tuple[Tensor, Tensor]:
        size = self.size
        radius, centre = self._geometry(found, u)
        tone = torch.tensor([_TONES[each.colour] for each in found])
        colour = oklch_to_rgb(
            tone[:, 0] + 0.08 * (u[:, 3] - 0.5),
            tone[:, 1] + 0.04 * (u[:, 4] - 0.5),
            (tone[:, 2] + 12 * (u[:, 5] - 0.5)) / 360,
        )
        gx, gy = pixel_grid(size)
        dx, dy = gx - centre[:, 0, None, None], gy - centre[:, 1, None, None]
        # A twelfth of a turn to either side: hearts and moons stay upright.
        x, y = rotate(dx, dy, (u[:, 6, None, None] - 0.5) / 6)
        scale = radius[:, None, None]
        distance = torch.empty_like(dx)
        for shape in {each.shape for each in found}:
            here = torch.tensor([each.shape == shape for each in found])
            r = scale[here]
            # Both are defined about the horizontal axis: a corner of either is to point up.
            a, b = {"triangle": (y, x), "star": (-y, x)}.get(shape, (x, y))
            distance[here] = DISTANCES[shape](a[here] / r, b[here] / r) * r
        rim = 0.82 + 0.18 * (-distance / 1.5).clamp(0, 1)
        light = 1.03 - 0.08 * dy / scale
        shaded = (colour[:, :, None, None] * (rim * light)[:, None]).clamp(0, 1)
        return (0.5 - distance).clamp(0, 1), shaded

    def _geometry(self, found: list[Attributes], u: Tensor) -> tuple[Tensor, Tensor]:
        """Return radii (k,) and centres (k, 2) in pixels."""
        size, cell = self.size, self.size / 3
        low, high = torch.tensor([_RADII[each.size] for each in found]).unbind(1)
        radius = size * self.zoom * (low + (high - low) * u[:, 0])
        places = torch.tensor([PLACES.index(each.place) for each in found])
        centre = (torch.stack((places % 3, places // 3), 1) + 0.5) * cell
        room = (cell / 2 - radius).clamp_min(size / 32)[:, None]
        centre = centre + room * (2 * u[:, 1:3] - 1)
        edge = 1.1 * radius[:, None]
        return radius, torch.minimum(torch.maximum(centre, edge), size - edge)

    def _backdrop(self, rest: Tensor) -> Tensor:
        """Paint muted backgrounds with grey pebbles, twigs and hoops: no colour but the objects'"""
        u, strays, coarse, fine = rest.split((12, 9 * _DISTRACTORS, _COARSE**2, _FINE**2), dim=1)
        base = 0.30 + 0.42 * u[:, 1]
        tones = torch.stack(
            (
                oklch_to_rgb(base, 0.025 * u[:, 2], u[:, 3]),
                oklch_to_rgb(base + 0.24 * (u[:, 4] - 0.5), 0.025 * u[:, 5], u[:, 6]),
            ),
            1,
        )
        image = paint_background(
            (u[:, 0] * len(BACKGROUNDS)).long(), self.size, tones, u[:, 7], 5 + 5 * u[:, 8],
            coarse.reshape(-1, _COARSE, _COARSE), fine.reshape(-1, _FINE, _FINE),
            (u[:, 9:11] * 128).long(),
        )  # fmt: skip
        used = (u[:, 11] * (_DISTRACTORS + 1)).long()
        strays = strays.reshape(-1, _DISTRACTORS, 9)
        for d in range(_DISTRACTORS):
            here = (used > d).nonzero()[:, 0]
            v = strays[here, d].unbind(1)
            alpha, colour = paint_distractor(
                (v[0] * 3).long(), self.size, self.size * torch.stack((v[1], v[2]), 1),
                1.5 + 1.5 * v[3], v[4], oklch_to_rgb(0.25 + 0.65 * v[5], 0.02 * v[6], v[7]),
            )  # fmt: skip
            image[here] += alpha[:, None] * (colour - image[here])
        return image


def _touch(one: int, other: int) -> bool:
    """Say whether two cells of the 3 x 3 grid share an edge or a corner."""
    return max(abs(one // 3 - other // 3), abs(one % 3 - other % 3)) < 2
