"""The embedded data sets for evaluation: scenes never trained on, and the held-out digits."""

from __future__ import annotations

from importlib.util import find_spec

import torch

from xai_lib.datasets.base import BACKGROUND, FOREGROUND, ImageDataset, Sample
from xai_lib.datasets.fingerprints import of_generated
from xai_lib.datasets.registry import UNSEEN, Asked, dataset
from xai_lib.datasets.worlds.attribute_scenes import AttributeScenes
from xai_lib.datasets.worlds.attributes import ATTRIBUTE_CLASSES, ATTRIBUTE_SIZE, CAPTION_ZOOM
from xai_lib.datasets.worlds.digits import DIGIT_CLASSES, DigitBatch, handwritten_digits
from xai_lib.datasets.worlds.scenes import SCENE_CLASSES, SCENE_SIZE, Scenes

# Training seeds are (seed, 1 or 99, ...) from seed 0 on; the cards measure on 1_000_001 and 002.
EVALUATION_SEED = 1_000_003
SCENES = 10_000
_ASKED = f"{UNSEEN}; one of two objects is asked for"
# Scenes draw a table for all of a set at once: blocks bound the memory and the time to open.
_BLOCK = 500


class SceneImages(ImageDataset):
    """10,000 generated scenes; scene i depends on i alone.

    With one object, the label is its class and the mask its pixels. With two, sample i asks for
    object i % 2: its class is the label, its pixels the foreground, the other object is background.
    """

    class_names = SCENE_CLASSES
    has_masks = True

    def __init__(self, name: str = "scenes", objects: int = 1, n: int = SCENES):
        self.name, self.objects, self.n = name, objects, n
        self._block: tuple[int, Scenes] | None = None

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Sample:
        index = range(self.n)[index]
        scene = self._scenes(index // _BLOCK)[index % _BLOCK]
        slot = index % self.objects
        mask = torch.where(scene.masks[0, slot], FOREGROUND, BACKGROUND).to(torch.int8)
        return Sample(f"scene-{index:05d}", scene.image[0], int(scene.labels[0, slot]), mask)

    def _scenes(self, block: int) -> Scenes:
        held = self._block
        if held is None or held[0] != block:
            seed = (EVALUATION_SEED, self.objects, block)
            self._block = held = block, Scenes(_BLOCK, seed, self.objects)
        return held[1]

    def __getstate__(self) -> dict:
        return vars(self) | {"_block": None}

    def fingerprint(self) -> dict[str, str | int]:
        """Return name, number, seed, size and the digest of the first block's labels."""
        shown = self._scenes(0).labels.numpy().tobytes()
        facts = {"seed": EVALUATION_SEED, "pixels": SCENE_SIZE}
        return of_generated(self.name, self.n, shown, **facts)


class AttributeImages(ImageDataset):
    """10,000 scenes of plain objects in 8 shapes and 8 colours; scene i depends on i alone.

    The label is colour and shape of one object, the mask its pixels: of two objects, sample i asks
    for object i % 2, and the other one is background.
    """

    class_names = ATTRIBUTE_CLASSES
    has_masks = True

    def __init__(self, name: str = "attribute-scenes", objects: int = 1, n: int = SCENES):
        self.name, self.objects, self.n = name, objects, n
        self._scenes = AttributeScenes(n, (EVALUATION_SEED, objects), objects, zoom=CAPTION_ZOOM)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Sample:
        index = range(self.n)[index]
        scene, slot = self._scenes[index], index % self.objects
        mask = torch.where(scene.masks[slot], FOREGROUND, BACKGROUND).to(torch.int8)
        label = ATTRIBUTE_CLASSES.index(scene.objects[slot].name)
        return Sample(f"scene-{index:05d}", scene.image, label, mask)

    def fingerprint(self) -> dict[str, str | int]:
        """Return name, number, seed, size and the digest of what the first scenes show."""
        shown = [self._scenes.objects(i) for i in range(min(self.n, _BLOCK))]
        facts = {"seed": EVALUATION_SEED, "pixels": ATTRIBUTE_SIZE}
        return of_generated(self.name, self.n, repr(shown).encode(), **facts)


class DigitImages(ImageDataset):
    """The 360 held-out handwritten digits; the strokes are the foreground."""

    name = "digits"
    class_names = DIGIT_CLASSES
    has_masks = True

    def __init__(self):
        self._digits: DigitBatch = handwritten_digits("test")

    def __len__(self) -> int:
        return len(self._digits)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        digits = self._digits
        mask = torch.where(digits.strokes[index], FOREGROUND, BACKGROUND).to(torch.int8)
        return Sample(f"digit-{index:03d}", digits.image[index], int(digits.labels[index]), mask)

    def fingerprint(self) -> dict[str, str | int]:
        """Return name, number and the digest of the labels."""
        return of_generated(self.name, len(self), self._digits.labels.numpy().tobytes())


@dataset("scenes-2", modality="image", samples=SCENES, evidence="masks", origin=_ASKED)
@dataset("scenes", modality="image", samples=SCENES, evidence="masks", origin=UNSEEN)
def open_scenes(asked: Asked) -> SceneImages:
    """Return the scenes of one or of two objects."""
    return SceneImages(asked.text, objects=2 if asked.text.endswith("-2") else 1)


@dataset("attribute-scenes-2", modality="image", samples=SCENES, evidence="masks", origin=_ASKED)
@dataset("attribute-scenes", modality="image", samples=SCENES, evidence="masks", origin=UNSEEN)
def open_attribute_scenes(asked: Asked) -> AttributeImages:
    """Return the scenes of one or of two plain objects."""
    return AttributeImages(asked.text, objects=2 if asked.text.endswith("-2") else 1)


@dataset(
    "digits",
    modality="image",
    samples=360,
    evidence="masks",
    origin="bundled with scikit-learn, held-out part",
    is_here=lambda: find_spec("sklearn") is not None,
)
def open_digits(asked: Asked) -> DigitImages:
    """Return the held-out digits."""
    return DigitImages()
