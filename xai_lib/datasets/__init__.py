"""Data sets whose evidence is known: generated scenes, and handwritten digits."""

from xai_lib.datasets.digits import DIGIT_CLASSES, DigitBatch, handwritten_digits
from xai_lib.datasets.scenes import SCENE_CLASSES, SceneBatch, Scenes

__all__ = [
    "DIGIT_CLASSES",
    "SCENE_CLASSES",
    "DigitBatch",
    "SceneBatch",
    "Scenes",
    "handwritten_digits",
]
