"""Models and their processors: embedded ones, the papers' checkpoints, and the user's own."""

from xai_lib.models.catalog import for_profile, models
from xai_lib.models.loading import load
from xai_lib.models.processors.image import Processor
from xai_lib.models.processors.open_clip import OpenClipProcessor
from xai_lib.models.processors.pair import PairProcessor
from xai_lib.models.processors.question import QuestionProcessor
from xai_lib.models.processors.text import TextProcessor
from xai_lib.models.similarity import TextSimilarity
from xai_lib.models.zero_shot import ZeroShotClassifier, zero_shot

__all__ = [
    "OpenClipProcessor",
    "PairProcessor",
    "Processor",
    "QuestionProcessor",
    "TextProcessor",
    "TextSimilarity",
    "ZeroShotClassifier",
    "for_profile",
    "load",
    "models",
    "zero_shot",
]
