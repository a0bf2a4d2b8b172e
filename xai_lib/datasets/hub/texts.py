"""Text-classification sets of the Hugging Face hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xai_lib.datasets.base import TextDataset, TextSample
from xai_lib.datasets.hub.rows import HubRows, is_value, label_column
from xai_lib.datasets.texts.eraser import Annotation, find_evidence, rationale_of
from xai_lib.errors import InputError

if TYPE_CHECKING:
    from datasets import Features

# What sets of the hub call their texts, the usual names first.
PAIRS = (
    ("question", "sentence"),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
)
TEXTS = ("text", "sentence", "review", "content", "document", "tweet", "comment")
_EVIDENCES = "evidences"


class HubTexts(TextDataset):
    """The texts of parquet files, of one split.

    The texts are the two columns of a pair in `PAIRS`, else the first of `TEXTS`, else the only
    column of strings. The label is the first ClassLabel, else an integer column "label" (named by a
    column "label_text" where there is one), else a column "label" of strings, whose values in order
    are the classes; -1 or null means None. A column "evidences" of strings, as the ERASER movie
    reviews have, makes the rationale.
    """

    def __init__(self, name: str, rows: HubRows):
        self.name, self._rows = name, rows
        self._texts = text_columns(name, rows.features)
        self._label, self.class_names = label_column(rows.features)
        self._by_name: dict[str, int] = {}
        if self._label is None and is_value(rows.features.get("label"), "string", "large_string"):
            self._label = "label"
            self.class_names = tuple(label for (label,) in rows.distinct("label"))
            self._by_name = {label: number for number, label in enumerate(self.class_names)}
        elif self._label and self.class_names is None:
            self.class_names = _named(rows, self._label)
        self.has_labels = self._label is not None
        feature = getattr(rows.features.get(_EVIDENCES), "feature", None)
        self.has_rationales = is_value(feature, "string", "large_string")
        more = (self._label,) if self.has_labels else ()
        more += (_EVIDENCES,) if self.has_rationales else ()
        self._columns = (*self._texts, *more)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> TextSample:
        index = range(len(self))[index]
        row = self._rows.row(index, self._columns)
        for column in self._texts:
            if not (row[column] or "").strip():
                raise InputError(f"Sample {index} of {self.name} has no text in {column!r}.")
        texts = [row[column] for column in self._texts]
        rationale = None
        if self.has_rationales:
            rationale = rationale_of(self._annotation(index, row), texts[0])
        return TextSample(f"{index:06d}", *texts, label=self._number(row), rationale=rationale)

    def annotation(self, index: int) -> Annotation:
        """Return what ERASER's scorer needs to know; raise InputError where no evidence is."""
        if not self.has_rationales:
            raise InputError(f"{self.name} has no column {_EVIDENCES!r}, so there is no evidence.")
        index = range(len(self))[index]
        return self._annotation(index, self._rows.row(index, self._columns))

    def fingerprint(self) -> dict[str, str | int]:
        """Return number, total size and the digest of all names and parquet footers."""
        return self._rows.fingerprint()

    def _number(self, row: dict) -> int | None:
        label = row[self._label] if self.has_labels else None
        if label is None or self._by_name:
            return self._by_name.get(label)
        return label if label >= 0 else None

    def _annotation(self, index: int, row: dict) -> Annotation:
        key, number = f"{index:06d}", self._number(row)
        found = find_evidence(key, row[self._texts[0]], row[_EVIDENCES] or ())
        label = str(number) if number is not None else ""
        if number is not None and self.class_names:
            label = self.class_names[number]
        return Annotation(key, key, label, tuple((evidence,) for evidence in found))


def text_columns(name: str, features: Features) -> tuple[str, ...]:
    """Return the one or two columns of texts; raise InputError where that is not plain."""
    strings = [key for key, kind in features.items() if is_value(kind, "string", "large_string")]
    for pair in PAIRS:
        if set(pair) <= set(strings):
            return pair
    named = [key for key in TEXTS if key in strings]
    others = [key for key in strings if key not in ("label", "label_text")]
    if not named and len(others) != 1:
        known = ", ".join(["+".join(pair) for pair in PAIRS] + list(TEXTS))
        raise InputError(
            f"{name!r} has no image column, and its text is not plain: its columns are "
            f"{', '.join(map(repr, features))}. Expected one column of strings, or: {known}."
        )
    return ((named or others)[0],)


def _named(rows: HubRows, label: str) -> tuple[str, ...] | None:
    """Return the classes' names as a column "label_text" gives them for 0, 1, ..., or None."""
    if not is_value(rows.features.get("label_text"), "string", "large_string"):
        return None
    found = [row for row in rows.distinct(label, "label_text") if row[0] >= 0]
    is_plain = [number for number, _ in found] == list(range(len(found)))
    return tuple(text for _, text in found) if is_plain else None
