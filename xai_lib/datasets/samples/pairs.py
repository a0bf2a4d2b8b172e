"""A few pictures and texts to compare them with, for notebooks and first looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor

from xai_lib.datasets.samples.images import Picture
from xai_lib.datasets.worlds.attribute_scenes import AttributeScenes
from xai_lib.datasets.worlds.attributes import CAPTION_ZOOM
from xai_lib.datasets.worlds.captions import prompts
from xai_lib.errors import InputError

# What can be seen on the two photographs that scikit-learn carries, and what cannot.
PHOTO_TEXTS = ("a photo of a flower", "a photo of a temple", "a photo of a cat", "a photo of a bus")


@dataclass(frozen=True)
class SamplePairs:
    """Named pictures and the texts that each is compared with.

    evidence: for each picture the pixels of its objects, (objects, H, W), the first named by the
    first of its own texts; None where nobody knows. own: for each picture its texts, by number.
    """

    pictures: dict[str, Picture]
    texts: tuple[str, ...]
    evidence: dict[str, Bool[Tensor, "k h w"]] | None = None
    own: dict[str, tuple[int, ...]] | None = None

    @property
    def names(self) -> list[str]:
        """Names in order."""
        return list(self.pictures)

    def list(self) -> list[Picture]:
        """Pictures in order, as a processor takes them."""
        return [*self.pictures.values()]


def sample_pairs(
    model: str,
    image: Picture | None = None,
    texts: Sequence[str] | None = None,
    count: int = 3,
    seed: int = 7,
) -> SamplePairs:
    """Return pictures and texts for `model`: the user's own, else ones of its embedded world.

    "clip-scenes": scenes of two objects, and a text for each object of all of them. Any other model
    gets the two photographs that scikit-learn carries, whose evidence nobody knows. image and texts
    are the user's own and may be given alone.
    """
    if count < 1:
        raise InputError(f"count={count} is not possible: give 1 or more.")
    if texts is not None and (isinstance(texts, str) or not list(texts)):
        raise InputError(f"texts is {texts!r}; expected a list of at least one text.")
    if image is not None:
        if texts is None:
            raise InputError("An image of your own needs texts to compare it with: texts=[...].")
        return SamplePairs({"yours": image}, tuple(texts))
    if not model.endswith("clip-scenes"):
        from sklearn.datasets import load_sample_image

        photographs = {name: load_sample_image(f"{name}.jpg") for name in ("flower", "china")}
        return SamplePairs(photographs, tuple(texts or PHOTO_TEXTS))
    scenes = [AttributeScenes(count, seed, 2, zoom=CAPTION_ZOOM)[i] for i in range(count)]
    phrases = [prompts([one.name for one in scene.objects], "{}") for scene in scenes]
    asked = tuple(dict.fromkeys(p for pair in phrases for p in pair))
    names = [f"scene {i + 1}" for i in range(count)]
    evidence = {name: scene.masks for name, scene in zip(names, scenes, strict=True)}
    pictures = {name: scene.image for name, scene in zip(names, scenes, strict=True)}
    if texts is not None:
        return SamplePairs(pictures, tuple(texts), evidence)
    own = {n: tuple(map(asked.index, pair)) for n, pair in zip(names, phrases, strict=True)}
    return SamplePairs(pictures, asked, evidence, own)
