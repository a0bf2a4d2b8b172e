"""Texts of your own: a CSV file with named columns."""

from __future__ import annotations

import json
from pathlib import Path

from xai_lib.datasets.base import TextSample
from xai_lib.datasets.registry import PLACE, SPLIT, Asked, dataset
from xai_lib.datasets.texts.files import has_words
from xai_lib.datasets.texts.records import Records
from xai_lib.datasets.texts.table import Layout, Table
from xai_lib.errors import InputError, MissingDataError, OptionError

COLUMNS = ("text", "label", "pair", "rationale", "id")
_EXPECTED = "text[,label][,pair][,rationale][,id]"


class CsvTexts(Table):
    """A UTF-8 CSV file with the header text[,label][,pair][,rationale][,id], in any order.

    label: class indices from 0, or names, which are then the classes in the order of the alphabet;
    empty where unknown. pair: the second text. rationale: a JSON list of [start, end] spans of the
    text's characters, end exclusive, such as [[0, 4], [10, 12]], where a line's end is one
    character, also if it is CR LF in the file; empty where unknown. id: the sample's key, else the
    row's number. Opening parses every row once, for its label and id.
    """

    def __init__(self, name: str, path: Path):
        if not path.is_file():
            raise MissingDataError(
                f"There is no file {str(path)!r}: give 'csv:PATH' with the header {_EXPECTED}."
            )
        records = Records(path, quoted=True)
        first = Layout(form="csv").parse(records[0], records.place(0))
        header = tuple(column.strip() for column in first)
        known = set(header) <= set(COLUMNS) and len(set(header)) == len(header)
        if "text" not in header or not known:
            raise InputError(
                f"{str(path)!r} has the columns {', '.join(map(repr, header))}; expected a header "
                f"with {_EXPECTED}, between commas."
            )
        super().__init__(name, records, Layout({}, header, header, "csv"), None)
        labels = self._read_all()
        if all(label.isdecimal() for label in labels):
            numbers = {label: int(label) for label in labels}
        else:
            self.class_names = tuple(sorted(labels))
            numbers = {label: number for number, label in enumerate(self.class_names)}
        self.has_labels, self.has_rationales = "label" in header, "rationale" in header
        self.layout = Layout({}, header, header, "csv", numbers | {"": None})

    def _read_all(self) -> set[str]:
        """Return the labels that stand in the file; raise InputError for an id that comes twice."""
        labels, ids = set(), {}
        for row in self._rows:
            values, place = self._values(row)
            labels.add(values.get("label", "").strip())
            key = values.get("id")
            if key in ids and key is not None:
                raise InputError(f"{place} has the id {key!r}, which {ids[key]} has already.")
            ids[key] = place
        return labels - {""}

    def _sample(self, row: int) -> TextSample:
        values, place = self._values(row)
        text, told = has_words(values["text"], place), values.get("rationale", "").strip()
        return TextSample(
            values.get("id", self._key(row)),
            text,
            values.get("pair") or None,
            self._class(values, place),
            _spans(told, text, place) if told else None,
        )


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


@dataset(
    "csv",
    modality="text",
    labels="by column",
    evidence="by column",
    origin="your own texts",
    takes=(PLACE, SPLIT),
    form="csv:PATH",
)
def open_csv(asked: Asked) -> CsvTexts:
    """Return the texts of the file that the name gives."""
    if asked.split is not None:
        raise OptionError(f"{asked.text!r}: a CSV file has no splits; leave '#{asked.split}' away.")
    return CsvTexts(asked.text, Path(asked.place).expanduser())
