"""Generated scenes whose evidence is known: class objects on textured backgrounds, exact masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from xai_lib.datasets.worlds.backdrops import (
    BACKGROUNDS,
    oklch_to_rgb,
    paint_background,
    paint_distractor,
)
from xai_lib.datasets.worlds.textures import CLASSES, paint_object
from xai_lib.errors import InputError, OptionError

SCENE_CLASSES: tuple[str, ...] = tuple(CLASSES)
SCENE_SIZE = 96
MAX_OBJECTS = 3
_DISTRACTORS = 4
_TRIES = 40
_COARSE, _FINE = 4, 11
# Smallest and largest radius as a part of the image size, by the number of objects in the scene.
_RADIUS = torch.tensor([[0.15, 0.24], [0.18, 0.31], [0.145, 0.215], [0.13, 0.175]])


@dataclass(frozen=True)
class SceneBatch:
    """Scenes and what decides them: K object slots per scene, unused ones with label -1.

    `image` and `background` are in [0, 1] with the 256 levels of a PNG; `masks` are the pixels that
    an object touches and no later object covers; `background` holds the distractors, so outside the
    masks image and background are equal to the bit. Indexing picks scenes.
    """

    image: Float[Tensor, "n 3 h w"]
    background: Float[Tensor, "n 3 h w"]
    masks: Bool[Tensor, "n k h w"]
    distractors: Bool[Tensor, "n h w"]
    labels: Int[Tensor, "n k"]

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index) -> SceneBatch:
        rows = torch.arange(len(self))[index].reshape(-1)
        return SceneBatch(*(value[rows] for value in vars(self).values()))

    @property
    def names(self) -> list[tuple[str, ...]]:
        """Class names of each scene's objects."""
        return [tuple(SCENE_CLASSES[c] for c in row if c >= 0) for row in self.labels.tolist()]

    @property
    def evidence(self) -> Bool[Tensor, "n h w"]:
        """Pixels of any object."""
        return self.masks.any(1)

    def without(self, slot: int | None = None) -> Float[Tensor, "n 3 h w"]:
        """Images with the object in `slot` (default: all objects) replaced by the background."""
        mask = self.evidence if slot is None else self.masks[:, slot]
        return torch.where(mask[:, None], self.background, self.image)

    def only(
        self, slot: int | None = None, backdrop: Tensor | float = 0.5
    ) -> Float[Tensor, "n 3 h w"]:
        """Images that keep the object in `slot` (default: all) on another backdrop or one grey."""
        mask = self.evidence if slot is None else self.masks[:, slot]
        return torch.where(mask[:, None], self.image, torch.as_tensor(backdrop))


class Scenes:
    """A seeded, endless-looking set of n scenes; scene i depends on the seed and i alone.

    `objects` is the number of objects per scene (1, 2 or 3, all of different classes), or a
    sequence of such numbers (0 allowed) from which each scene draws one. `size` is the image side
    in pixels, `zoom` multiplies the radii (training starts with larger objects). Colour, size,
    place, rotation and background are drawn independently of the class. `scenes[i]` is one scene,
    `scenes[a:b]` or `scenes[list]` a batch (`SceneBatch`); painting happens on access.

    >>> scene = Scenes(8, seed=0, objects=2)[3]
    >>> scene.image.shape, scene.masks.shape
    (torch.Size([1, 3, 96, 96]), torch.Size([1, 2, 96, 96]))
    """

    def __init__(
        self,
        n: int,
        seed: int | Sequence[int] = 0,
        objects: int | Sequence[int] = 1,
        size: int = SCENE_SIZE,
        zoom: float = 1.0,
    ):
        counts = torch.as_tensor([objects] if isinstance(objects, int) else list(objects))
        if n < 1 or size < 32:
            raise InputError(f"Scenes need n >= 1 and size >= 32 pixels, got n={n}, size={size}.")
        if len(counts) == 0 or counts.min() < 0 or counts.max() not in range(1, MAX_OBJECTS + 1):
            raise OptionError(
                f"objects={objects!r} is not possible: give 1, 2 or 3, or a sequence of numbers "
                f"from 0 to {MAX_OBJECTS} that are not all 0."
            )
        self.n, self.seed, self.size, self.zoom = n, seed, size, zoom
        self.slots = int(counts.max())
        # One table of uniform numbers, a row a scene: a longer set begins with the shorter one.
        width = 1 + len(CLASSES) + MAX_OBJECTS * (9 + 2 * _TRIES) + _DISTRACTORS * 9 + 12
        width += _COARSE**2 + _FINE**2
        table = np.random.default_rng(seed).random((n, width), dtype=np.float32)
        self._table = torch.from_numpy(table)
        self._column = 0
        self.count = counts[(self._take() * len(counts)).long()]
        order = self._take(len(CLASSES)).argsort(1)[:, :MAX_OBJECTS]
        empty = torch.arange(MAX_OBJECTS) >= self.count[:, None]
        self.labels = order.masked_fill(empty, -1)[:, : self.slots]
        self._draw_objects()
        self._draw_distractors()
        self._draw_background()

    def _take(self, *shape: int) -> Tensor:
        width = int(np.prod(shape)) if shape else 1
        block = self._table[:, self._column : self._column + width]
        self._column += width
        return block.reshape(self.n, *shape)

    def _draw_objects(self) -> None:
        u = self._take(MAX_OBJECTS, 9).unbind(-1)
        low, high = (_RADIUS[self.count] * self.size * self.zoom).unbind(-1)
        self.radius = low[:, None] + (high - low)[:, None] * u[0]
        self.turn = u[1]
        self.period = 5.5 + 3.0 * u[2]
        pale = oklch_to_rgb(0.78 + 0.17 * u[3], 0.03 + 0.12 * u[4], u[5])
        deep = oklch_to_rgb(0.30 + 0.25 * u[6], 0.08 + 0.12 * u[4], u[5] + 0.5 * (u[7] - 0.5))
        tones = torch.stack((pale, deep), 2)
        # Which tone covers the larger part of a surface is a coin toss, so brightness says nothing.
        self.tones = torch.where((u[8] < 0.5)[..., None, None], tones, tones.flip(2))
        tries = self._take(MAX_OBJECTS, _TRIES, 2)
        margin = (1.08 * self.radius)[..., None, None].clamp_max(self.size / 2)
        tries = margin + (self.size - 2 * margin) * tries
        place = tries[:, :1, 0]
        for k in range(1, MAX_OBJECTS):
            apart = torch.cdist(tries[:, k], place) - self.radius[:, None, :k]
            gap = apart.amin(2) - self.radius[:, k, None]
            best = torch.where(gap > 0, 1.0, gap).argmax(1)
            place = torch.cat((place, tries[torch.arange(self.n), k, best][:, None]), 1)
        self.place = place

    def _draw_distractors(self) -> None:
        u = self._take(_DISTRACTORS, 9).unbind(-1)
        used = (u[0][:, 0] * (_DISTRACTORS + 1)).long()
        self._strays = {
            "used": torch.arange(_DISTRACTORS) < used[:, None],
            "kind": (u[1] * 3).long(),
            "place": self.size * torch.stack((u[2], u[3]), -1),
            "radius": 3 + 3 * u[4],
            "turn": u[5],
            "colour": oklch_to_rgb(0.35 + 0.55 * u[6], 0.04 + 0.14 * u[7], u[8]),
        }

    def _draw_background(self) -> None:
        u = self._take(12).unbind(-1)
        tones = torch.stack(
            (
                oklch_to_rgb(0.42 + 0.42 * u[1], 0.015 + 0.075 * u[2], u[3]),
                oklch_to_rgb(
                    0.42 + 0.42 * u[1] + 0.3 * (u[4] - 0.5),
                    0.015 + 0.075 * u[5],
                    u[3] + 0.35 * (u[6] - 0.5),
                ),
            ),
            1,
        )
        self._backdrop = {
            "kind": (u[0] * len(BACKGROUNDS)).long(),
            "tones": tones,
            "turn": u[7],
            "period": 5 + 5 * u[8],
            "offset": (torch.stack((u[9], u[10]), -1) * 128).long(),
            "coarse": self._take(_COARSE, _COARSE),
            "fine": self._take(_FINE, _FINE),
        }

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index) -> SceneBatch:
        rows = torch.arange(self.n)[index].reshape(-1)
        # Small temporaries stay in cache: painting 64 at a time is several times faster.
        parts = [vars(self._paint(chunk)).values() for chunk in rows.split(64)]
        return SceneBatch(*(torch.cat(values) for values in zip(*parts, strict=True)))

    def _paint(self, rows: Tensor) -> SceneBatch:
        image = paint_background(
            size=self.size, **{name: value[rows] for name, value in self._backdrop.items()}
        )
        strays = {name: value[rows] for name, value in self._strays.items()}
        used = strays.pop("used")
        stray = torch.zeros(len(rows), self.size, self.size, dtype=torch.bool)
        for d in range(_DISTRACTORS):
            here = used[:, d].nonzero()[:, 0]
            alpha, colour = paint_distractor(
                size=self.size, **{name: value[here, d] for name, value in strays.items()}
            )
            image[here] = _over(image[here], alpha, colour)
            stray[here] |= alpha > 0
        background = image.clone()
        masks = torch.zeros(len(rows), self.slots, self.size, self.size, dtype=torch.bool)
        for k in range(self.slots):
            for c, name in enumerate(CLASSES):
                here = (self.labels[rows, k] == c).nonzero()[:, 0]
                if len(here) == 0:
                    continue
                which = rows[here]
                alpha, colour = paint_object(
                    name, self.size, self.place[which, k], self.radius[which, k],
                    self.turn[which, k], self.period[which, k], self.tones[which, k],
                )  # fmt: skip
                image[here] = _over(image[here], alpha, colour)
                masks[here] &= ~(alpha > 0)[:, None]
                masks[here, k] = alpha > 0
        image, background = ((value * 255).round() / 255 for value in (image, background))
        return SceneBatch(image, background, masks, stray & ~masks.any(1), self.labels[rows])


def _over(below: Tensor, alpha: Tensor, colour: Tensor) -> Tensor:
    return below * (1 - alpha[:, None]) + colour * alpha[:, None]
