"""IMDb reviews (Maas et al., ACL 2011) as they are published: aclImdb/SPLIT/pos/ID_RATING.txt."""

from __future__ import annotations

from pathlib import Path

from xai_lib.datasets.missing import Source
from xai_lib.datasets.registry import PATH, PLACE, SPLIT, Asked, dataset, no_split
from xai_lib.datasets.texts.files import TextFiles, class_files
from xai_lib.datasets.texts.published import NEGATIVE_POSITIVE, Published, open_table, wu_ong
from xai_lib.datasets.texts.table import Table
from xai_lib.errors import InputError

IMDB = Published(
    Source(
        "imdb",
        "IMDb reviews: Maas et al., ACL 2011",
        "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
        25_000,
        "test",
    ),
    NEGATIVE_POSITIVE,
    (wu_ong("IMDb", {"0": 0, "1": 1}),),
)
_FOLDERS = ("neg", "pos")
_SPLITS = ("train", "test")


def find_imdb(place: Path) -> Path | None:
    """Return the folder that has the reviews' folders train and test, or None."""
    for folder in (place, place / "aclImdb"):
        if any((folder / split / label).is_dir() for split in _SPLITS for label in _FOLDERS):
            return folder
    return None


def open_imdb(name: str, root: Path, split: str) -> TextFiles:
    """Return the reviews of a split, negative ones first; "<br />" stays in them as published.

    The unlabelled reviews (unsup) are left out. Raises InputError for a file that is not named
    ID_RATING.txt, or whose rating contradicts its folder (negative: 1 to 4, positive: 7 to 10).
    """
    if split not in _SPLITS:
        raise no_split(name, split, _SPLITS)
    folder = root / split
    files, labels = class_files(folder, _FOLDERS)
    for file, label in zip(files, labels, strict=True):
        stem, _, rating = file.rpartition("/")[2].removesuffix(".txt").partition("_")
        right = range(7, 11) if label else range(1, 5)
        if not (stem.isdigit() and rating.isdigit() and int(rating) in right):
            raise InputError(
                f"{str(folder / file)!r} is not named ID_RATING.txt with a rating of "
                f"{right[0]} to {right[-1]}, as the reviews of its folder are."
            )
    return TextFiles(name, folder, files, labels, IMDB.class_names)


@dataset("imdb", modality="text", takes=(PLACE, SPLIT, PATH), source=IMDB.source)
def open_here(asked: Asked) -> TextFiles | Table:
    """Return the reviews as published, or the table of them that Wu and Ong's code reads."""
    root = find_imdb(asked.locate())
    if root is None:
        return open_table(asked, IMDB, ", or the folder aclImdb")
    return open_imdb(asked.text, root, asked.chosen_split)
