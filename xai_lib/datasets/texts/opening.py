"""Names of text data sets that lie in files, and opening them."""

from __future__ import annotations

import os
import re
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from xai_lib.datasets.base import TextDataset
from xai_lib.datasets.texts.sources import TEXT_SOURCES
from xai_lib.errors import InputError, MissingDataError, OptionError

# Forms that have no data of their own: they need a path.
OWN_FORMS = ("eraser", "csv")
_SPLIT = re.compile(r"(?P<rest>.*)#(?P<split>[A-Za-z]+)")
_WORDS = {"dev": "validation", "valid": "validation", "val": "validation", "training": "train"}


@dataclass(frozen=True)
class TextName:
    """A name such as "sst2", "sst2#train", "sst2:PATH#train" or "csv:PATH"."""

    kind: str
    place: str | None = None
    split: str | None = None

    @classmethod
    def parse(cls, name: str, sources: Container[str] = TEXT_SOURCES) -> TextName | None:
        """Return the parts, or None if it is not the name of a text data set that lies in files.

        sources: the names that stand for themselves, with or without a place and a split.

        A "#" that belongs to the path is taken for it where a file of that whole name exists.
        """
        kind, colon, rest = name.partition(":")
        split = None
        text = rest if colon else kind
        found = _SPLIT.fullmatch(text)
        if found and not (colon and Path(rest).expanduser().exists()):
            text, split = found["rest"], _WORDS.get(found["split"], found["split"])
        kind = kind if colon else text
        if kind not in sources and not (kind in OWN_FORMS and text and colon):
            return None
        return cls(kind, text if colon else None, split)


def open_text_set(text: str, name: TextName, path: str | os.PathLike | None = None) -> TextDataset:
    """Return the data set that is called `text`, whose parts are `name`.

    Raises OptionError for a place that is given twice and for an unknown split, MissingDataError
    for data that is not there, InputError for data that is damaged as far as opening can see.
    """
    if name.place is not None and path is not None:
        raise OptionError(f"{text!r} and path={os.fspath(path)!r} both say where it is.")
    if name.kind == "csv":
        from xai_lib.datasets.texts.csv import CsvTexts

        if name.split is not None:
            raise OptionError(f"{text!r}: a CSV file has no splits; leave '#{name.split}' away.")
        return CsvTexts(text, Path(name.place).expanduser())
    if name.kind == "eraser":
        place = Path(name.place).expanduser()
        if not place.is_dir():
            raise MissingDataError(
                f"There is no folder {str(place)!r}: give 'eraser:PATH' with docs/ or docs.jsonl "
                "and train.jsonl, val.jsonl or test.jsonl."
            )
        return _open_eraser(text, "eraser", place, name.split or "test")
    source = TEXT_SOURCES[name.kind]
    place = source.locate(name.place or path)
    split = name.split or source.split
    if name.kind == "movies":
        return _open_eraser(text, "movies", place, split)
    if name.kind == "20newsgroups":
        from xai_lib.datasets.texts.newsgroups import open_newsgroups

        return open_newsgroups(text, place, split)
    if name.kind == "imdb":
        from xai_lib.datasets.texts.imdb import find_imdb, open_imdb

        root = find_imdb(place)
        if root is not None:
            return open_imdb(text, root, split)
    from xai_lib.datasets.texts.tables import open_table

    return open_table(text, name.kind, place, split, name.split is not None)


def _open_eraser(text: str, kind: str, place: Path, split: str) -> TextDataset:
    from xai_lib.datasets.texts.eraser import MOVIE_CLASSES, EraserTexts

    if not place.is_dir():
        raise InputError(f"{str(place)!r} is no folder: extract the archive, and give its folder.")
    # The archive holds one folder of this name.
    inner = place / kind
    root = inner if (inner / "test.jsonl").is_file() else place
    return EraserTexts(text, root, split, MOVIE_CLASSES if kind == "movies" else None)
