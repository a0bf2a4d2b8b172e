"""Texts of your own: a CSV file with named columns."""

from __future__ import annotations

import json
from pathlib import Path

from xai_lib.datasets.base import TextDataset, TextSample
from xai_lib.datasets.fingerprints import stated
from xai_lib.datasets.texts.files import has_words
from xai_lib.datasets.texts.records import Records
from xai_lib.datasets.texts.tables import parse
from xai_lib.errors import InputError, MissingDataError

COLUMNS = ("text", "label", "pair", "rationale", "id")
_EXPECTED = "text[,label][,pair][,rationale][,id]"


class CsvTexts(TextDataset):
    """A UTF-8 CSV file with the header text[,label][,pair][,rationale][,id], in any order.

    label: class indices from 0, or names, which are then the classes in the order of the alphabet;
    empty where unknown. pair: the second text. rationale: a JSON list of [start, end] spans of the
    text's characters, end exclusive, such as [[0, 4], [10, 12]], where a line's end is one
    character, also if it is CR LF in the file; empty where unknown. id: the sample's key, else the
    row's number. Opening parses every row once, for its label and id.
    """

    def __init__(self, name: str, path: Path):
        self.name = name
        if not path.is_file():
            raise MissingDataError(
                f"There is no file {str(path)!r}: give 'csv:PATH' with the header {_EXPECTED}."
            )
        self._records = Records(path, quoted=True)
        header = [c.strip() for c in parse(self._records[0], "csv", self._records.place(0))]
        known = set(header) <= set(COLUMNS) and len(set(header)) == len(header)
        if "text" not in header or not known:
            raise InputError(
                f"{str(path)!r} has the columns {', '.join(map(repr, header))}; expected a header "
                f"with {_EXPECTED}, between commas."
            )
        if len(self._records) < 2:
            raise InputError(f"{str(path)!r} has a header but no rows.")
        self._header = tuple(header)
        self.has_labels, self.has_rationales = "label" in header, "rationale" in header
        labels, ids = set(), {}
        for row in range(1, len(self._records)):
            values, place = self._values(row)
            labels.add(values.get("label", "").strip())
            key = values.get("id")
            if key in ids and key is not None:
                raise InputError(f"{place} has the id {key!r}, which {ids[key]} has already.")
            ids[key] = place
        labels.discard("")
        self._classes = None
        if not all(label.isdecimal() for label in labels):
            self.class_names = tuple(sorted(labels))
            self._classes = {label: number for number, label in enumerate(self.class_names)}

    def __len__(self) -> int:
        return len(self._records) - 1

    def __getitem__(self, index: int) -> TextSample:
        index = range(len(self))[index]
        values, place = self._values(index + 1)
        text, label = has_words(values["text"], place), values.get("label", "").strip()
        number = None
        if label:
            number = self._classes[label] if self._classes else int(label)
        stated = values.get("rationale", "").strip()
        return TextSample(
            values.get("id", f"{index:06d}"),
            text,
            values.get("pair") or None,
            number,
            _spans(stated, text, place) if stated else None,
        )

    def fingerprint(self) -> dict[str, str | int]:
        """Return number of samples, size and sha256 of the file."""
        return stated(self.name, len(self), self._records.size, self._records.digest)

    def _values(self, row: int) -> tuple[dict[str, str], str]:
        place = self._records.place(row)
        values = parse(self._records[row], "csv", place)
        if len(values) != len(self._header):
            raise InputError(
                f"{place} has {len(values)} columns; expected {len(self._header)}: "
                f"{','.join(self._header)}."
            )
        return dict(zip(self._header, values, strict=True)), place


def _spans(stated: str, text: str, place: str) -> tuple[tuple[int, int], ...]:
    try:
        spans = tuple(sorted((start, end) for start, end in json.loads(stated)))
        is_right = all(type(end) is int for span in spans for end in span)
    except (ValueError, TypeError, RecursionError):
        is_right = False
    if not is_right:
        raise InputError(
            f"{place} has the rationale {stated[:60]!r}; expected a list of [start, end] such as "
            "[[0, 4], [10, 12]]."
        )
    last = 0
    for start, end in spans:
        if not last <= start < end <= len(text):
            raise InputError(
                f"{place}: the span {start} to {end} of its rationale overlaps another, is empty "
                f"or lies outside its text, which has {len(text)} characters."
            )
        last = end
    return spans
