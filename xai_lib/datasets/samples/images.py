"""A few pictures to start from, for notebooks and first looks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from torch import Tensor

from xai_lib.datasets.worlds.digits import DIGIT_CLASSES, handwritten_digits
from xai_lib.datasets.worlds.scenes import SceneBatch, Scenes

Picture = Tensor | np.ndarray | str | os.PathLike


@dataclass(frozen=True)
class Samples:
    """Named pictures, and for each the pixels known to decide its label (or None)."""

    pictures: dict[str, Picture]
    evidence: dict[str, Bool[Tensor, "k h w"]] | None = None

    @property
    def names(self) -> list[str]:
        """Names in order."""
        return list(self.pictures)

    def list(self) -> list[Picture]:
        """Pictures in order, as a processor takes them."""
        return [*self.pictures.values()]


def sample_images(
    model: str, image: Picture | None = None, count: int = 4, seed: int = 7
) -> Samples:
    """Return pictures for `model`: the user's own `image`, else ones from its embedded world.

    Scenes: the first has two objects, the others one; `evidence` (objects, H, W) are their exact
    masks. Digits: held-out ones with their strokes. Any other model gets the two photographs that
    scikit-learn carries, whose evidence nobody knows.
    """
    if image is not None:
        return Samples({os.path.basename(str(image)) if not _is_array(image) else "yours": image})
    if model.endswith("-scenes"):
        scenes = [Scenes(1, seed, objects=2)[0], *_of_each_class(Scenes(20 * count, seed + 1))]
        scenes = scenes[:count]
        names = [" and ".join(scene.names[0]) for scene in scenes]
        return _named(names, [s.image[0] for s in scenes], [s.masks[0] for s in scenes])
    if model.endswith("-digits"):
        digits = handwritten_digits("test")[seed : seed + count]
        names = [DIGIT_CLASSES[label] for label in digits.labels.tolist()]
        return _named(names, list(digits.image), [m[None] for m in digits.evidence])
    from sklearn.datasets import load_sample_image

    return Samples({name: load_sample_image(f"{name}.jpg") for name in ("flower", "china")})


def _of_each_class(scenes: Scenes) -> Iterator[SceneBatch]:
    """Yield single-object scenes, skipping classes that were met before."""
    met = set()
    for i in range(len(scenes)):
        scene = scenes[i]
        if scene.names[0] not in met:
            met.add(scene.names[0])
            yield scene


def _named(names: list[str], images: list[Tensor], masks: list[Tensor]) -> Samples:
    unique = [name if names.count(name) == 1 else f"{name} {i}" for i, name in enumerate(names)]
    return Samples(dict(zip(unique, images, strict=True)), dict(zip(unique, masks, strict=True)))


def _is_array(image: object) -> bool:
    return isinstance(image, Tensor | np.ndarray)
