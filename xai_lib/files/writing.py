"""Files that are whole or absent: written under another name in the same folder, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from xai_lib.errors import InputError, OptionError


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write: it becomes `path` on success and is removed on an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".part-{os.getpid()}-{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with written(path) as partial:
        partial.write_text(text, encoding="utf-8")


def saveable(path: str | Path, suffixes: Sequence[str]) -> Path:
    """Return `path`; raise OptionError for another suffix, InputError for a missing folder."""
    path = Path(path)
    if path.suffix not in suffixes:
        expected = ", ".join(suffixes)
        raise OptionError(f"{path} has the suffix {path.suffix!r}; expected {expected}.")
    if not path.parent.is_dir():
        raise InputError(f"The folder {path.parent} does not exist. Make it first.")
    return path
