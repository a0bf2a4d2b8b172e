"""What a detector saw in each image: region features and boxes, whatever file they lie in."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from xai_lib.datasets.images.coco import image_key
from xai_lib.errors import InputError

# As LXMERT's own reader allows: what dividing float32 pixels by the image's size can add.
TOLERANCE = 1e-5
# The names of arrays that we know: ours first, then those of bottom-up-attention.pytorch.
_FEATURES, _BOXES, _COUNTS = ("features", "x"), ("boxes", "bbox"), ("num_boxes", "num_bbox")
_HEIGHTS, _WIDTHS = ("image_h", "img_h"), ("image_w", "img_w")
FORMATS = (
    "LXMERT's .tsv, an .h5 file, a folder of .npz files, a folder of .npy files, or an .lmdb "
    "database"
)
ARRAYS = "features (regions, dim), boxes (regions, 4) and size (height, width)"


@dataclass(frozen=True)
class Regions:
    """One image's regions.

    features: float32 (regions, dim). boxes: float32 (regions, 4), each as x0, y0, x1, y1 in parts
    of the image's width and height, in [0, 1]; None where only features are known. size: the
    image's height and width in pixels, or None where nobody says.
    """

    features: Float[Tensor, "r d"]
    boxes: Float[Tensor, "r 4"] | None = None
    size: tuple[int, int] | None = None


class RegionFeatures(ABC):
    """Region features of many images in one file or folder, read one image at a time.

    `features[image]` takes COCO's number or any of its names (`image_key`) and returns `Regions`;
    it raises InputError for an image that is not there and for a damaged one. Nothing stays open
    between two reads, so instances pickle and worker processes share them.
    """

    format: ClassVar[str]
    path: Path
    _places: dict[str, Any]

    @abstractmethod
    def _read(self, key: str, place: Any) -> Regions:
        """Return the regions that lie at `place`."""

    @abstractmethod
    def _size(self, key: str, place: Any) -> int:
        """Return the bytes that an image's regions take."""

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, image: object) -> bool:
        return isinstance(image, (str, int)) and image_key(image) in self._places

    def keys(self) -> tuple[str, ...]:
        """Return the key of every image, in the order of the file."""
        return tuple(self._places)

    def __getitem__(self, image: str | int) -> Regions:
        key = image_key(image)
        if key not in self._places:
            raise InputError(
                f"{str(self.path)!r} has no regions of the image {image!r}; it has those of "
                f"{len(self)} others, such as {next(iter(self._places))!r}."
            )
        return self._read(key, self._places[key])

    def fingerprint(self, images: Iterable[str | int] | None = None) -> dict[str, str | int]:
        """Return format, number, bytes and a digest of the names and sizes of `images`, or all."""
        keys = self._places if images is None else dict.fromkeys(map(image_key, images))
        digest, total = hashlib.sha256(), 0
        for key in keys:
            size = self._size(key, self._places[key]) if key in self._places else -1
            total += max(size, 0)
            digest.update(f"{key!a}\0{size}\n".encode())
        return {
            "format": self.format,
            "images": len(keys),
            "bytes": total,
            "digest": digest.hexdigest(),
        }

    def _add(self, name: str, place: Any, where: str) -> None:
        """Remember where an image lies; raise InputError if it is there already."""
        key = image_key(name)
        if key in self._places:
            raise InputError(f"{where} has the image {name!r} a second time: expected it once.")
        self._places[key] = place


def regions_of(arrays: Mapping[str, np.ndarray], place: str) -> Regions:
    """Return the regions in named arrays, as npz files, lmdb values and safetensors hold them.

    features (regions, dim); boxes (regions, 4), in pixels if the image's size is given, as size
    (height, width) or as image_h and image_w, else in parts of it; num_boxes, if there are rows of
    padding after so many regions. x, bbox and num_bbox mean the same. Other arrays are not read.
    """
    features = _first(arrays, _FEATURES)
    if features is None:
        names = ", ".join(map(repr, arrays)) or "none"
        raise InputError(f"{place} has the arrays {names}: expected {ARRAYS}.")
    boxes = _first(arrays, _BOXES)
    size = _first(arrays, ("size",))
    if size is None:
        height, width = _first(arrays, _HEIGHTS), _first(arrays, _WIDTHS)
        if (height is None) != (width is None):
            raise InputError(f"{place} has only one of image_h and image_w: expected both.")
        size = None if height is None else [np.asarray(s).reshape(-1) for s in (height, width)]
        if size is not None:
            size = np.concatenate(size)
    count = _first(arrays, _COUNTS)
    if count is not None:
        count = _whole_numbers(count, 1, f"{place}: its number of boxes")[0]
    return checked_regions(features, boxes, size, place, count)


def checked_regions(
    features: np.ndarray,
    boxes: np.ndarray | None,
    size: np.ndarray | None,
    place: str,
    count: int | None = None,
) -> Regions:
    """Return the first `count` regions; raise InputError, with `place`, unless they are whole.

    boxes: in pixels if `size`, the image's height and width, is given, else in parts of the image.
    """
    features = _floats(features, f"{place}: its features")
    if features.ndim != 2 or not features.size:
        raise InputError(
            f"{place}: its features have the shape {features.shape}; expected (regions, dim)."
        )
    if count is not None:
        if not 1 <= count <= len(features):
            raise InputError(
                f"{place}: it counts {count} boxes but has the features of {len(features)}."
            )
        features = features[:count]
    if not np.isfinite(features).all():
        row = int(np.flatnonzero(~np.isfinite(features).all(1))[0])
        raise InputError(f"{place}: the features of its region {row} are NaN or infinite.")
    known = None
    if size is not None:
        known = tuple(_whole_numbers(size, 2, f"{place}: the image's height and width"))
    if boxes is not None:
        boxes = _floats(boxes, f"{place}: its boxes")
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise InputError(f"{place}: its boxes are {boxes.shape}; expected (regions, 4).")
        boxes = boxes[:count]
        if len(boxes) != len(features):
            raise InputError(
                f"{place}: it has {len(boxes)} boxes but the features of {len(features)} regions; "
                "expected as many of both."
            )
        boxes = torch.from_numpy(_normalised(boxes, known, place))
    return Regions(torch.from_numpy(features), boxes, known)


def _normalised(boxes: np.ndarray, size: tuple[int, int] | None, place: str) -> np.ndarray:
    """Return boxes in [0, 1]; raise InputError for one that is not within the image."""
    parts = boxes
    unit = "parts of the image, as no size is given"
    if size is not None:
        height, width = size
        unit = f"pixels of an image of {height} x {width} (height x width)"
        parts = boxes / np.array([width, height, width, height], np.float32)
    # NaN fails every comparison, so it is outside too.
    inside = ((parts >= -TOLERANCE) & (parts <= 1 + TOLERANCE)).all(1)
    ordered = (parts[:, 0] <= parts[:, 2]) & (parts[:, 1] <= parts[:, 3])
    for good, wrong in ((inside, "is not within the image"), (ordered, "ends before it begins")):
        if not good.all():
            row = int(np.flatnonzero(~good)[0])
            values = ", ".join(f"{value:g}" for value in boxes[row])
            raise InputError(
                f"{place}: its box {row}, ({values}), {wrong}. Expected x0, y0, x1, y1 in {unit}."
            )
    return np.clip(parts, 0, 1, dtype=np.float32)


def _first(arrays: Mapping[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray | None:
    return next((arrays[name] for name in names if name in arrays), None)


def _floats(array: np.ndarray, what: str) -> np.ndarray:
    """Return a float32 copy that torch may own."""
    array = np.asarray(array)
    if array.dtype.kind not in "fiu":
        raise InputError(f"{what} are {array.dtype}; expected floating-point numbers.")
    with np.errstate(over="ignore"):
        return np.array(array, np.float32, order="C")


def _whole_numbers(values: np.ndarray, expected: int, what: str) -> list[int]:
    found = np.asarray(values).reshape(-1)
    good = found.dtype.kind in "iuf" and len(found) == expected
    if not good or not (np.isfinite(found) & (found >= 1) & (found == np.floor(found))).all():
        kind = "a whole number" if expected == 1 else f"{expected} whole numbers"
        raise InputError(f"{what}: {found.tolist()}; expected {kind} from 1.")
    return [int(value) for value in found]
