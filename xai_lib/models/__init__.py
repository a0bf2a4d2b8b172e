"""Models and their processors: embedded ones, the papers' checkpoints, and the user's own."""

from xai_lib.models.catalog import for_profile, models
from xai_lib.models.loading import load
from xai_lib.models.processor import Processor

__all__ = ["Processor", "for_profile", "load", "models"]
