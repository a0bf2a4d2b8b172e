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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from xai_lib.errors import RunError
from xai_lib.files.writing import write_text
from xai_lib.models.loaders.images import quiet
from xai_lib.runs.config import differences

FORMAT = 1
START_FILE, METRICS_FILE, WHOLE_FILE = "finetune.json", "metrics.json", "whole.json"
_NEW = ".part-model"


@dataclass(frozen=True)
class Finetuned:
    """A finished model: its folder, for `xai.load` and `from_pretrained`, and its metrics."""

    path: Path
    metrics: dict


class FinetuneFolder:
    """Reading and writing of one folder. Only the process that holds the lock writes."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"

    def start(self, identity: dict) -> None:
        """Write finetune.json, or raise RunError if the one that is here describes another."""
        file = self.path / START_FILE
        if not file.is_file():
            strangers = sorted(p.name for p in self.path.glob("*") if not p.name.startswith("."))
            if strangers:
                raise RunError(
                    f"{self.path} is no fine-tuning but holds {', '.join(strangers[:3])}: name a "
                    "new or empty folder."
                )
            with saying_what_is_kept(self.path):
                text = json.dumps({"format": FORMAT} | identity, indent=1)
                write_text(file, text + "\n")
            return
        found = self._read(file)
        if found.get("format") != FORMAT:
            raise RunError(
                f"{self.path} was written in format {found.get('format')!r}, this xai-lib reads "
                f"format {FORMAT}: use another folder."
            )
        known = json.loads(json.dumps(identity))
        changed = differences({key: found.get(key) for key in known}, known)
        if changed:
            raise RunError(
                f"{self.path} holds another fine-tuning. Differences: {'; '.join(changed[:12])}. "
                "Use another folder, or the first configuration to go on."
            )

    def finished(self) -> Finetuned | None:
        """Return the finished model, or None while there is none."""
        file = self.path / METRICS_FILE
        return Finetuned(self.path, self._read(file)) if file.is_file() else None

    def _read(self, file: Path) -> dict:
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise RunError(
                f"{file} cannot be read ({error!r}): restore it, or use a new folder."
            ) from error
        if not isinstance(found, dict):
            raise RunError(f"{file} holds no JSON object: restore it, or use a new folder.")
        return found

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one process; the system lets go of it even after kill -9."""
        with saying_what_is_kept(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise RunError(
                f"Another process is fine-tuning in {self.path}: wait for it, or name another one."
            ) from error
        except OSError as error:
            raise RunError(f"Cannot write to {self.path}: {error}.") from error
        try:
            yield
        finally:
            lock.release()

    def sweep(self) -> None:
        """Remove what a killed process left unfinished."""
        for partial in self.path.glob(".part-*"):
            shutil.rmtree(partial) if partial.is_dir() else partial.unlink(missing_ok=True)
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
        with saying_what_is_kept(self.path), quiet():
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


@contextmanager
def saying_what_is_kept(path: Path) -> Iterator[None]:
    """Turn an error of the file system into a RunError that says how to go on."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"Cannot write to {path}: {error}. Whole checkpoints are kept. Once that is mended, "
            "the same command goes on from the last one."
        ) from error
