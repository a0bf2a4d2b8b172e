"""A run's folder: run.json, one parquet a shard, stored maps, a log. Nothing in it is ever half.

run.json                     configuration, fingerprints, versions
records/00003.parquet        the rows of shard 3; that it exists means that the shard is done
maps/00003.safetensors       its relevance maps, where they are kept
run.log                      one JSON object a line
summary.csv, comparisons.csv the tables, written when the last shard is done
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path

from xai_lib.files.resumable import ResumableFolder
from xai_lib.files.writing import written

LOG_FILE = "run.log"


class RunFolder(ResumableFolder):
    """Reading and writing of one run's folder. Only the process that holds the lock writes."""

    start_file = "run.json"
    work = "run"
    doing = "computing the run"
    advice = (
        "wait for it, or use another folder. `--cluster local:N` puts several processes on one run."
    )
    kept = "Finished shards are kept."
    # Versions may change; they are noted in the log.
    identity = ("configuration", "model", "dataset", "samples", "shards")

    def record_file(self, number: int) -> Path:
        return self.path / "records" / f"{number:05d}.parquet"

    def map_file(self, number: int) -> Path:
        return self.path / "maps" / f"{number:05d}.safetensors"

    def is_done(self, number: int) -> bool:
        return self.record_file(number).is_file()

    def write_shard(self, number: int, records: bytes, maps: bytes | None) -> None:
        """Store a shard: its maps first, since the records say that it is done."""
        with self.writing():
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
