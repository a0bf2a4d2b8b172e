"""From images to what a model takes, and back to what a person sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from xai_lib.errors import InputError
from xai_lib.models.images import ImageLike, read_image


@dataclass(frozen=True)
class Processor:
    """Resize, scale and normalise images for one model: x = (image / 255 - mean) / std.

    Images are squashed to `size` = (H, W) with an antialiased bicubic filter and never cropped, so
    that the model and the explanation see all of the image. `class_names` holds the model's classes
    in order, or is empty.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...] = ()

    def __call__(
        self, images: ImageLike | Sequence[ImageLike]
    ) -> dict[str, Float[Tensor, "batch 3 height width"]]:
        """Return {"pixel_values": (B, 3, H, W) float32} for one image, a list, or a 4-d array.

        Accepts what `read_image` accepts, one or many. Raises InputError for an empty list or an
        image that cannot be read, naming its place in the list.
        """
        if isinstance(images, (list, tuple)) or (
            isinstance(images, (np.ndarray, Tensor)) and images.ndim == 4
        ):
            many = list(images)
        else:
            many = [images]
        if not many:
            raise InputError("There is no image to explain: the list is empty.")
        pixels = []
        for index, image in enumerate(many):
            try:
                pixels.append(self._fit(read_image(image)))
            except InputError as error:
                place = f"Image {index} of {len(many)}: " if len(many) > 1 else ""
                raise InputError(f"{place}{error}") from error
        batch = torch.stack(pixels)
        mean, std = self._statistics(batch)
        return {"pixel_values": (batch - mean) / std}

    def denormalize(
        self, pixel_values: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Return the images in [0, 1] that `pixel_values` came from: clip(x * std + mean, 0, 1)."""
        mean, std = self._statistics(pixel_values)
        return (pixel_values * std + mean).clamp(0, 1)

    def _fit(self, image: Image.Image | Tensor) -> Float[Tensor, "3 height width"]:
        height, width = self.size
        if isinstance(image, Image.Image):
            # 8-bit images go through PIL, as for the published models: its result is rounded.
            if image.size != (width, height):
                image = image.resize((width, height), Image.Resampling.BICUBIC)
            return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        if image.shape[1:] != (height, width):
            image = F.interpolate(
                image[None], size=self.size, mode="bicubic", antialias=True, align_corners=False
            )[0].clamp(0, 1)
        return image

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = (like.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return mean, std
