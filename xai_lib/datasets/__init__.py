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
from xai_lib.datasets.digits import DIGIT_CLASSES, DigitBatch, handwritten_digits
from xai_lib.datasets.opening import datasets_table, open_dataset
from xai_lib.datasets.pair_samples import SamplePairs, sample_pairs
from xai_lib.datasets.prompts import class_prompts, imagenet_names
from xai_lib.datasets.question_samples import SampleQuestions, sample_questions
from xai_lib.datasets.questions import GeneratedQuestions
from xai_lib.datasets.region_features import open_regions
from xai_lib.datasets.samples import Samples, sample_images
from xai_lib.datasets.scenes import SCENE_CLASSES, SceneBatch, Scenes
from xai_lib.datasets.text_samples import SampleTexts, sample_texts

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
