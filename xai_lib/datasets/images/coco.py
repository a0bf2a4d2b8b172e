"""COCO's images by their number, and the names under which files and records know them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from xai_lib.datasets.images.folders import is_image
from xai_lib.errors import InputError
from xai_lib.files.images import read_image

_COCO = re.compile(r"(?:COCO_[a-z]+\d{4}_)?0*(\d+)")


def image_key(name: str | int) -> str:
    """Return what all names of one image have in common.

    COCO's images are numbered across its splits: 42, "42", "000000000042" and
    "COCO_val2014_000000000042" are "42". Any other name is its own. Folders before it do not count.
    """
    name = str(name).rpartition("/")[2]
    found = _COCO.fullmatch(name)
    return found[1] if found else name


class CocoImages:
    """The images of a folder such as COCO's val2014, by number or name, read one by one.

    Files are named COCO_val2014_000000000042.jpg as published, 42.jpg, or by any name that the
    questions use. Raises InputError for a folder without images and for two files of one image.
    """

    def __init__(self, root: str | os.PathLike):
        self.root = Path(root)
        if not self.root.is_dir():
            raise InputError(f"{str(self.root)!r} is no folder: expected one of COCO's images.")
        self._files: dict[str, str] = {}
        with os.scandir(self.root) as entries:
            names = sorted(e.name for e in entries if is_image(e.name) and e.name[0] != ".")
        for name in names:
            other = self._files.setdefault(image_key(name.rpartition(".")[0]), name)
            if other != name:
                raise InputError(
                    f"{str(self.root)!r} has {other!r} and {name!r}, which are the same image by "
                    "their number: take one away."
                )
        if not self._files:
            raise InputError(
                f"The folder {str(self.root)!r} has no images: expected files such as "
                "COCO_val2014_000000000042.jpg."
            )

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, image: object) -> bool:
        return isinstance(image, (str, int)) and image_key(image) in self._files

    def path(self, image: str | int) -> Path:
        """Return the file of an image; raise InputError where there is none."""
        file = self._files.get(image_key(image))
        if file is None:
            raise InputError(
                f"The folder {str(self.root)!r} has no file of the image {image!r}; it has "
                f"{len(self)} others, such as {next(iter(self._files.values()))!r}."
            )
        return self.root / file

    def __getitem__(self, image: str | int) -> Image.Image | Float[Tensor, "3 h w"]:
        return read_image(self.path(image))

    def sizes(self, images: Iterable[str | int]) -> dict[str, int]:
        """Return the bytes of each image's file by its key, -1 where it is not there."""
        sizes = {}
        for image in images:
            try:
                sizes[image_key(image)] = self.path(image).stat().st_size
            except OSError:
                sizes[image_key(image)] = -1
        return sizes
