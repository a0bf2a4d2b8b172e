"""What tells one data set from another, from names and sizes alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path


def plain_name(name: str) -> str:
    """Return a data set's name without its path, revision and split."""
    return name.partition("#")[0].partition("@")[0].partition(":")[0]


def stated(name: str, samples: int, size: int, digest: str) -> dict[str, str | int]:
    """Return a fingerprint in the form that `Dataset.fingerprint` has; size in bytes."""
    return {"dataset": plain_name(name), "samples": samples, "bytes": size, "digest": digest}


def of_generated(name: str, samples: int, shown: bytes, **facts: str | int) -> dict[str, str | int]:
    """Return a generated set's fingerprint: facts such as its seed, a digest of what it shows."""
    told = {"dataset": name, "samples": samples, **facts}
    return told | {"digest": hashlib.sha256(shown).hexdigest()}


def of_files(
    name: str, root: Path, files: Sequence[str], labels: Iterable[int] | None = None
) -> dict[str, str | int]:
    """Return number, total size and the digest of all names, sizes and labels."""
    digest, total = hashlib.sha256(), 0
    given = [""] * len(files) if labels is None else labels
    for file, label in zip(files, given, strict=True):
        try:
            size = (root / file).stat().st_size
        except OSError:
            size = -1
        total += size
        digest.update(f"{file}\0{size}\0{label}\n".encode())
    return stated(name, len(files), total, digest.hexdigest())
