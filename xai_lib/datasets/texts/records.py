"""Records of a large text file, found once and read one by one: lines, or quoted CSV rows."""

from __future__ import annotations

import hashlib
from array import array
from pathlib import Path

import numpy as np

from xai_lib.datasets.texts.files import decode
from xai_lib.errors import InputError


class Records:
    """Where each record of a UTF-8 file begins and ends; records of white space are left out.

    quoted: a line's end inside double quotes does not end the record (RFC 4180). What stays in
    memory is three numbers a record. Raises InputError for an empty file, one that is not UTF-8 (by
    name and byte) and one whose last quote does not close.
    """

    def __init__(self, path: Path, quoted: bool = False):
        self.path = path
        # Flat numbers: a list of tuples would take the larger part of a large file's memory.
        digest, found = hashlib.sha256(), array("q")
        start = end = 0
        first = 1
        is_open, blank = False, True
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    digest.update(line)
                    decode(line, repr(str(path)), offset=end)
                    end += len(line)
                    blank = blank and not line.strip()
                    if quoted and line.count(b'"') % 2:
                        is_open = not is_open
                    if not is_open:
                        if not blank:
                            found.extend((start, end, first))
                        start, first, blank = end, number + 1, True
        except OSError as error:
            raise InputError(f"Cannot read {str(path)!r}: {error.strerror or error}.") from error
        self._found = np.array(found, np.int64).reshape(-1, 3)
        self.size, self.digest = end, digest.hexdigest()
        if is_open:
            raise InputError(
                f"The double quote that opens in line {first} of {str(path)!r} or after it "
                "never closes: the file is truncated, or a quote inside a quoted text is "
                "not doubled."
            )
        if not found:
            raise InputError(f"The file {str(path)!r} is empty.")

    def __len__(self) -> int:
        return len(self._found)

    def __getitem__(self, index: int) -> str:
        start, end, _ = self._found[index].tolist()
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                data = file.read(end - start)
        except OSError as error:
            raise InputError(f"Cannot read {self.place(index)}: {error}.") from error
        return decode(data, self.place(index), offset=start).removesuffix("\n")

    def place(self, index: int) -> str:
        """Return what to call a record in an error: the line where it begins, and its file."""
        return f"Line {self._found[index, 2]} of {str(self.path)!r}"


def first_record(path: Path, quoted: bool = False) -> str:
    """Return the first record of a file, without reading on; raise InputError as `Records` does."""
    data = b""
    try:
        with path.open("rb") as file:
            for line in file:
                data += line
                if data.strip() and not (quoted and data.count(b'"') % 2):
                    break
    except OSError as error:
        raise InputError(f"Cannot read {str(path)!r}: {error.strerror or error}.") from error
    if not data.strip():
        raise InputError(f"The file {str(path)!r} is empty.")
    return decode(data, repr(str(path))).strip("\n")
