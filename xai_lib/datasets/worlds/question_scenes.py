"""Scenes that questions are asked about, and a simulated detector that looks at them."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from xai_lib.datasets.worlds.attribute_scenes import AttributeScenes
from xai_lib.datasets.worlds.attributes import COLOURS, PLACES, SHAPES, SIZES, Attributes

FEATURES, OBJECTS = 64, 6
# Regions on the background: every empty cell has one or two, and one of them has a third.
DISTRACTORS = (5, 6, 7)
NOISE, JITTER = 0.3, 0.01
_DETECTOR_SEED = 20_240_901
# Three objects have the first colour, two the second, one the third; shapes likewise. This is the
# only way to do so where no two objects share both.
_COLOUR_OF = np.array((0, 0, 0, 1, 1, 2))
_SHAPE_OF = np.array((0, 1, 2, 0, 1, 0))
_SIZE_OF = np.array((0, 0, 0, 1, 1, 1))


class QuestionScenes(AttributeScenes):
    """A seeded set of n scenes of six objects of which each number from 0 to 3 can be counted.

    Of three colours and three shapes in a scene, three objects have the first one, two the second,
    one the third, and five colours and shapes are absent: so how many there are of something does
    not follow from the scene, before one asks of what. Three objects are small, three large.
    Places, looks and backgrounds are those of `AttributeScenes`.
    """

    def __init__(self, n: int, seed: int | tuple[int, ...] = 0):
        super().__init__(n, seed, OBJECTS)

    def _draw(self, row: int) -> tuple[tuple[Attributes, ...], np.ndarray, np.ndarray]:
        drawn, looks, rest = super()._draw(row)
        rng = np.random.default_rng((*self.seed, row, 1))
        colours = rng.permutation(len(COLOURS))[_COLOUR_OF]
        shapes = rng.permutation(len(SHAPES))[_SHAPE_OF]
        sizes = rng.permutation(_SIZE_OF)
        # Which objects share what must not follow from their order.
        order = rng.permutation(OBJECTS)
        found = tuple(
            Attributes(SHAPES[shapes[k]], COLOURS[colours[k]], SIZES[sizes[k]], each.place)
            for k, each in zip(order, drawn, strict=True)
        )
        return found, looks, rest

    def detect(
        self, index: int
    ) -> tuple[tuple[Attributes, ...], np.ndarray, Float[Tensor, "r 64"], Float[Tensor, "r 4"]]:
        """Return what a simulated detector sees in scene `index`, without painting it.

        Returned: the objects; for each region the object's number, or -1 on the background; their
        features and boxes (x0, y0, x1, y1 in parts of the image), in random order. The features of
        an object are the sum of fixed random vectors of its shape, colour and size, those of
        the background one fixed vector, both plus noise N(0, 0.3^2); its place is in its box alone.
        The box of an object is the square around it, its edges off by up to 0.01; boxes of the
        background are of the same sizes, in cells without object.
        """
        index = range(self.n)[index]
        found, looks, _ = self._draw(index)
        rng = np.random.default_rng((*self.seed, index, 2))
        radius, centre = (
            value.numpy() / self.size for value in self._geometry(found, torch.from_numpy(looks))
        )
        taken = [PLACES.index(each.place) for each in found]
        empty = [cell for cell in range(len(PLACES)) if cell not in taken]
        number = DISTRACTORS[rng.integers(len(DISTRACTORS))]
        cells = np.resize(rng.permutation(empty), number)
        strays = rng.uniform(0.09, 0.155, number)
        room = np.maximum(1 / 6 - strays, 0)[:, None]
        places = (np.stack((cells % 3, cells // 3), 1) + 0.5) / 3
        places = places + room * rng.uniform(-1, 1, (number, 2))
        centres, radii = np.concatenate((centre, places)), np.concatenate((radius, strays))
        boxes = np.concatenate((centres - radii[:, None], centres + radii[:, None]), 1)
        boxes = (boxes + rng.uniform(-JITTER, JITTER, boxes.shape)).clip(0, 1)
        features = np.concatenate((features_of(found), np.tile(background_vector(), (number, 1))))
        features = features + NOISE * rng.standard_normal(features.shape)
        order = rng.permutation(OBJECTS + number)
        owners = np.where(order < OBJECTS, order, -1)
        return (
            found,
            owners,
            torch.from_numpy(features[order].astype(np.float32)),
            torch.from_numpy(boxes[order].astype(np.float32)),
        )


@cache
def _detector() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the fixed vector of each word, and that of the background."""
    rng = np.random.default_rng(_DETECTOR_SEED)
    words = (*SHAPES, *COLOURS, *SIZES)
    vectors = rng.standard_normal((len(words), FEATURES)) / 3**0.5
    return dict(zip(words, vectors, strict=True)), rng.standard_normal(FEATURES)


def features_of(objects: tuple[Attributes, ...]) -> np.ndarray:
    """Return the features (k, 64) of objects without noise."""
    vectors = _detector()[0]
    return np.stack([vectors[o.shape] + vectors[o.colour] + vectors[o.size] for o in objects])


def background_vector() -> np.ndarray:
    """Return the features (64,) of the background without noise."""
    return _detector()[1]


def background_features(regions: int, rng: np.random.Generator) -> Float[Tensor, "r 64"]:
    """Return features as the detector sees them on the background."""
    drawn = background_vector() + NOISE * rng.standard_normal((regions, FEATURES))
    return torch.from_numpy(drawn.astype(np.float32))
