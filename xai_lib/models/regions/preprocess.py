"""From an image to what the detector takes: its shortest side resized, channels in its order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from xai_lib.errors import InputError
from xai_lib.files.images import ImageLike, read_each, read_image
from xai_lib.models.regions.backbone import STRIDE
from xai_lib.models.regions.config import DetectorConfig


def read_rgb(images: ImageLike | Sequence[ImageLike]) -> list[Float[Tensor, "3 h w"]]:
    """Return one image or many as float32 RGB in [0, 1], each in its own size.

    Raises InputError for an empty list and for an image that `read_image` cannot read, naming its
    place in the list.
    """
    return read_each(images, _rgb, "look for regions in")


def _rgb(source: ImageLike) -> Float[Tensor, "3 h w"]:
    image = read_image(source)
    if isinstance(image, Image.Image):
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    return image


def resized_size(height: int, width: int, shortest: int, longest: int) -> tuple[int, int]:
    """Return (height, width) scaled so that min = `shortest`, or max = `longest` if that is less.

    Each side is floor(scale side + 1/2).
    """
    scale = min(shortest / min(height, width), longest / max(height, width))
    return int(height * scale + 0.5), int(width * scale + 0.5)


def preprocess(
    image: Float[Tensor, "3 h w"], config: DetectorConfig
) -> Float[Tensor, "3 height width"]:
    """Return an RGB image in [0, 1] as the detector takes it: (255 image - mean) / std, resized.

    Bilinear without an antialiasing filter, on floats, as the published features were made; the
    channels come in the config's order, of which its mean and std are. Raises InputError for an
    image so narrow that nothing would be left of it.
    """
    size = resized_size(*image.shape[1:], config.min_size, config.max_size)
    if min(size) < STRIDE:
        raise InputError(
            f"An image of {image.shape[2]} x {image.shape[1]} pixels becomes {size[1]} x {size[0]} "
            f"for the detector, which needs {STRIDE} on each side: cut a less narrow part of it."
        )
    values = 255 * image
    if config.channels == "BGR":
        values = values.flip(0)
    values = F.interpolate(values[None], size=size, mode="bilinear", align_corners=False)[0]
    mean, std = (values.new_tensor(entry).view(-1, 1, 1) for entry in (config.mean, config.std))
    return (values - mean) / std
