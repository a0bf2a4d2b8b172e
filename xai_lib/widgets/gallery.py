"""The images that can be chosen: given ones by name, and uploaded ones."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from xai_lib.errors import InputError


def named_images(images) -> dict[str, object]:
    """Return {name: image} of a mapping, a sequence, a batch (4-d array or tensor) or one image.

    Files are named by their stem, other images "image 0", "image 1", ...; a name that occurs twice
    gets a number. Raises InputError where there is no image.
    """
    if isinstance(images, Mapping):
        pairs = [(str(name), image) for name, image in images.items()]
    else:
        pairs = [(_name(image, i), image) for i, image in enumerate(_listed(images))]
    named: dict[str, object] = {}
    for name, image in pairs:
        named[free_name(name, named)] = image
    if not named:
        raise InputError("There is no image to explore: give at least one, or a {name: image}.")
    return named


def free_name(name: str, taken) -> str:
    """Return `name`, or "name (2)" and so on where it is taken."""
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name} ({number})", number + 1
    return candidate


def uploaded(value) -> list[tuple[str, bytes]]:
    """Return (name, content) of each file in the value of a FileUpload.

    ipywidgets 7 has {name: {"metadata": ..., "content": bytes}}, ipywidgets 8 a tuple of
    {"name": ..., "content": memoryview, ...}.
    """
    if isinstance(value, Mapping):
        return [(name, bytes(file["content"])) for name, file in value.items()]
    return [(file["name"], bytes(file["content"])) for file in value]


def decoded(name: str, content: bytes) -> Image.Image:
    """Return the image in a file's bytes; InputError where there is none."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            return image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "it is empty" if not content else "it is damaged or of an unknown format"
        raise InputError(
            f"Cannot read {name!r} as an image, {reason}: save it again as PNG or JPEG."
        ) from error


def _listed(images) -> list:
    if isinstance(images, (np.ndarray, Tensor)):
        return list(images) if images.ndim == 4 else [images]
    one = isinstance(images, (str, os.PathLike)) or not isinstance(images, Sequence)
    return [images] if one else list(images)


def _name(image, index: int) -> str:
    return Path(image).stem if isinstance(image, (str, os.PathLike)) else f"image {index}"
