"""20 Newsgroups, the "bydate" version: folders of posts, one a group, split by date."""

from __future__ import annotations

import re
from pathlib import Path

from xai_lib.datasets.images.folders import split_entries
from xai_lib.datasets.missing import Source
from xai_lib.datasets.registry import PATH, PLACE, SPLIT, Asked, dataset, no_split
from xai_lib.datasets.texts.files import TextFiles, class_files, read_text
from xai_lib.errors import InputError

NEWSGROUPS = Source(
    "20newsgroups",
    "20 Newsgroups, sorted by date",
    "http://qwone.com/~jason/20Newsgroups/20news-bydate.tar.gz",
    7532,
    "test",
    # As scikit-learn states it; not measured by us.
    sha256="8f1b2514ca22a5ade8fbb9cfa5727df95fa587f4c87b786e15c759fa66d95610",
)
# By which lines scikit-learn knows a quotation: what introduces it, and what marks it.
_QUOTED = re.compile(r"(writes in|writes:|wrote:|says:|said:|^In article|^Quoted from|^\||^>)")
_FOLDERS = {"train": "20news-bydate-train", "test": "20news-bydate-test"}
ENCODING = "latin-1"


def strip_post(text: str) -> str:
    """Return the body of a post, without its header, its signature and what it quotes.

    As scikit-learn's `fetch_20newsgroups(remove=("headers", "footers", "quotes"))`, which Beyond
    Intuition's 20 Newsgroups experiment uses. Header: all before the first empty line. Signature:
    all after the last line that is empty or only hyphens. Quotes: lines that begin with > or |, or
    that introduce a quotation.
    """
    body = text.partition("\n\n")[2]
    lines = body.strip().split("\n")
    bare = [i for i, line in enumerate(lines) if not line.strip().strip("-")]
    if bare and bare[-1] > 0:
        body = "\n".join(lines[: bare[-1]])
    return "\n".join(line for line in body.split("\n") if not _QUOTED.search(line))


def open_newsgroups(name: str, place: Path, split: str) -> TextFiles:
    """Return the posts' bodies below `place`/20news-bydate-SPLIT/GROUP/NUMBER (latin-1).

    Posts of which `strip_post` leaves nothing are left out (they have no words to explain), so
    opening reads each post once. Labels: the groups in the order of their names. Raises
    OptionError for another split than train and test, InputError for a folder of another form.
    """
    if split not in _FOLDERS:
        raise no_split(name, split, _FOLDERS)
    root = place / _FOLDERS[split]
    if not root.is_dir():
        if (place / _FOLDERS["train" if split == "test" else "test"]).is_dir() or not (
            place.name == _FOLDERS[split]
        ):
            raise InputError(
                f"{str(place)!r} has no folder {_FOLDERS[split]!r}: give the folder into which "
                "20news-bydate.tar.gz was extracted."
            )
        root = place
    groups = tuple(split_entries(root)[0])
    if not groups:
        raise InputError(f"{str(root)!r} has no folders of groups, such as 'sci.med'.")
    kept, labels = [], []
    for file, label in zip(*class_files(root, groups), strict=True):
        if strip_post(read_text(root / file, ENCODING)).strip():
            kept.append(file)
            labels.append(label)
    return TextFiles(name, root, kept, labels, groups, ENCODING, strip_post)


@dataset("20newsgroups", modality="text", takes=(PLACE, SPLIT, PATH), source=NEWSGROUPS)
def open_here(asked: Asked) -> TextFiles:
    """Return the posts in the folder that the name or path= gives, or XAI_20NEWSGROUPS."""
    return open_newsgroups(asked.text, asked.locate(), asked.chosen_split)
