"""The registry of data sets: one is a function with `@dataset("name")` in any file of this room."""

from __future__ import annotations

import os
import pkgutil
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from xai_lib.datasets.base import Dataset
from xai_lib.datasets.missing import Source
from xai_lib.errors import OptionError

# What may be said beside a name: NAME:PLACE, NAME#SPLIT, and the options path= and revision=.
PLACE, SPLIT, PATH, REVISION = "place", "split", "path", "revision"
UNSEEN = "generated, seed never trained on"
_SPLIT = re.compile(r"(?P<rest>.*)#(?P<split>[A-Za-z]+)")
_WORDS = {"dev": "validation", "valid": "validation", "val": "validation", "training": "train"}


@dataclass(frozen=True)
class Entry:
    """A data set that can be opened by its name, and what `datasets_table` says of it.

    takes: of PLACE, SPLIT, PATH and REVISION. form: how it is written where its name alone opens
    nothing, such as "csv:PATH". source: where a user gets it, None where there is nothing to get.
    is_here: whether it can be opened now; None where that depends on the place.
    """

    name: str
    open: Callable[[Asked], Dataset]
    modality: str
    samples: int | str
    labels: str
    evidence: str
    origin: str
    takes: tuple[str, ...]
    form: str
    source: Source | None
    is_here: Callable[[], bool | None]


@dataclass(frozen=True)
class Asked:
    """What is asked for: the name as it was written, its parts, and the options of `open_dataset`.

    place: what stands behind the colon. split: what stands behind "#", in one of several spellings.
    """

    text: str
    entry: Entry
    place: str | None = None
    split: str | None = None
    path: str | os.PathLike | None = None
    revision: str | None = None

    def locate(self) -> Path:
        """Return where a set with a source lies; MissingDataError where it is not there.

        Raises OptionError where both the name and path= say where it is.
        """
        if self.place is not None and self.path is not None:
            raise OptionError(
                f"{self.text!r} and path={os.fspath(self.path)!r} both say where it is."
            )
        return self.entry.source.locate(self.place or self.path)

    @property
    def chosen_split(self) -> str | None:
        """The split that was named, else the one that the papers report on."""
        return self.split or self.entry.source.split


_ENTRIES: dict[str, Entry] = {}


def dataset(
    name: str,
    *,
    modality: str,
    samples: int | str = "any",
    labels: str = "yes",
    evidence: str = "no",
    origin: str = "",
    takes: tuple[str, ...] = (),
    form: str = "",
    source: Source | None = None,
    is_here: Callable[[], bool | None] | None = None,
) -> Callable[[Callable[[Asked], Dataset]], Callable[[Asked], Dataset]]:
    """Register a function from what is asked for to a data set, as the data set `name`.

    modality: "image", "text" or "question". evidence: what says where a label's evidence lies,
    such as "masks". origin: where it comes from, for people. The rest is as `Entry` has it; samples
    and origin of a set with a source are the source's. Raises OptionError for a name that another
    module has taken.
    """

    def register(opener: Callable[[Asked], Dataset]) -> Callable[[Asked], Dataset]:
        def here() -> bool | None:
            return source.is_here() if source else None if form else True

        taken = _ENTRIES.get(name)
        if taken is not None and taken.open.__module__ != opener.__module__:
            raise OptionError(
                f"{taken.open.__module__} has a data set {name!r} already; choose another name."
            )
        _ENTRIES[name] = Entry(
            name=name,
            open=opener,
            modality=modality,
            samples=source.samples if source else samples,
            labels=labels,
            evidence=evidence,
            origin=source.told() if source else origin,
            takes=takes,
            form=form or name,
            source=source,
            is_here=is_here or here,
        )
        return opener

    return register


def entries() -> dict[str, Entry]:
    """Return all data sets by name: embedded ones, those to be brought, forms of one's own.

    The first call imports every module of this room; what these need to read files, they import
    when they open one.
    """
    room = __package__
    for module in pkgutil.walk_packages(import_module(room).__path__, f"{room}."):
        import_module(module.name)
    kinds = ("image", "text", "question")

    def order(entry: Entry) -> tuple[int, int]:
        kind = 2 if entry.form != entry.name else int(entry.source is not None)
        return kind, kinds.index(entry.modality) if entry.modality in kinds else len(kinds)

    return {entry.name: entry for entry in sorted(_ENTRIES.values(), key=order)}


def parse_name(
    text: str, path: str | os.PathLike | None = None, revision: str | None = None
) -> Asked | None:
    """Return what a name such as "sst2", "sst2:PLACE#train" or "csv:PLACE" asks for, or None.

    A "#" that belongs to the place is taken for it where a file of that whole name exists.
    """
    known = entries()
    kind, colon, place = text.partition(":")
    split = None
    named = place if colon else kind
    found = _SPLIT.fullmatch(named)
    if found and not (colon and Path(place).expanduser().exists()):
        entry = known.get(kind if colon else found["rest"])
        if entry is not None and SPLIT in entry.takes:
            named, split = found["rest"], _WORDS.get(found["split"], found["split"])
    entry = known.get(kind if colon else named)
    if entry is None or (colon and PLACE not in entry.takes):
        return None
    if entry.form != entry.name and not (colon and named):
        return None
    return Asked(text, entry, named if colon else None, split, path, revision)


def no_split(name: str, split: str, known: Iterable[str]) -> OptionError:
    """Return the error for a split that a data set does not have."""
    return OptionError(f"{name!r} has no split {split!r}. It has: {', '.join(known)}.")
