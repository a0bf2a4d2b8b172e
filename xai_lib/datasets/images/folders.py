"""Images in folders: one folder a class, or one flat folder without labels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from xai_lib.datasets.base import ImageDataset, Sample
from xai_lib.datasets.fingerprints import of_files
from xai_lib.datasets.registry import PLACE, Asked, dataset
from xai_lib.errors import InputError, MissingDataError
from xai_lib.files.images import read_image

IMAGE_SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
# What file managers leave behind; a name that begins with a dot is skipped too.
_LITTER = frozenset({"Thumbs.db", "desktop.ini"})


class ImageFiles(ImageDataset):
    """Image files below `root`, in the order of `files` (relative, with "/"), read one by one.

    as_stored: pixels are not turned by their EXIF orientation, as torchvision's loader does not.
    """

    def __init__(
        self,
        name: str,
        root: Path,
        files: Sequence[str],
        labels: Sequence[int] | None = None,
        class_names: tuple[str, ...] | None = None,
        as_stored: bool = False,
    ):
        self.name, self.root, self.class_names = name, root, class_names
        self._read = _read_as_stored if as_stored else read_image
        self._files = tuple(files)
        self._labels = None if labels is None else np.asarray(labels, np.int32)
        self.has_labels = labels is not None

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:
        file, label = self.entry(range(len(self))[index])
        return Sample(file, self._read(self.root / file), label)

    def entry(self, index: int) -> tuple[str, int | None]:
        """Return a sample's file, relative to the root, and label, without reading the file."""
        return self._files[index], None if self._labels is None else int(self._labels[index])

    def fingerprint(self) -> dict[str, str | int]:
        """Return number, total size and the digest of all names, sizes and labels."""
        return of_files(self.name, self.root, self._files, self._labels)


def open_folder(path: str | os.PathLike) -> ImageFiles:
    """Return the images of a folder of class folders, or of a flat folder (then without labels).

    Classes are numbered in the order of their folders' names. Raises MissingDataError where there
    is no folder, InputError for one that is empty, has an empty class, mixes both forms, or holds
    files that are no images (by their suffix): none is skipped silently.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise MissingDataError(
            f"There is no folder {str(root)!r}: give 'folder:PATH' with one folder of images a "
            "class, or with images alone."
        )
    folders, files = split_entries(root)
    name = f"folder:{os.fspath(path)}"
    if not folders:
        return ImageFiles(name, root, flat_images(root, files))
    beside = [file for file in files if is_image(file)]
    if beside:
        raise InputError(
            f"{str(root)!r} has images, such as {beside[0]!r}, beside class folders, such as "
            f"{folders[0]!r}: which class are they? Move them into one, or take them away."
        )
    images, labels = class_images(root, folders)
    return ImageFiles(name, root, images, labels, tuple(folders))


@dataset(
    "folder",
    modality="image",
    labels="by class folder",
    origin="your own images",
    takes=(PLACE,),
    form="folder:PATH",
)
def open_own(asked: Asked) -> ImageFiles:
    """Return the images of the folder that the name gives."""
    return open_folder(asked.place)


def split_entries(root: Path) -> tuple[list[str], list[str]]:
    """Return the names of the folders and of the files in `root`, sorted, without litter."""
    folders, files = [], []
    with os.scandir(root) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and entry.name not in _LITTER:
                (folders if entry.is_dir() else files).append(entry.name)
    return sorted(folders), sorted(files)


def is_image(name: str) -> bool:
    """Say whether the suffix is that of an image format."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def flat_images(root: Path, files: Iterable[str]) -> list[str]:
    """Return `files`, all images; raise InputError for any other, or if there is none."""
    files = list(files)
    _refuse_others(root, files)
    if not files:
        raise InputError(f"The folder {str(root)!r} has no images.")
    return files


def class_images(root: Path, folders: Sequence[str]) -> tuple[list[str], list[int]]:
    """Return the files below each class folder and the class folder's place in `folders`."""
    images, labels = [], []
    for label, folder in enumerate(folders):
        found = []
        for where, inner, names in os.walk(root / folder):
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            names = [n for n in names if not n.startswith(".") and n not in _LITTER]
            _refuse_others(Path(where), sorted(names))
            below = Path(where).relative_to(root).as_posix()
            found += [f"{below}/{name}" for name in names]
        if not found:
            raise InputError(
                f"The class folder {str(root / folder)!r} is empty: fill it, or take it away."
            )
        images += sorted(found)
        labels += [label] * len(found)
    return images, labels


def _read_as_stored(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            plain = image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(
            f"Cannot read {str(path)!r} as an image, it is missing, damaged or truncated ({error})."
        ) from error
    # Whoever reads it next would turn it after all.
    plain.info.pop("exif", None)
    plain.getexif().clear()
    return plain


def _refuse_others(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        if not is_image(name):
            raise InputError(
                f"{str(folder / name)!r} is no image by its suffix: expected one of "
                f"{' '.join(sorted(IMAGE_SUFFIXES))}. Take it away, or convert it."
            )
