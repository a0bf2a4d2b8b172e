"""ImageNet's classes, and the files that say which class a validation image has."""

from __future__ import annotations

import csv
import re
from collections import Counter
from functools import cache
from pathlib import Path

from xai_lib.errors import InputError, MissingDataError

KAGGLE = "LOC_val_solution.csv"
WNIDS = "imagenet_2012_validation_synset_labels.txt"
DEVKIT = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"
LABEL_FILES = (KAGGLE, WNIDS, DEVKIT)
DEVKIT_FOLDER = "ILSVRC2012_devkit_t12"
_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})")
_WNID = re.compile(r"n\d{8}")
_HOW = (
    f"Put one of these beside the images: {DEVKIT} together with {META}, both from the folder "
    f"'data' of ILSVRC2012_devkit_t12.tar.gz; {KAGGLE} (Kaggle); or {WNIDS}, one wnid a line."
)


@cache
def wnids() -> tuple[str, ...]:
    """Return the 1,000 wnids of ILSVRC 2012, sorted: the place is the class index."""
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())


@cache
def class_index() -> dict[str, int]:
    """Return the class index by wnid."""
    return {wnid: index for index, wnid in enumerate(wnids())}


@cache
def class_names() -> tuple[str, ...]:
    """Return the 1,000 class names in the order of the class index."""
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_descriptions())


def find_label_file(images: Path) -> Path:
    """Return the label file in the folder of the images, in the devkit beside it, or above it."""
    for folder in (images, images.parent):
        for place in (folder, folder / DEVKIT_FOLDER / "data"):
            for name in LABEL_FILES:
                if (place / name).is_file():
                    return place / name
    raise MissingDataError(
        f"The images in {str(images)!r} have no labels: there is no ground-truth file. {_HOW}"
    )


def read_labels(path: Path, images: list[str]) -> list[int]:
    """Return the class index of each image from a label file.

    Kaggle's CSV and lines "name wnid" name the images, so they may have more than are there. Lines
    of a bare wnid, and the devkit's, count them: line k belongs to ILSVRC2012_val_k, and there must
    be one for each image. The devkit numbers classes in an order of its own, from 1: `meta.mat`
    beside it translates, and without it numbers are refused, as nothing tells that order from the
    sorted one. Raises InputError.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{str(path)!r} is no text file ({error}). {_HOW}") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise InputError(f"The ground-truth file {str(path)!r} is empty. {_HOW}")
    if lines[0].lower().startswith("imageid,"):
        named = _from_kaggle(path, lines)
    elif " " in lines[0] or "\t" in lines[0]:
        named = _from_pairs(path, lines)
    else:
        return _counted(path, lines, images)
    labels = []
    for image in images:
        wnid = named.get(image.rpartition("/")[2].partition(".")[0])
        if wnid is None:
            raise InputError(f"{str(path)!r} has no line for the image {image!r}. {_HOW}")
        labels.append(_index(path, wnid))
    return labels


def _from_kaggle(path: Path, lines: list[str]) -> dict[str, str]:
    named = {}
    for row in csv.reader(lines[1:]):
        if len(row) != 2 or not row[1].split():
            raise InputError(f"{str(path)!r} has the row {row}: expected image,wnid and boxes.")
        named[row[0]] = row[1].split()[0]
    return named


def _from_pairs(path: Path, lines: list[str]) -> dict[str, str]:
    named = {}
    for line in lines:
        words = line.split()
        if len(words) != 2:
            raise InputError(f"{str(path)!r} has the line {line!r}: expected 'name wnid'.")
        named[words[0].rpartition("/")[2].partition(".")[0]] = words[1]
    return named


def _counted(path: Path, lines: list[str], images: list[str]) -> list[int]:
    if len(lines) != len(images):
        raise InputError(
            f"{str(path)!r} has {len(lines)} lines for {len(images)} images: expected one for each."
        )
    if lines[0].isdecimal():
        devkit = _devkit_wnids(path)
        unknown = next((line for line in lines if line not in devkit), None)
        if unknown is not None:
            raise InputError(f"{str(path)!r} has the class {unknown!r}, {META} does not. {_HOW}")
        lines = [devkit[line] for line in lines]
    labels = []
    for image in images:
        number = _IMAGE.match(image.rpartition("/")[2])
        if number is None or not 1 <= int(number[1]) <= len(lines):
            raise InputError(
                f"{str(path)!r} counts the images, but {image!r} is not one of "
                f"ILSVRC2012_val_00000001 to {len(lines):08d}."
            )
        labels.append(_index(path, lines[int(number[1]) - 1]))
    return labels


def _devkit_wnids(path: Path) -> dict[str, str]:
    """Return the wnid by the devkit's own class number, from `meta.mat` beside the label file."""
    meta = path.with_name(META)
    if not meta.is_file():
        raise InputError(
            f"{str(path)!r} gives classes as numbers. The devkit counts them in an order of its "
            "own, from 1, which is not the sorted order of the models, and a number alone does not "
            f"tell which: expected {META} beside it. {_HOW}"
        )
    # Installed with scikit-learn; it reads this old MATLAB format without running anything.
    from scipy.io import loadmat

    try:
        synsets = loadmat(meta, squeeze_me=True, variable_names=["synsets"])["synsets"]
        rows = zip(synsets["ILSVRC2012_ID"], synsets["WNID"], synsets["num_children"], strict=True)
        found = {str(int(number)): str(wnid) for number, wnid, below in rows if not int(below)}
    except Exception as error:  # scipy raises whatever a damaged file leads it to
        raise InputError(f"{str(meta)!r} is not the devkit's ({error}). {_HOW}") from error
    return found


def _index(path: Path, wnid: str) -> int:
    index = class_index().get(wnid)
    if index is None:
        known = "is none of the 1,000 of ILSVRC 2012" if _WNID.fullmatch(wnid) else "is no wnid"
        raise InputError(f"{str(path)!r} has the class {wnid!r}, which {known}. {_HOW}")
    return index


# Two classes whose descriptions are one and the same word, by their places.
_SAME_WORD = {134: "crane, bird", 517: "crane, machine"}


def imagenet_names() -> tuple[str, ...]:
    """Return 1,000 distinct names of ImageNet's classes for prompts, in the order of the index.

    A class has up to a dozen synonyms: its name is the first ("tench" of "tench, Tinca tinca"),
    or all of them where another class has the same first ("maillot") but for case ("Cardigan", the
    dog); the two that are called "crane" and nothing else are told apart by "bird" and "machine".
    The published test takes the names of torchvision's ImageNet, which are tuples of synonyms, and
    so fills in brackets and quotes too.
    """
    firsts = [description.partition(",")[0].strip() for description in class_names()]
    counts = Counter(first.casefold() for first in firsts)
    return tuple(
        _SAME_WORD.get(place, first if counts[first.casefold()] == 1 else description)
        for place, (first, description) in enumerate(zip(firsts, class_names(), strict=True))
    )
