"""Models and their processors: embedded ones, the papers' checkpoints, and the user's own."""

from .catalog import models
from .loading import load
from .processor import Processor

__all__ = ["Processor", "load", "models"]
