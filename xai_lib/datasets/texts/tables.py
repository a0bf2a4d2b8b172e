"""Tables of texts: rows found on opening, parsed when they are asked for."""

from __future__ import annotations

import csv
from pathlib import Path

from xai_lib.datasets.base import TextDataset, TextSample
from xai_lib.datasets.fingerprints import stated
from xai_lib.datasets.texts.files import has_words
from xai_lib.datasets.texts.records import Records, first_record
from xai_lib.datasets.texts.sentiment_trees import read_tree
from xai_lib.datasets.texts.table_layouts import TASKS, Layout
from xai_lib.errors import InputError, OptionError

# Folders that the archives of these sets unpack to, beside the place itself.
_INSIDE = (
    ".",
    "trees",
    "SST-2",
    "QNLI",
    "MRPC",
    "yelp_review_polarity_csv",
    "yelp_review_full_csv",
)
_LONGEST_FIELD = 2**24


class TextTable(TextDataset):
    """One file of a table; the key is the row's number.

    Opening reads the file once, to find its rows and check its encoding and header; the number of
    columns and the label of a row are checked when it is asked for.
    """

    def __init__(self, name: str, path: Path, layouts: tuple[Layout, ...], class_names):
        self.name, self.class_names = name, class_names
        self._layout, self._records = _recognise(path, layouts)
        self.has_labels = self._layout.labels is not None
        first = 0 if self._layout.header is None else 1
        self._rows = range(first, len(self._records))
        if not self._rows:
            raise InputError(f"{str(path)!r} has a header but no rows.")
        if callable(self._layout.labels):
            # Here only the label says whether a row belongs to the set.
            kept = [row for row in self._rows if self._sample(row).label is not None]
            if not kept:
                raise InputError(f"{str(path)!r} has no row with a label of this task.")
            self._rows = kept

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> TextSample:
        return self._sample(self._rows[index])

    def fingerprint(self) -> dict[str, str | int]:
        """Return number of samples, size and sha256 of the file."""
        return stated(self.name, len(self), self._records.size, self._records.digest)

    def _sample(self, row: int) -> TextSample:
        layout, place = self._layout, self._records.place(row)
        values = parse(self._records[row], layout.form, place)
        if len(values) > len(layout.columns) and not any(values[len(layout.columns) :]):
            values = values[: len(layout.columns)]  # some files end their lines with a separator
        if len(values) != len(layout.columns):
            raise InputError(
                f"{place} has {len(values)} columns; expected {len(layout.columns)}: "
                f"{layout.described()}."
            )
        named = dict(zip(layout.columns, values, strict=True))
        for column in ("text", "pair"):
            if column in named:
                text = named[column].replace("\\n", "\n") if layout.newlines else named[column]
                named[column] = has_words(text, place)
        key = f"{row - (layout.header is not None):06d}"
        label = self._class(named["label"].strip(), place) if self.has_labels else None
        return TextSample(key, named["text"], named.get("pair"), label)

    def _class(self, label: str, place: str) -> int | None:
        labels = self._layout.labels
        try:
            return labels(label) if callable(labels) else labels[label]
        except (KeyError, ValueError) as error:
            known = "a rating from 0 to 1" if callable(labels) else f"one of {', '.join(labels)}"
            raise InputError(f"{place} has the label {label[:40]!r}; expected {known}.") from error


def open_table(name: str, task: str, place: Path, split: str, is_chosen: bool) -> TextTable:
    """Return the split of a known task in the folder `place`, or in the file `place`.

    is_chosen: somebody asked for this split, so a single file, of which no split is known, is an
    OptionError, as is a split without a file.
    """
    known = TASKS[task]
    if place.is_file():
        if is_chosen:
            raise OptionError(f"{name!r}: {str(place)!r} is one file; leave '#{split}' away.")
        return TextTable(name, place, known.layouts, known.class_names)
    for folder in _INSIDE:
        layouts = [
            layout
            for layout in known.layouts
            if split in layout.files and (place / folder / layout.files[split]).is_file()
        ]
        if layouts:
            path = place / folder / layouts[0].files[split]
            alike = tuple(x for x in layouts if x.files[split] == path.name)
            return TextTable(name, path, alike, known.class_names)
    every = {key: None for layout in known.layouts for key in layout.files}
    if split not in every:
        raise OptionError(f"{name!r} has no split {split!r}. It has: {', '.join(every)}.")
    names = dict.fromkeys(x.files[split] for x in known.layouts if split in x.files)
    raise InputError(
        f"{str(place)!r} has no file of the split {split!r}: expected {' or '.join(names)}"
        f"{', or the folder aclImdb' if task == 'imdb' else ''}."
    )


def parse(record: str, form: str, place: str) -> list[str]:
    """Return the columns of a record; raise InputError where it is not in its form."""
    if form == "tsv":
        return record.split("\t")
    if form == "tree":
        return list(read_tree(record, place))
    if form == "spaced":
        label, _, text = record.strip().partition(" ")
        return [text, label]
    # The module's own limit is 131,072 characters, which a long document exceeds.
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
    try:
        (row,) = csv.reader([record], strict=True)
    except (csv.Error, ValueError) as error:
        raise InputError(
            f"{place} is no row of a CSV file ({error}): a text with commas, quotes or line ends "
            'stands in double quotes, and a quote inside it is doubled ("").'
        ) from error
    return row


def _recognise(path: Path, layouts: tuple[Layout, ...]) -> tuple[Layout, Records]:
    """Return the first layout that the file's first record agrees with, and the records."""
    first = ""
    for layout in layouts:
        quoted = layout.form == "csv"
        first = first_record(path, quoted)
        if _agrees(first, layout, f"Line 1 of {str(path)!r}"):
            return layout, Records(path, quoted)
    described = "; or ".join(dict.fromkeys(layout.described() for layout in layouts))
    raise InputError(
        f"{str(path)!r} has other columns than its data set: expected {described}. It begins with "
        f"{first[:80]!r}."
    )


def _agrees(first: str, layout: Layout, place: str) -> bool:
    try:
        values = parse(first, layout.form, place)
    except InputError:
        return False
    if layout.header:
        return [value.strip().lower() for value in values] == [n.lower() for n in layout.header]
    if layout.header == () and _is_row(dict(zip(layout.columns, values, strict=False)), layout):
        return False  # taken for a header, it would be lost
    if layout.header is None and isinstance(layout.labels, dict):
        named = dict(zip(layout.columns, values, strict=False))
        return "text" in named and named["label"].strip() in layout.labels
    return len(values) == len(layout.columns)


def _is_row(named: dict[str, str], layout: Layout) -> bool:
    """Say whether a line is a sample: it has a label, and more text than a column's number."""
    labels, label = layout.labels, named.get("label", "").strip()
    try:
        labels(label) if callable(labels) else labels[label]
    except (KeyError, ValueError):
        return False
    return not named.get("text", "").strip().isdecimal()
