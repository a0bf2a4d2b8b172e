"""Region features as LXMERT publishes them: tab-separated lines of base64."""

from __future__ import annotations

import binascii
from base64 import b64decode
from pathlib import Path
from typing import BinaryIO

import numpy as np

from xai_lib.datasets.regions.features import RegionFeatures, Regions, checked_regions
from xai_lib.errors import InputError

FIELDS = (
    "img_id",
    "img_h",
    "img_w",
    "objects_id",
    "objects_conf",
    "attrs_id",
    "attrs_conf",
    "num_boxes",
    "boxes",
    "features",
)
# All fields but the features of a few hundred regions; a line with more is read whole.
_HEAD = 1 << 14
_LONGEST = 1 << 28


class TsvRegions(RegionFeatures):
    """A file such as val2014_obj36.tsv (Tan and Bansal, EMNLP 2019): ten fields a line, no header.

    img_id, img_h, img_w, objects_id, objects_conf, attrs_id, attrs_conf, num_boxes, boxes and
    features; the last two are base64 of little-endian float32, (num_boxes, 4) in pixels and
    (num_boxes, dim). The detector's classes and attributes are not read. Opening reads the short
    fields and steps over the features, whose length follows from num_boxes, so that a file of 16 GB
    opens without being read. Raises InputError, with line and image, for lines of another form, an
    image that comes twice, and a last line that breaks off.
    """

    format = "tsv"

    def __init__(self, path: Path):
        self.path, self._places = path, {}
        self._dim: int | None = None
        size = path.stat().st_size
        start, number = 0, 1
        try:
            with path.open("rb") as file:
                while start < size:
                    end = self._step(file, start, number, size)
                    start, number = end, number + 1
        except OSError as error:
            raise InputError(f"Cannot read {str(path)!r}: {error.strerror or error}.") from error
        if not self._places:
            raise InputError(f"{str(path)!r} has no lines: expected {', '.join(FIELDS)}.")

    def _step(self, file: BinaryIO, start: int, number: int, size: int) -> int:
        """Remember the line that begins at `start`; return where the next one does."""
        file.seek(start)
        head = file.read(_HEAD)
        line, newline, _ = head.partition(b"\n")
        if newline or len(head) == size - start:
            end = start + len(line) + len(newline)
        else:
            line, end = head, None
        if not line.strip():
            return end if end is not None else size
        if end is None and (self._dim is None or line.count(b"\t") < len(FIELDS) - 1):
            file.seek(start)
            line = file.readline(_LONGEST)
            end = start + len(line)
            if len(line) == _LONGEST:
                raise InputError(f"Line {number} of {str(self.path)!r} has no end: is it a tsv?")
        fields = self._fields(line, number)
        if fields[0] == b"img_id":
            return end if end is not None else start + len(line)
        place = self._place(number, fields[0])
        count = self._number(fields[7], place, "num_boxes")
        if self._dim is None:
            self._dim = len(_decoded(fields[9], "features", place)) // (4 * count)
        else:
            # The features, 4 characters for 3 bytes, end the line.
            began = start + sum(map(len, fields[:-1])) + len(FIELDS) - 1
            due = began + 4 * -(-count * self._dim * 4 // 3)
            if end is None:
                file.seek(due)
                after = file.read(2)
                newline = 1 if after[:1] == b"\n" else 2 if after == b"\r\n" else 0
                end = due + newline
                if not newline and due != size:
                    file.seek(start)
                    end = start + len(file.readline(_LONGEST))
            if end >= size and size < due:
                raise InputError(
                    f"{place} breaks off after {size - began} of the {due - began} characters of "
                    "its features: the file is truncated. Fetch it again."
                )
        self._add(fields[0].decode("utf-8", "replace"), (start, end, number), place)
        return end

    def _fields(self, line: bytes, number: int) -> list[bytes]:
        fields = line.rstrip(b"\r\n").split(b"\t", len(FIELDS))
        if len(fields) != len(FIELDS):
            raise InputError(
                f"Line {number} of {str(self.path)!r} has {len(fields)} fields between tabs; "
                f"expected {len(FIELDS)}: {', '.join(FIELDS)}."
            )
        return fields

    def _place(self, number: int, name: bytes) -> str:
        image = name.decode("utf-8", "replace")
        return f"Line {number} of {str(self.path)!r}, image {image!r}"

    def _number(self, field: bytes, place: str, name: str) -> int:
        # Nothing in an image is counted in billions; a damaged number must not be sought out.
        if not field.isdigit() or len(field) > 9 or not int(field):
            raise InputError(
                f"{place}: its {name} is {field[:20].decode('utf-8', 'replace')!r}; expected a "
                "whole number from 1."
            )
        return int(field)

    def _read(self, key: str, place: tuple[int, int, int]) -> Regions:
        start, end, number = place
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                fields = self._fields(file.read(end - start), number)
        except OSError as error:
            raise InputError(f"Cannot read {str(self.path)!r}: {error}.") from error
        where = self._place(number, fields[0])
        size = [self._number(fields[i], where, FIELDS[i]) for i in (1, 2)]
        count = self._number(fields[7], where, "num_boxes")
        boxes = _array(fields[8], "boxes", count, 4, where)
        features = _array(fields[9], "features", count, None, where)
        if features.shape[1] != self._dim:
            raise InputError(
                f"{where}: its features are of {features.shape[1]} numbers, those of the first "
                f"line of {self._dim}: one of the two is damaged or truncated."
            )
        return checked_regions(features, boxes, np.array(size), where)

    def _size(self, key: str, place: tuple[int, int, int]) -> int:
        return place[1] - place[0]


def _decoded(field: bytes, name: str, place: str) -> bytes:
    try:
        return b64decode(field, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(
            f"{place}: its {name} are no base64 ({error}): the line is damaged or truncated."
        ) from error


def _array(field: bytes, name: str, rows: int, columns: int | None, place: str) -> np.ndarray:
    data = _decoded(field, name, place)
    if not data or len(data) % (4 * rows * (columns or 1)) or (columns and len(data) != 16 * rows):
        wanted = f"{rows} x {columns or 'dim'}"
        raise InputError(
            f"{place}: its {name} are {len(data)} bytes; expected {wanted} float32, as num_boxes "
            f"is {rows}."
        )
    return np.frombuffer(data, "<f4").reshape(rows, -1)
