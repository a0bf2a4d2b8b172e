"""Models and their processors: embedded ones, the papers' checkpoints, and the user's own."""

from xai_lib.models.catalog import for_profile, models
from xai_lib.models.loading import load
from xai_lib.models.processor import Processor
from xai_lib.models.text_processor import TextProcessor

__all__ = ["Processor", "TextProcessor", "for_profile", "load", "models"]
