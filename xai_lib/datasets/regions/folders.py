"""Region features in folders of one numpy file an image: .npz, and .npy as MMF extracts them."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from xai_lib.datasets.regions.features import (
    ARRAYS,
    FORMATS,
    RegionFeatures,
    Regions,
    checked_regions,
    regions_of,
)
from xai_lib.errors import InputError

NPY, ZIP = b"\x93NUMPY", b"PK\x03\x04"
_INFO = "_info.npy"
_PROTOCOLS = range(2, 6)


def is_pickle(data: bytes) -> bool:
    """Say whether bytes are a pickle of protocol 2 to 5, as all of today's writers make."""
    return len(data) > 2 and data[0] == 0x80 and data[1] in _PROTOCOLS and data.endswith(b".")


def pickled(place: str, more: str = "") -> InputError:
    """Return the error for what only unpickling would read, which says how to convert it."""
    return InputError(
        f"{place} is a Python pickle. Opening one runs whatever code it holds, so pickles are not "
        "read. Convert it once, in the program that wrote it: for each image, "
        "numpy.savez(NAME, features=..., boxes=..., size=(height, width)) with boxes in pixels, "
        f"and give the folder of these .npz files.{more}"
    )


def load_array(data: bytes, place: str, more: str = "") -> np.ndarray:
    """Return the array in the bytes of an .npy file; raise InputError for a damaged one.

    place: what to call it in an error. more: what else to do about a pickle.
    """
    if is_pickle(data):
        raise pickled(place, more)
    if not data.startswith(NPY):
        raise InputError(f"{place} begins with {data[:6]!r}: expected the bytes of an .npy file.")
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # numpy raises whatever a damaged header leads it to
        if str(error).startswith("Object arrays"):
            raise pickled(place, more) from error
        raise _damaged(error, place) from error


def load_arrays(data: bytes, place: str) -> Regions:
    """Return the regions in the bytes of an .npz file; raise InputError for a damaged one."""
    if not data.startswith(ZIP):
        raise InputError(f"{place} begins with {data[:6]!r}: expected an .npz file with {ARRAYS}.")
    try:
        archive = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # as above
        raise _damaged(error, place) from error
    with archive:
        return regions_of(_Arrays(archive, place), place)


class _Arrays(Mapping):
    """An archive's arrays, read when they are asked for: pickled others never are."""

    def __init__(self, archive: np.lib.npyio.NpzFile, place: str):
        self._archive, self._place = archive, place

    def __getitem__(self, name: str) -> np.ndarray:
        try:
            return self._archive[name]
        except Exception as error:  # as above, and whatever zipfile and zlib raise
            what = f"The array {name!r} of {self._place}"
            if str(error).startswith("Object arrays"):
                raise pickled(what) from error
            raise _damaged(error, what) from error

    def __contains__(self, name: object) -> bool:
        return name in self._archive.files

    def __iter__(self) -> Iterator[str]:
        return iter(self._archive.files)

    def __len__(self) -> int:
        return len(self._archive.files)


def _damaged(error: Exception, place: str) -> InputError:
    return InputError(f"{place} cannot be read ({error}): it is damaged or truncated.")


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read {str(file)!r}: {error.strerror or error}.") from error


class _Folder(RegionFeatures):
    """Files of one image each; the image is the file's name without its suffix."""

    suffix: str

    def __init__(self, path: Path):
        self.path, self._places = path, {}
        with os.scandir(path) as entries:
            names = sorted(e.name for e in entries if e.name[0] != "." and e.is_file())
        for name in names:
            if name.endswith(self.suffix) and not name.endswith(_INFO):
                self._add(name.removesuffix(self.suffix), name, f"The folder {str(path)!r}")
        if not self._places:
            raise InputError(f"The folder {str(path)!r} has no {self.suffix} of features.")

    def _size(self, key: str, place: str) -> int:
        try:
            return (self.path / place).stat().st_size
        except OSError:
            return -1


class NpzRegions(_Folder):
    """A folder of files such as COCO_val2014_000000000042.npz, with the arrays of `regions_of`."""

    format, suffix = "npz", ".npz"

    def _read(self, key: str, place: str) -> Regions:
        file = self.path / place
        return load_arrays(_bytes(file), repr(str(file)))


class NpyRegions(_Folder):
    """MMF's folder of NAME.npy, the features (regions, dim), and NAME_info.npy beside it.

    MMF pickles a dictionary into NAME_info.npy, which is refused: opening looks at the first one.
    Read are plain arrays: boxes (regions, 4) in parts of the image. Without NAME_info.npy an image
    has features and no boxes, which suffices for VisualBERT but not for LXMERT.
    """

    format, suffix = "npy", ".npy"

    def __init__(self, path: Path):
        super().__init__(path)
        self._boxes(next(iter(self._places.values())))

    def _read(self, key: str, place: str) -> Regions:
        file = self.path / place
        features = load_array(_bytes(file), repr(str(file)))
        return checked_regions(features, self._boxes(place), None, repr(str(file)))

    def _boxes(self, place: str) -> np.ndarray | None:
        info = self.path / (place.removesuffix(self.suffix) + _INFO)
        if not info.is_file():
            return None
        more = f" Or take the files *{_INFO} away, to read the features without boxes."
        return load_array(_bytes(info), repr(str(info)), more)


def open_region_folder(path: Path) -> RegionFeatures:
    """Return the features in a folder of .npz or of .npy files; raise InputError for others."""
    with os.scandir(path) as entries:
        found = {os.path.splitext(e.name)[1] for e in entries if e.name[0] != "."}
    kinds = [kind for kind in (NpzRegions, NpyRegions) if kind.suffix in found]
    if len(kinds) == 2:
        raise InputError(
            f"The folder {str(path)!r} has .npz and .npy files: which are the features? Keep one."
        )
    if not kinds:
        raise InputError(f"The folder {str(path)!r} has no region features: expected {FORMATS}.")
    return kinds[0](path)
