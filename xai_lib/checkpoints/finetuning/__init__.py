"""Training of text classifiers: a base, a data set, a folder that transformers and `load` read."""

from xai_lib.checkpoints.finetuning.config import FinetuneConfig
from xai_lib.checkpoints.finetuning.finetune import finetune
from xai_lib.checkpoints.finetuning.folder import Finetuned

__all__ = ["FinetuneConfig", "Finetuned", "finetune"]
