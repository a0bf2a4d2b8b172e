"""Data that a user must bring: what it is, where it comes from, where it is looked for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from xai_lib.errors import MissingDataError


@dataclass(frozen=True)
class Source:
    """A data set that cannot be shipped.

    place: its official address. samples: in the whole original, or in `split`, which is opened
    where none is named. archive: the published file, where it is not the last part of `place`;
    sha256, size (bytes): its own, None where nobody publishes them. kind: "file" or "folder".
    script: of data_scripts, that fetches it, or "".
    """

    name: str
    title: str
    place: str
    samples: int
    split: str | None = None
    archive: str = ""
    kind: str = "folder"
    script: str = ""
    sha256: str | None = None
    size: int | None = None

    @property
    def variable(self) -> str:
        """The environment variable that points at it."""
        return f"XAI_{self.name.upper().replace('-', '_')}"

    def looked_for(self, path: str | os.PathLike | None = None) -> Path | None:
        """Return where the data should lie: `path`, else the environment variable, else None."""
        place = path if path is not None else os.environ.get(self.variable) or None
        return None if place is None else Path(place).expanduser()

    def told(self) -> str:
        """Return where it comes from and how to point at it, in words."""
        return f"{self.place}; point {self.variable} at the {self.kind}"

    def is_here(self) -> bool:
        """Say whether something lies where the environment variable points."""
        place = self.looked_for()
        return place is not None and place.exists()

    def state(self) -> str:
        """Return in words whether it is here, and where it was looked for."""
        place = self.looked_for()
        if place is None:
            return f"missing: {self.variable} is not set; from {self.place}"
        if not place.exists():
            return f"missing: nothing at {place} ({self.variable})"
        whose = f"split {self.split}" if self.split else "original"
        return f"present: {place} ({self.variable}); {self.samples:,} in the {whose}"

    def locate(self, path: str | os.PathLike | None = None) -> Path:
        """Return where the data lies; raise MissingDataError if it is not there."""
        place = self.looked_for(path)
        if place is None:
            raise self.missing(f"neither path= nor the variable {self.variable} says where it is")
        if not place.exists():
            given = "path=" if path is not None else self.variable
            raise self.missing(f"there is nothing at {str(place)!r}, where {given} points")
        return place

    def missing(self, reason: str) -> MissingDataError:
        """Return the error that says what is missing, where to get it and how to point at it."""
        size = "unknown to us" if self.size is None else f"{self.size:,} bytes"
        script = f", for instance with data_scripts/{self.script}" if self.script else ""
        archive = self.archive or self.place.rpartition("/")[2]
        return MissingDataError(
            f"The data set {self.name!r} ({self.title}) is missing: {reason}. Get {archive} "
            f"from {self.place} (size {size}, sha256 {self.sha256 or 'unknown to us'}){script}, "
            f"then give the {self.kind} as path=, or set {self.variable} to it."
        )
