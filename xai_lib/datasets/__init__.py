"""Data sets whose evidence is known: generated scenes, and handwritten digits."""

from xai_lib.datasets.digits import DIGIT_CLASSES, DigitBatch, handwritten_digits
from xai_lib.datasets.samples import Samples, sample_images
from xai_lib.datasets.scenes import SCENE_CLASSES, SceneBatch, Scenes

__all__ = [
    "DIGIT_CLASSES",
    "SCENE_CLASSES",
    "DigitBatch",
    "Samples",
    "SceneBatch",
    "Scenes",
    "handwritten_digits",
    "sample_images",
]
