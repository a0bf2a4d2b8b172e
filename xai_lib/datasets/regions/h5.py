"""Region features as stacked arrays in one HDF5 file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from xai_lib.datasets.regions.features import RegionFeatures, Regions, regions_of
from xai_lib.errors import InputError, needs_extra

if TYPE_CHECKING:
    import h5py

_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError)
# Each array's shape after its first axis, which counts images; None: any length.
_SHAPES = {
    "image_ids": (),
    "features": (None, None),
    "boxes": (None, 4),
    "sizes": (2,),
    "num_boxes": (),
}
_NEEDED = ("image_ids", "features")
_LAYOUT = (
    "image_ids (images,), features (images, regions, dim), and where known boxes "
    "(images, regions, 4), sizes (images, 2) as height and width, num_boxes (images,)"
)


class H5Regions(RegionFeatures):
    """An HDF5 file of stacked arrays.

    image_ids (images,): numbers or names. features (images, regions, dim). boxes (images, regions,
    4): in pixels if there are sizes (images, 2), height and width, else in parts of the image.
    num_boxes (images,): how many regions of an image are no padding. The last three may be absent.
    Row i of each belongs to image_ids[i]. The file is opened for each read. Raises InputError for
    arrays that are absent, do not fit together or cannot be read.
    """

    format = "h5"

    def __init__(self, path: Path):
        needs_extra("regions", "h5py")
        import h5py

        self.path, self._places = path, {}
        try:
            with h5py.File(path, "r") as file:
                self._arrays = self._check(file)
                names = file["image_ids"][()].tolist()
                self._bytes = file["features"][:1].nbytes
        except InputError:
            raise
        except _DAMAGE as error:
            raise self._damaged(error) from error
        for row, name in enumerate(names):
            if isinstance(name, bytes):
                name = name.decode("utf-8", "replace")
            if not isinstance(name, (str, int)):
                raise InputError(
                    f"{str(path)!r}: image_ids[{row}] is {name!r}; expected a number or a name."
                )
            self._add(str(name), row, f"Row {row} of {str(path)!r}")

    def _check(self, file: h5py.File) -> tuple[str, ...]:
        """Return the names of the arrays that are there, all of the shapes that they must have."""
        import h5py

        found = {name: file[name] for name in _SHAPES if isinstance(file.get(name), h5py.Dataset)}
        for name in _NEEDED:
            if name not in found:
                raise InputError(
                    f"{str(self.path)!r} has no array {name!r}; it has "
                    f"{', '.join(map(repr, file)) or 'nothing'}. Expected {_LAYOUT}."
                )
        images = found["image_ids"].shape[:1]
        for name, array in found.items():
            wanted = (*images, *_SHAPES[name])
            fits = array.ndim == len(wanted) and all(
                there > 0 and wish in (None, there)
                for there, wish in zip(array.shape, wanted, strict=True)
            )
            if not fits:
                raise InputError(
                    f"{str(self.path)!r}: {name} is of shape {array.shape}, with "
                    f"{found['image_ids'].shape} image_ids. Expected {_LAYOUT}."
                )
        return tuple(found)

    def _read(self, key: str, place: int) -> Regions:
        import h5py

        where = f"Row {place} of {str(self.path)!r}, image {key!r}"
        try:
            with h5py.File(self.path, "r") as file:
                row = {name: file[name][place] for name in self._arrays}
        except _DAMAGE as error:
            raise self._damaged(error) from error
        if "sizes" in row:
            row["size"] = row.pop("sizes")
        return regions_of(row, where)

    def _size(self, key: str, place: int) -> int:
        return self._bytes

    def _damaged(self, error: Exception) -> InputError:
        return InputError(
            f"{str(self.path)!r} cannot be read as HDF5 ({error}): the file is damaged, truncated "
            "or something else."
        )
