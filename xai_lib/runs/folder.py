"""A run's folder: run.json, one parquet a shard, stored maps, a log. Nothing in it is ever half.

run.json                     configuration, fingerprints, versions
records/00003.parquet        the rows of shard 3; that it exists means that the shard is done
maps/00003.safetensors       its relevance maps, where they are kept
run.log                      one JSON object a line
summary.csv, comparisons.csv the tables, written when the last shard is done
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from xai_lib.errors import RunError
from xai_lib.files.writing import write_text, written
from xai_lib.runs.config import differences

FORMAT = 1
RUN_FILE, LOG_FILE, LOCK_FILE = "run.json", "run.log", ".lock"
# What must be the same for a run to go on; versions may change, and are noted in the log.
IDENTITY = ("configuration", "model", "dataset", "samples", "shards")


class RunFolder:
    """Reading and writing of one run's folder. Only the process that holds the lock writes."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)

    @property
    def exists(self) -> bool:
        return (self.path / RUN_FILE).is_file()

    def read(self) -> dict:
        """Return run.json, or raise RunError where it is missing, damaged or too new."""
        file = self.path / RUN_FILE
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            version = found["format"]
        except FileNotFoundError as error:
            raise RunError(f"{self.path} holds no run: there is no {RUN_FILE} in it.") from error
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise RunError(
                f"{file} cannot be read ({error!r}): restore it, or start the run in a new folder."
            ) from error
        if not isinstance(version, int) or version > FORMAT:
            raise RunError(
                f"{self.path} was written in format {version} by a newer xai-lib; this one reads "
                f"up to format {FORMAT}. Update xai-lib, or start the run in a new folder."
            )
        return found

    def start(self, description: dict) -> None:
        """Write run.json, or check that the one that is here describes the same run."""
        if not self.exists:
            strangers = [p.name for p in self.path.glob("*") if not p.name.startswith(".")]
            if strangers:
                raise RunError(
                    f"{self.path} is no run but holds {', '.join(sorted(strangers)[:3])}: "
                    "name a new or empty folder."
                )
            with saying_how_to_resume(self.path):
                text = json.dumps({"format": FORMAT} | description, indent=1)
                write_text(self.path / RUN_FILE, text + "\n")
            return
        found = self.read()
        changed = differences(
            {key: found.get(key) for key in IDENTITY}, {key: description[key] for key in IDENTITY}
        )
        if changed:
            raise RunError(
                f"{self.path} holds another run. Differences: {'; '.join(changed[:12])}. Use "
                "another folder, or the first configuration to go on."
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one process; the system lets go of it even after kill -9."""
        with saying_how_to_resume(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / LOCK_FILE, timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise RunError(
                f"Another process is computing the run in {self.path}: wait for it, or use another "
                "folder. `--cluster local:N` puts several processes on one run."
            ) from error
        except OSError as error:
            raise RunError(f"Cannot write to {self.path}: {error}.") from error
        try:
            self._sweep()
            yield
        finally:
            lock.release()

    def _sweep(self) -> None:
        """Remove what a killed process left unfinished; renamed files are whole and stay."""
        for folder in (self.path, self.path / "records", self.path / "maps"):
            for partial in folder.glob(".part-*"):
                partial.unlink(missing_ok=True)

    def record_file(self, number: int) -> Path:
        return self.path / "records" / f"{number:05d}.parquet"

    def map_file(self, number: int) -> Path:
        return self.path / "maps" / f"{number:05d}.safetensors"

    def is_done(self, number: int) -> bool:
        return self.record_file(number).is_file()

    def write_shard(self, number: int, records: bytes, maps: bytes | None) -> None:
        """Store a shard: its maps first, since the records say that it is done."""
        with saying_how_to_resume(self.path):
            if maps is not None:
                _write(self.map_file(number), maps)
            _write(self.record_file(number), records)

    def log(self, event: str, **facts) -> None:
        """Append one line to the log; a log that cannot be written must not end a run."""
        line = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "event": event} | facts
        with suppress(OSError), open(self.path / LOG_FILE, "ab+") as handle:
            # A full disk may have cut the last line off: it must not spoil this one.
            size = handle.seek(0, os.SEEK_END)
            if size and os.pread(handle.fileno(), 1, size - 1) != b"\n":
                handle.write(b"\n")
            handle.write(json.dumps(line).encode() + b"\n")

    def events(self, event: str | None = None) -> list[dict]:
        """Return the log's lines; the last one may be cut off by a kill and is then left out."""
        found = []
        file = self.path / LOG_FILE
        for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if event in (None, entry.get("event")):
                found.append(entry)
        return found


def _write(path: Path, data: bytes) -> None:
    """Write a file that is whole or absent, also after a power cut: the rename comes last."""
    with written(path) as partial:
        partial.write_bytes(data)
        with partial.open("rb") as handle:
            os.fsync(handle.fileno())


@contextmanager
def saying_how_to_resume(path: Path) -> Iterator[None]:
    """Turn an error of the file system into a RunError that says what is kept."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        reason = "the disk is full" if full else str(error)
        raise RunError(
            f"Cannot write to {path}: {reason}. Finished shards are kept. Once that is mended, the "
            "same command goes on where this one stopped."
        ) from error
