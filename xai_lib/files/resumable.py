"""A folder of work that may be killed: it says what it is, one process writes, nothing is half.

Its start file (JSON) holds a format and what the work is. The same command on the same folder goes
on; another configuration, a stranger's folder and a second process are refused.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from filelock import FileLock, Timeout

from xai_lib.errors import RunError
from xai_lib.files.writing import write_text

LOCK_FILE = ".lock"
# Names in a refusal: enough to see what is wrong, few enough to read.
MOST_NAMED, MOST_DIFFERENCES = 3, 12


class ResumableFolder:
    """Reading and writing of one folder; a kind of work is a subclass that names itself.

    start_file: written first. format: of everything in the folder. work: what a folder holds, as in
    "holds another WORK". doing, advice: what a second process meets, and what to do then. kept:
    what is kept when writing fails. identity: the keys of the description that must be the same to
    go on, None for all.
    """

    start_file: ClassVar[str]
    format: ClassVar[int] = 1
    work: ClassVar[str]
    doing: ClassVar[str]
    advice: ClassVar[str] = "wait for it, or use another folder."
    kept: ClassVar[str]
    identity: ClassVar[tuple[str, ...] | None] = None

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)

    @property
    def exists(self) -> bool:
        return (self.path / self.start_file).is_file()

    def read(self) -> dict:
        """Return the start file, or raise RunError where it is missing, damaged or too new."""
        file = self.path / self.start_file
        if not file.is_file():
            raise RunError(f"{self.path} holds no {self.work}: there is no {file.name} in it.")
        found = read_object(file)
        version = found.get("format")
        if not isinstance(version, int) or version > self.format:
            raise RunError(
                f"{self.path} was written in format {version!r} by a newer xai-lib; this one reads "
                f"up to format {self.format}. Update xai-lib, or use a new folder."
            )
        return found

    def check(self, description: Mapping[str, object]) -> None:
        """Raise RunError where the folder holds strangers' files or other work than described."""
        if not self.exists:
            strangers = sorted(p.name for p in self.path.glob("*") if not p.name.startswith("."))
            if strangers:
                raise RunError(
                    f"{self.path} is no {self.work} but holds {', '.join(strangers[:MOST_NAMED])}: "
                    "name a new or empty folder."
                )
            return
        found = self.read()
        keys = self.identity or tuple(description)
        # As a JSON file gives it back, where a tuple is a list.
        wanted = json.loads(json.dumps({key: description[key] for key in keys}))
        changed = differences({key: found.get(key) for key in keys}, wanted)
        if changed:
            raise RunError(
                f"{self.path} holds another {self.work}. Differences: "
                f"{'; '.join(changed[:MOST_DIFFERENCES])}. Use another folder, or the first "
                "configuration to go on."
            )

    @contextmanager
    def started(self, description: Mapping[str, object]) -> Iterator[None]:
        """Hold the folder, checked or begun anew, for one process.

        The system lets go of the lock even after kill -9. What such a process left unfinished is
        removed, but only once the folder is known to be of this work.
        """
        with self.writing():
            self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / LOCK_FILE, timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise RunError(
                f"Another process is {self.doing} in {self.path}: {self.advice}"
            ) from error
        except OSError as error:
            raise RunError(f"Cannot write to {self.path}: {error}.") from error
        try:
            self.check(description)
            if not self.exists:
                with self.writing():
                    text = json.dumps({"format": self.format} | dict(description), indent=1)
                    write_text(self.path / self.start_file, text + "\n")
            self.sweep()
            yield
        finally:
            lock.release()

    def sweep(self) -> None:
        """Remove what a killed process left unfinished; renamed files are whole and stay."""
        for partial in list(self.path.rglob(".part-*")):
            shutil.rmtree(partial) if partial.is_dir() else partial.unlink(missing_ok=True)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn an error of the file system into a RunError that says what is kept."""
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            reason = "the disk is full" if full else str(error)
            raise RunError(
                f"Cannot write to {self.path}: {reason}. {self.kept} Once that is mended, the same "
                "command goes on where this one stopped."
            ) from error


def read_object(file: Path) -> dict:
    """Return the JSON object that a file holds, or raise RunError."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise RunError(
            f"{file} cannot be read ({error!r}): restore it, or use a new folder."
        ) from error
    if not isinstance(found, dict):
        raise RunError(f"{file} holds no JSON object: restore it, or use a new folder.")
    return found


def differences(old: Mapping, new: Mapping, path: str = "") -> list[str]:
    """Return one line "key: old -> new" for every leaf in which two JSON objects differ."""
    lines = []
    for key in sorted(set(old) | set(new)):
        here, there = old.get(key), new.get(key)
        if isinstance(here, dict) and isinstance(there, dict):
            lines += differences(here, there, f"{path}{key}.")
        elif here != there:
            lines.append(f"{path}{key}: {json.dumps(here)} -> {json.dumps(there)}")
    return lines
