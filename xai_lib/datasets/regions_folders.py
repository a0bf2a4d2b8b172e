"""Region features in folders of one numpy file an image: .npz, and .npy as MMF extracts them."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from xai_lib.datasets.region_features import (
    ARRAYS,
    FORMATS,
    RegionFeatures,
    Regions,
    checked_regions,
    regions_of,
)
from xai_lib.errors import InputError

_INFO = "_info.npy"
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    NotImplementedError,
    MemoryError,
    SyntaxError,
    zipfile.BadZipFile,
    zlib.error,
)


def pickled(place: str, more: str = "") -> InputError:
    """Return the error for what only unpickling would read, which says how to convert it."""
    return InputError(
        f"{place} is a Python pickle. Opening one runs whatever code it holds, so pickles are not "
        "read. Convert it once, in the program that wrote it: for each image, "
        "numpy.savez(NAME, features=..., boxes=..., size=(height, width)) with boxes in pixels, "
        f"and give the folder of these .npz files.{more}"
    )


def load_array(file: Path | BinaryIO, place: str) -> np.ndarray:
    """Return the array of an .npy file; raise InputError for a pickle and for a damaged one."""
    try:
        array = np.load(file, allow_pickle=False)
    except _DAMAGE as error:
        raise _unreadable(error, place) from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{place} is an archive of arrays: expected the one array of an .npy.")
    return array


def load_arrays(file: Path | BinaryIO, place: str) -> Regions:
    """Return the regions in an .npz file; raise InputError for a damaged one."""
    try:
        arrays = np.load(file, allow_pickle=False)
        if isinstance(arrays, np.ndarray):
            raise InputError(f"{place} is one array: expected an archive of {ARRAYS}.")
        with arrays:
            # Arrays are read as they are asked for: others, pickled ones among them, never are.
            return regions_of(arrays, place)
    except InputError:
        raise
    except _DAMAGE as error:
        raise _unreadable(error, place) from error


def _unreadable(error: Exception, place: str) -> InputError:
    # numpy's word for arrays of Python objects and for files that are no arrays at all alike.
    if isinstance(error, ValueError) and "pickle" in str(error):
        return pickled(place)
    return InputError(f"{place} cannot be read ({error}): the file is damaged or truncated.")


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
        return load_arrays(file, repr(str(file)))


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
        features = load_array(file, repr(str(file)))
        return checked_regions(features, self._boxes(place), None, repr(str(file)))

    def _boxes(self, place: str) -> np.ndarray | None:
        info = self.path / (place.removesuffix(self.suffix) + _INFO)
        if not info.is_file():
            return None
        try:
            array = np.load(info, allow_pickle=False)
        except _DAMAGE as error:
            if isinstance(error, ValueError) and "pickle" in str(error):
                raise pickled(
                    repr(str(info)),
                    f" Or take the files *{_INFO} away, to read the features without boxes.",
                ) from error
            raise _unreadable(error, repr(str(info))) from error
        return array


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
