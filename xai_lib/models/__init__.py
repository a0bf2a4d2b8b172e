"""Models and their processors: embedded ones, the papers' checkpoints, and the user's own."""

from xai_lib.models.catalog import for_profile, models
from xai_lib.models.loading import load
from xai_lib.models.pair_processor import PairProcessor
from xai_lib.models.processor import Processor
from xai_lib.models.question_processor import QuestionProcessor
from xai_lib.models.text_processor import TextProcessor
from xai_lib.models.zero_shot import ZeroShotClassifier, zero_shot

__all__ = [
    "PairProcessor",
    "Processor",
    "QuestionProcessor",
    "TextProcessor",
    "ZeroShotClassifier",
    "for_profile",
    "load",
    "models",
    "zero_shot",
]
