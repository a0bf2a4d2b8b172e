"""ImageNet segmentation as it is published: `gtsegs_ijcv.mat`, MATLAB v7.3, which is HDF5."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from xai_lib.datasets.base import BACKGROUND, FOREGROUND, IGNORED, ImageDataset, Sample
from xai_lib.datasets.images.imagenet_labels import class_index, class_names
from xai_lib.datasets.missing import Source
from xai_lib.datasets.registry import PATH, Asked, dataset
from xai_lib.errors import InputError, needs_extra

if TYPE_CHECKING:
    import h5py

GTSEGS = Source(
    name="gtsegs",
    title="ImageNet segmentation: Guillaumin, Küttel and Ferrari, IJCV 2014",
    place="http://calvin-vision.net/bigstuff/proj-imagenet/data/gtsegs_ijcv.mat",
    archive="gtsegs_ijcv.mat",
    kind="file",
    samples=4276,
    script="fetch_gtsegs.py",
)
# A damaged shape must not allocate what no photograph has.
_MOST_VALUES = 3 * 10**8
_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, IndexError)


class GtSegs(ImageDataset):
    """4,276 ImageNet images with one object's mask (Guillaumin, Küttel and Ferrari, IJCV 2014).

    The file is a struct array `value`: each of its fields is an (n, 1) or (1, n) array of HDF5
    references. img: (3, W, H) uint8, which MATLAB's column order makes of an H x W x 3 image.
    gt: the (W, H) mask of 0 and 1, or a cell of such masks of which the papers read the first. id
    and target, where present: the image's name and its class's wnid, which gives the label where
    the class is one of the 1,000 of ILSVRC 2012.
    """

    has_masks = True

    def __init__(self, path: str | os.PathLike):
        self.name = "gtsegs"
        self.path = Path(path)
        self._opened: tuple[int, h5py.File] | None = None
        _check_format(self.path)
        try:
            self._check_structure()
        finally:
            # Forked workers must not inherit an open file: HDF5 would share its state with them.
            self._close()
        self.class_names = class_names()
        self.has_labels = bool(self._labels) and None not in self._labels

    def _check_structure(self) -> None:
        count = {}
        for field in ("img", "gt"):
            references = self._field(field)
            if references is None:
                raise InputError(
                    f"{str(self.path)!r} has no array of references 'value/{field}': it is not "
                    f"{GTSEGS.archive} as published. {_ADVICE}"
                )
            count[field] = references.size
        if count["img"] != count["gt"] or not count["img"]:
            raise InputError(
                f"{str(self.path)!r} has {count['img']} images but {count['gt']} masks: expected "
                f"as many of both ({GTSEGS.samples} in the original). {_ADVICE}"
            )
        self._n = count["img"]
        self._keys = self._texts("id") or [f"{index:04d}" for index in range(self._n)]
        targets = self._texts("target") or []
        self._labels = [class_index().get(wnid) for wnid in targets]
        self._digest = hashlib.sha256("\n".join([*self._keys, *targets]).encode()).hexdigest()

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: int) -> Sample:
        index = range(self._n)[index]
        place = f"Sample {index} of {self.path.name}"
        try:
            image = self._read("img", index)
            mask = self._read("gt", index)
        except InputError:
            raise
        except _DAMAGE as error:
            raise InputError(f"{place} cannot be read ({error}): the file is damaged.") from error
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[0] != 3 or not image.size:
            raise InputError(
                f"{place}: its image is {image.dtype} {image.shape}, expected uint8 (3, W, H)."
            )
        if mask.shape != image.shape[1:]:
            raise InputError(
                f"{place}: its mask is {mask.shape[::-1]}, its image {image.shape[:0:-1]} "
                "(height, width): expected equal sizes."
            )
        if not np.isin(mask, (FOREGROUND, BACKGROUND, IGNORED)).all():
            raise InputError(f"{place}: its mask has other values than 0, 1 and -1 (ignored).")
        return Sample(
            self._keys[index],
            Image.fromarray(np.ascontiguousarray(image.transpose(2, 1, 0))),
            self._labels[index] if self._labels else None,
            torch.from_numpy(np.ascontiguousarray(mask.T).astype(np.int8)),
        )

    def fingerprint(self) -> dict[str, str | int]:
        """Return number of samples, size of the file and the digest of all names and classes."""
        return {
            "dataset": self.name,
            "samples": self._n,
            "bytes": self.path.stat().st_size,
            "digest": self._digest,
        }

    def _file(self) -> h5py.File:
        import h5py

        if self._opened is None or self._opened[0] != os.getpid():
            # Closed first: HDF5 recognises an open file and would go on with the parent's handle.
            self._close()
            self._opened = os.getpid(), h5py.File(self.path, "r")
        return self._opened[1]

    def _close(self) -> None:
        if self._opened is not None:
            self._opened[1].close()
            self._opened = None

    def __getstate__(self) -> dict:
        return vars(self) | {"_opened": None}

    def _field(self, field: str) -> h5py.Dataset | None:
        """Return the references of a field of `value`, or None where there are none."""
        import h5py

        value = self._file().get("value")
        found = value.get(field) if isinstance(value, h5py.Group) else None
        if not isinstance(found, h5py.Dataset) or h5py.check_ref_dtype(found.dtype) is None:
            return None
        if found.ndim != 2 or 1 not in found.shape:
            return None
        return found

    def _read(self, field: str, index: int) -> np.ndarray:
        """Return what the reference leads to; a cell leads on by its first reference."""
        import h5py

        references = self._field(field)
        found = self._file()[references[(index, 0) if references.shape[1] == 1 else (0, index)]]
        if h5py.check_ref_dtype(found.dtype) is not None:
            found = self._file()[found[(0,) * found.ndim]]
        if found.size > _MOST_VALUES:
            raise ValueError(f"it claims {found.size:,} values")
        return found[()]

    def _texts(self, field: str) -> list[str] | None:
        """Return a field of MATLAB strings (UTF-16 code units), or None where there is none."""
        references = self._field(field)
        if references is None:
            return None
        if references.size != self._n:
            raise InputError(
                f"{str(self.path)!r} has {self._n} images but {references.size} entries of "
                f"'value/{field}'. {_ADVICE}"
            )
        try:
            return [
                np.asarray(self._file()[reference]).astype("<u2").tobytes().decode("utf-16-le")
                for reference in references[()].reshape(-1)
            ]
        except _DAMAGE as error:
            raise InputError(
                f"{str(self.path)!r} is damaged: 'value/{field}' cannot be read ({error}). "
                f"{_ADVICE}"
            ) from error


_ADVICE = f"Fetch it again from {GTSEGS.place}."


def _check_format(path: Path) -> None:
    """Raise InputError unless HDF5 can open the file."""
    needs_extra("data", "h5py")
    import h5py

    if not path.is_file():
        raise InputError(f"{str(path)!r} is no file: give the path of {GTSEGS.archive} itself.")
    with path.open("rb") as file:
        head = file.read(128)
    if head.startswith(b"MATLAB 5.0") or head.startswith(b"MATLAB 7.0"):
        raise InputError(
            f"{str(path)!r} is a MATLAB file of version 5: expected version 7.3, which is HDF5. "
            "Save it in MATLAB with the option '-v7.3', or fetch the original from "
            f"{GTSEGS.place}."
        )
    if not h5py.is_hdf5(path):
        raise InputError(
            f"{str(path)!r} is no HDF5 file, so no MATLAB v7.3 file either: it is damaged, or "
            f"something else was saved under this name. {_ADVICE}"
        )
    try:
        h5py.File(path, "r").close()
    except OSError as error:
        raise InputError(f"{str(path)!r} is damaged or truncated ({error}). {_ADVICE}") from error


@dataset("gtsegs", modality="image", evidence="masks", takes=(PATH,), source=GTSEGS)
def open_gtsegs(asked: Asked) -> GtSegs:
    """Return ImageNet segmentation from its published file."""
    return GtSegs(asked.locate())
