"""`open_regions`: a file or folder of region features, in whatever format."""

from __future__ import annotations

import os
from pathlib import Path

from xai_lib.datasets.regions.features import FORMATS, RegionFeatures
from xai_lib.errors import InputError


def open_regions(path: str | os.PathLike) -> RegionFeatures:
    """Return the region features in `path`; its suffix, or what a folder holds, says the format.

    - `.tsv`: as LXMERT publishes them, one image a line (`regions_tsv`).
    - `.h5`, `.hdf5`: stacked arrays (`regions_h5`).
    - a folder of `.npz`, one an image, with the arrays that `regions_of` names.
    - a folder of `.npy`, as MMF extracts them (`regions_folders`).
    - `.lmdb`, a file, or a folder with `data.mdb` (`regions_lmdb`).

    Raises InputError for anything else and for what is damaged as far as opening can see.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise InputError(f"There is nothing at {str(path)!r}: expected {FORMATS}.")
    suffix = path.suffix.lower()
    if suffix == ".lmdb" or (path / "data.mdb").is_file():
        from xai_lib.datasets.regions.lmdb import LmdbRegions

        return LmdbRegions(path)
    if suffix == ".tsv" and path.is_file():
        from xai_lib.datasets.regions.tsv import TsvRegions

        return TsvRegions(path)
    if suffix in (".h5", ".hdf5") and path.is_file():
        from xai_lib.datasets.regions.h5 import H5Regions

        return H5Regions(path)
    if path.is_dir():
        from xai_lib.datasets.regions.folders import open_region_folder

        return open_region_folder(path)
    raise InputError(f"{str(path)!r} is in no format of region features: expected {FORMATS}.")
