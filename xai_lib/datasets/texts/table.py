"""Tables of texts: rows found on opening, parsed when they are asked for."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from xai_lib.datasets.base import TextDataset, TextSample
from xai_lib.datasets.fingerprints import stated
from xai_lib.datasets.texts.files import has_words
from xai_lib.datasets.texts.records import Records
from xai_lib.datasets.texts.sentiment_trees import read_tree
from xai_lib.errors import InputError

_LONGEST_FIELD = 2**24
Labels = Mapping[str, int | None] | Callable[[str], int | None]


@dataclass(frozen=True)
class Layout:
    """One form of table.

    files: by split. columns: what each is, of "text", "pair", "label", "rationale" and "id", and
    any other name for what is left alone. header: its first line, None for none, () for one whose
    names differ between copies. form: "tsv" (nothing is quoted), "csv" (RFC 4180), "tree" (one a
    line) or "spaced" (the label, a space and the text). labels: the class of each label, or a
    function of it; None leaves the row out. newlines: the two characters backslash and n stand for
    a line's end.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    columns: tuple[str, ...] = ("text", "label")
    header: tuple[str, ...] | None = None
    form: str = "tsv"
    labels: Labels | None = None
    newlines: bool = False

    @property
    def quoted(self) -> bool:
        """Whether a line's end within double quotes does not end a row."""
        return self.form == "csv"

    def described(self) -> str:
        """Return what a file of this layout looks like, for an error."""
        if self.form == "tree":
            return "one tree a line, as '(3 (2 It) (4 works))'"
        if self.form == "spaced":
            return "a label, a space and the text in each line"
        mark = "tabs" if self.form == "tsv" else "commas"
        names = self.header or [column or "..." for column in self.columns]
        head = "without a header" if self.header is None else "with a header"
        return f"{' | '.join(names)} between {mark}, {head}"

    def parse(self, record: str, place: str) -> list[str]:
        """Return the columns of a record; raise InputError where it is not in this form."""
        if self.form == "tsv":
            return record.split("\t")
        if self.form == "tree":
            return list(read_tree(record, place))
        if self.form == "spaced":
            label, _, text = record.strip().partition(" ")
            return [text, label]
        # The module's own limit is 131,072 characters, which a long document exceeds.
        csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
        try:
            (row,) = csv.reader([record], strict=True)
        except (csv.Error, ValueError) as error:
            raise InputError(
                f"{place} is no row of a CSV file ({error}): a text with commas, quotes or line "
                'ends stands in double quotes, and a quote inside it is doubled ("").'
            ) from error
        return row

    def class_of(self, label: str) -> int | None:
        """Return the class of a label; raise KeyError or ValueError for one that is none."""
        return self.labels(label) if callable(self.labels) else self.labels[label]

    def fits(self, first: str) -> bool:
        """Say whether a file of this layout can begin with this record."""
        try:
            values = self.parse(first, "")
        except InputError:
            return False
        if self.header:
            return [value.strip().lower() for value in values] == [n.lower() for n in self.header]
        named = dict(zip(self.columns, values, strict=False))
        if self.header is None and isinstance(self.labels, Mapping):
            return "text" in named and self._knows(named)
        # A first row that is a sample, taken for a header, would be lost.
        is_row = self._knows(named) and not named.get("text", "").strip().isdecimal()
        return len(values) == len(self.columns) and not (self.header == () and is_row)

    def _knows(self, named: Mapping[str, str]) -> bool:
        try:
            self.class_of(named.get("label", "").strip())
        except (KeyError, ValueError):
            return False
        return True


class Table(TextDataset):
    """One file of a table; the key is the row's number.

    Opening reads the file once, to find its rows and check its encoding; the number of columns and
    the label of a row are checked when it is asked for. Where the labels are a function, rows of
    which it makes None are no samples: then every row is read on opening.
    """

    def __init__(
        self, name: str, records: Records, layout: Layout, class_names: tuple[str, ...] | None
    ):
        self.name, self.class_names, self.layout = name, class_names, layout
        self.records = records
        self.has_labels = layout.labels is not None
        self._rows = range(layout.header is not None, len(records))
        if not self._rows:
            raise InputError(f"{str(records.path)!r} has a header but no rows.")
        if callable(layout.labels):
            self._rows = [row for row in self._rows if self._sample(row).label is not None]
            if not self._rows:
                raise InputError(f"{str(records.path)!r} has no row with a label of this task.")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> TextSample:
        return self._sample(self._rows[index])

    def fingerprint(self) -> dict[str, str | int]:
        """Return number of samples, size and sha256 of the file."""
        return stated(self.name, len(self), self.records.size, self.records.digest)

    def _sample(self, row: int) -> TextSample:
        named, place = self._values(row)
        for column in ("text", "pair"):
            if column in named:
                text = named[column].replace("\\n", "\n") if self.layout.newlines else named[column]
                named[column] = has_words(text, place)
        return TextSample(
            self._key(row), named["text"], named.get("pair"), self._class(named, place)
        )

    def _key(self, row: int) -> str:
        return f"{row - (self.layout.header is not None):06d}"

    def _values(self, row: int) -> tuple[dict[str, str], str]:
        """Return what stands in each column of a row, and what to call the row in an error."""
        columns, place = self.layout.columns, self.records.place(row)
        values = self.layout.parse(self.records[row], place)
        if len(values) > len(columns) and not any(values[len(columns) :]):
            values = values[: len(columns)]  # some files end their lines with a separator
        if len(values) != len(columns):
            raise InputError(
                f"{place} has {len(values)} columns; expected {len(columns)}: "
                f"{self.layout.described()}."
            )
        return dict(zip(columns, values, strict=True)), place

    def _class(self, named: Mapping[str, str], place: str) -> int | None:
        if not self.has_labels:
            return None
        label, labels = named["label"].strip(), self.layout.labels
        try:
            return self.layout.class_of(label)
        except (KeyError, ValueError) as error:
            known = "a rating from 0 to 1" if callable(labels) else f"one of {', '.join(labels)}"
            raise InputError(f"{place} has the label {label[:40]!r}; expected {known}.") from error
