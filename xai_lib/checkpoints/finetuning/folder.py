"""A fine-tuning's folder: what it is, its checkpoints, and the finished model. Nothing is half.

finetune.json                   configuration and fingerprints
checkpoints/checkpoint-120/     of the Trainer; `whole.json` in it says that nothing is missing
model.safetensors, config.json, tokenizer.json, README.md: the finished model
metrics.json                    written last: that it exists means that the model is finished
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from xai_lib.files.resumable import ResumableFolder, read_object
from xai_lib.files.writing import write_text
from xai_lib.models.loaders.images import quiet

METRICS_FILE, WHOLE_FILE = "metrics.json", "whole.json"
_NEW = ".part-model"


@dataclass(frozen=True)
class Finetuned:
    """A finished model: its folder, for `xai.load` and `from_pretrained`, and its metrics."""

    path: Path
    metrics: dict


class FinetuneFolder(ResumableFolder):
    """Reading and writing of one folder. Only the process that holds the lock writes."""

    start_file = "finetune.json"
    work = "fine-tuning"
    doing = "fine-tuning"
    kept = "Whole checkpoints are kept."

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def finished(self) -> Finetuned | None:
        """Return the finished model, or None while there is none."""
        file = self.path / METRICS_FILE
        return Finetuned(self.path, read_object(file)) if file.is_file() else None

    def sweep(self) -> None:
        """Remove what a killed process left unfinished, such as a checkpoint that is not whole."""
        super().sweep()
        for checkpoint in self.checkpoints.glob("checkpoint-*"):
            if not (checkpoint / WHOLE_FILE).is_file():
                shutil.rmtree(checkpoint)

    def last_checkpoint(self) -> Path | None:
        """Return the last whole checkpoint, or None."""
        found = [path.parent for path in self.checkpoints.glob(f"checkpoint-*/{WHOLE_FILE}")]
        return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)

    def write_model(self, model, tokenizer, card: str, metrics: dict) -> Finetuned:
        """Put the finished model in place, config.json and metrics.json last; drop checkpoints."""
        new = self.path / _NEW
        with self.writing(), quiet():
            model.save_pretrained(new)
            tokenizer.save_pretrained(new)
            files = sorted(new.iterdir(), key=lambda path: path.name == "config.json")
            for file in files:
                os.replace(file, self.path / file.name)
            new.rmdir()
            write_text(self.path / "README.md", card)
            write_text(self.path / METRICS_FILE, json.dumps(metrics, indent=1) + "\n")
            shutil.rmtree(self.checkpoints, ignore_errors=True)
        return Finetuned(self.path, metrics)
