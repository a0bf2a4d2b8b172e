"""Data sets whose evidence is known, generated or handwritten, and those of the papers."""

from xai_lib.datasets.base import (
    Dataset,
    ImageDataset,
    QuestionDataset,
    QuestionSample,
    Sample,
    TextDataset,
    TextSample,
)
from xai_lib.datasets.images.imagenet_labels import imagenet_names
from xai_lib.datasets.opening import datasets_table, open_dataset
from xai_lib.datasets.regions.opening import open_regions
from xai_lib.datasets.samples.images import Samples, sample_images
from xai_lib.datasets.samples.pairs import SamplePairs, sample_pairs
from xai_lib.datasets.samples.questions import SampleQuestions, sample_questions
from xai_lib.datasets.samples.texts import SampleTexts, sample_texts
from xai_lib.datasets.worlds.digits import DIGIT_CLASSES, DigitBatch, handwritten_digits
from xai_lib.datasets.worlds.questions import GeneratedQuestions
from xai_lib.datasets.worlds.scenes import SCENE_CLASSES, SceneBatch, Scenes
from xai_lib.models.prompts import class_prompts

__all__ = [
    "DIGIT_CLASSES",
    "SCENE_CLASSES",
    "Dataset",
    "DigitBatch",
    "GeneratedQuestions",
    "ImageDataset",
    "QuestionDataset",
    "QuestionSample",
    "Sample",
    "SamplePairs",
    "SampleQuestions",
    "SampleTexts",
    "Samples",
    "SceneBatch",
    "Scenes",
    "TextDataset",
    "TextSample",
    "class_prompts",
    "datasets_table",
    "handwritten_digits",
    "imagenet_names",
    "open_dataset",
    "open_regions",
    "sample_images",
    "sample_pairs",
    "sample_questions",
    "sample_texts",
]
