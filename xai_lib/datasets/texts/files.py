"""Text files as bytes become texts: their encoding, one file a document, folders of classes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from xai_lib.datasets.base import TextDataset, TextSample
from xai_lib.datasets.fingerprints import of_files
from xai_lib.errors import InputError

_BOM = b"\xef\xbb\xbf"


def decode(data: bytes, place: str, encoding: str = "utf-8", offset: int = 0) -> str:
    """Return the text of `data`, without a byte order mark and with "\\n" for every line's end.

    place: what to call it in an error, which names the first byte that is not `encoding`, counted
    from the start of the file, in which `data` begins at `offset`.
    """
    if encoding == "utf-8" and not offset:
        data = data.removeprefix(_BOM)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{place} is not {encoding.upper()}: byte {data[error.start]:#04x} at position "
            f"{offset + error.start}. Save it as {encoding.upper()} and try again."
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """Return the text of a file; raise InputError if it cannot be read or has no words."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read {str(path)!r}: {error.strerror or error}.") from error
    text = decode(data, repr(str(path)), encoding)
    if not text.strip():
        raise InputError(f"The file {str(path)!r} is empty: it has no words.")
    return text


def has_words(text: str, place: str) -> str:
    """Return `text`; raise InputError if it is nothing but white space."""
    if not text.strip():
        raise InputError(f"{place} has no text. Take it away, or fill it in.")
    return text


class TextFiles(TextDataset):
    """Files of one document each below `root`, read one by one; the key is the file's name.

    files: relative, with "/". prepare: what to do with each text, such as stripping its header.
    """

    def __init__(
        self,
        name: str,
        root: Path,
        files: Sequence[str],
        labels: Sequence[int],
        class_names: tuple[str, ...],
        encoding: str = "utf-8",
        prepare: Callable[[str], str] | None = None,
    ):
        self.name, self.root, self.class_names = name, root, class_names
        self._files, self._labels = tuple(files), np.asarray(labels, np.int32)
        self._encoding, self._prepare = encoding, prepare

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> TextSample:
        index = range(len(self))[index]
        path = self.root / self._files[index]
        text = read_text(path, self._encoding)
        if self._prepare is not None:
            text = has_words(self._prepare(text), repr(str(path)))
        return TextSample(self._files[index], text, label=int(self._labels[index]))

    def fingerprint(self) -> dict[str, str | int]:
        """Return number, total size and the digest of all names, sizes and labels."""
        return of_files(self.name, self.root, self._files, self._labels)


def class_files(root: Path, folders: Sequence[str]) -> tuple[list[str], list[int]]:
    """Return the files of each class folder, by name, and the folder's place in `folders`.

    Raises InputError for a class folder that is absent or empty.
    """
    files, labels = [], []
    for label, folder in enumerate(folders):
        where = root / folder
        if not where.is_dir():
            raise InputError(
                f"{str(root)!r} has no folder {folder!r}: expected one of each of "
                f"{', '.join(folders)}."
            )
        with os.scandir(where) as entries:
            found = [e.name for e in entries if e.is_file() and not e.name.startswith(".")]
        if not found:
            raise InputError(f"The class folder {str(where)!r} is empty.")
        # Most are numbers: 9 comes before 10.
        found.sort(key=lambda name: (len(name), name))
        files += [f"{folder}/{name}" for name in found]
        labels += [label] * len(found)
    return files, labels
