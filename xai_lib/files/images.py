"""Reading one image from whatever a user has: a file, a PIL image, an array or a tensor."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

from xai_lib.errors import InputError

T = TypeVar("T")

ImageLike = str | os.PathLike | Image.Image | np.ndarray | Tensor

# Bicubic filters overshoot a little; anything beyond this is another scale, not round-off.
RANGE_TOLERANCE = 1e-3
# White in 16 bits.
DEEP = 65535
# What PIL raises for a file that it cannot read.
UNREADABLE = (OSError, SyntaxError, ValueError)


def read_image(source: ImageLike) -> Image.Image | Float[Tensor, "3 h w"]:
    """Return `source` as an 8-bit RGB PIL image, or, where it is finer, as float32 in [0, 1].

    Files and PIL images are turned upright by their EXIF orientation, transparency is laid over
    white, grey is repeated over three channels and 16-bit or float grey keeps its precision. PIL's
    mode I (32 bits) has no full scale of its own: up to 255 it is read as 8 bits, as by PIL, above
    as 16. Arrays have channels last, (h, w) or (h, w, 1|3|4); tensors channels first, (h, w) or
    (1|3|4, h, w). Raises InputError for anything else, for unreadable or truncated files, NaN,
    values outside the range of the dtype, and 16-bit values that only fill 8 bits (the image would
    be black, or its values are 8-bit ones).
    """
    if isinstance(source, (str, os.PathLike)):
        return _read_file(Path(source))
    if isinstance(source, Image.Image):
        return _from_pil(source, "the image")
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Tensor):
        return _from_tensor(source)
    raise InputError(
        f"Cannot read an image from {type(source).__name__}: "
        "give a path, a PIL image, an array or a tensor."
    )


def read_each(
    images: ImageLike | Sequence[ImageLike], read: Callable[[ImageLike], T], purpose: str
) -> list[T]:
    """Return `read(image)` of one image or of each of many: a list, or an array or tensor of four.

    Raises InputError for an empty list ("there is no image to ..." `purpose`), and what `read`
    raises, naming the image's place in the list.
    """
    if isinstance(images, (list, tuple)) or (
        isinstance(images, (np.ndarray, Tensor)) and images.ndim == 4
    ):
        many = list(images)
    else:
        many = [images]
    if not many:
        raise InputError(f"There is no image to {purpose}: the list is empty.")
    found = []
    for index, image in enumerate(many):
        try:
            found.append(read(image))
        except InputError as error:
            place = f"Image {index} of {len(many)}: " if len(many) > 1 else ""
            raise InputError(f"{place}{error}") from error
    return found


def _read_file(path: Path) -> Image.Image | Tensor:
    if not path.is_file():
        raise InputError(f"No image file at {str(path)!r}: give the path of a local image file.")
    try:
        with Image.open(path) as image:
            return _from_pil(image, str(path))
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{str(path)!r} has more pixels than Pillow opens unasked ({error}) It need not be "
            "damaged: save a smaller copy, or, if you trust the file, set "
            "PIL.Image.MAX_IMAGE_PIXELS = None first."
        ) from error
    except UNREADABLE as error:
        raise _unreadable(str(path), error) from error


def _unreadable(name: str, error: Exception) -> InputError:
    return InputError(
        f"Cannot read {name!r} as an image, it is damaged, truncated or of an unknown format "
        f"({error}): save it again as PNG or JPEG."
    )


def _from_pil(image: Image.Image, name: str) -> Image.Image | Tensor:
    try:
        # PIL reads the pixels of an opened file here, not before.
        image = ImageOps.exif_transpose(image)
    except UNREADABLE as error:
        raise _unreadable(name, error) from error
    if image.mode == "F":
        return _from_float_grey(np.array(image, np.float32), name)
    if image.mode.startswith("I"):
        values = np.array(image, np.float64)
        if isinstance(clear := image.info.get("transparency"), int):
            values[values == clear] = DEEP
        return _from_deep_grey(values, name, narrow=image.mode == "I")
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _from_deep_grey(values: np.ndarray, name: str, *, narrow: bool) -> Tensor:
    """Return grey of over 8 bits in [0, 1]. narrow: whether values up to 255 are 8-bit ones."""
    if values.size and (values.min() < 0 or values.max() > DEEP):
        raise InputError(f"{name} has grey values beyond 16 bits: scale them to 0..{DEEP}.")
    full = 255 if narrow and values.max(initial=0) <= 255 else DEEP
    if full == DEEP:
        _check_depth(values.max(initial=0), name)
    return _from_tensor(torch.from_numpy((values / full).astype(np.float32)))


def _from_float_grey(values: np.ndarray, name: str) -> Tensor:
    try:
        return _from_tensor(torch.from_numpy(values))
    except InputError as error:
        raise InputError(
            f"{name} has PIL's mode F: {error} For values of 0..255 that is image.convert('L')."
        ) from error


def _check_depth(highest: float, name: str) -> None:
    """Refuse 16-bit values of which nobody knows whether they are 8-bit ones."""
    if 0 < highest <= 255:
        raise InputError(
            f"{name} has 16 bits, and none of its values is over {highest:g}: of {DEEP} that is "
            "black. Give 8-bit values as uint8, such as np.asarray(image).astype('uint8'); a "
            f"picture as dark as that as floats, np.asarray(image) / {DEEP}."
        )


def _from_array(array: np.ndarray) -> Image.Image | Tensor:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise InputError(
            f"An array of shape {array.shape} is no image: expected (h, w) or (h, w, 1|3|4), "
            "channels last; tensors have channels first."
        )
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    # torch takes the machine's own order of bytes alone.
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype == np.uint8:
        return _from_pil(Image.fromarray(array), "the array")
    if array.ndim == 3:
        array = array.transpose(2, 0, 1)
    try:
        return _from_tensor(torch.from_numpy(np.ascontiguousarray(array)))
    except TypeError as error:
        raise InputError(
            f"An image cannot be an array of {array.dtype}: give uint8 or floats in [0, 1]."
        ) from error


def _from_tensor(tensor: Tensor) -> Tensor:
    if tensor.ndim == 2:
        tensor = tensor[None]
    if tensor.ndim != 3 or tensor.numel() == 0 or tensor.shape[0] not in (1, 3, 4):
        raise InputError(
            f"A tensor of shape {tuple(tensor.shape)} is no image: expected (h, w) or "
            "(1|3|4, h, w), channels first; arrays have channels last."
        )
    if tensor.is_complex():
        raise InputError(f"An image cannot be {tensor.dtype}: give uint8 or floats in [0, 1].")
    if not tensor.is_floating_point():
        full = {torch.bool: 1, torch.uint16: DEEP}.get(tensor.dtype, 255)
        tensor = tensor.float()
        if full == DEEP:
            _check_depth(tensor.max().item(), "The image")
        if tensor.min() < 0 or tensor.max() > full:
            raise InputError("Integer pixels must lie in 0..255, or be uint16 and use its range.")
        tensor = tensor / full
    tensor = tensor.float()
    if not torch.isfinite(tensor).all():
        raise InputError("The image has NaN or infinite pixels.")
    low, high = tensor.min().item(), tensor.max().item()
    if low < -RANGE_TOLERANCE or high > 1 + RANGE_TOLERANCE:
        raise InputError(
            f"Float pixels must lie in [0, 1], these reach from {low:.3g} to {high:.3g}: "
            "divide by 255, or undo a normalisation that was applied already."
        )
    tensor = tensor.clamp(0, 1)
    if tensor.shape[0] == 4:
        colour, alpha = tensor[:3], tensor[3:]
        return colour * alpha + (1 - alpha)
    return tensor.expand(3, -1, -1)
