"""From images to what a model takes, and back to what a person sees."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8
from PIL import Image
from torch import Tensor

from xai_lib.errors import unknown_name
from xai_lib.files.images import ImageLike, read_each, read_image
from xai_lib.files.writing import write_text

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True)
class Processor:
    """Resize, scale and normalise images for one model: x = (image / 255 - mean) / std.

    Images are squashed to `size` = (H, W) with an antialiased filter and never cropped, so that the
    model and the explanation see all of the image. `class_names` holds the model's classes in
    order, or is empty. `resample` is the filter, "bicubic" or, as in the evaluations of Chefer et
    al. (CVPR 2021), "bilinear"; `dataclasses.replace(processor, resample="bilinear")` sets it.
    """

    modality: ClassVar[str] = "image"
    # Whether the model compares images with texts: a classifier once these are fixed, `zero_shot`.
    classes_are_texts: ClassVar[bool] = False
    # Fields that tell the inputs of one processor from those of another.
    identity: ClassVar[tuple[str, ...]] = ("size", "mean", "std")
    # How a fraction of heads becomes a number, see `HeadScores.mask`.
    head_counts: ClassVar[str] = "floor_pruned"

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...] = ()
    resample: str = "bicubic"

    def __post_init__(self):
        if self.resample not in FILTERS:
            raise unknown_name("filter for resizing,", self.resample, FILTERS)

    def __call__(
        self, images: ImageLike | Sequence[ImageLike]
    ) -> dict[str, Float[Tensor, "batch 3 height width"]]:
        """Return {"pixel_values": (B, 3, H, W) float32} for one image, a list, or a 4-d array.

        Accepts what `read_image` accepts, one or many. Raises InputError for an empty list or an
        image that cannot be read, naming its place in the list.
        """
        return {"pixel_values": self.of(torch.stack(read_each(images, self.squash, "explain")))}

    def inputs_of(self, samples: Sequence) -> dict[str, Float[Tensor, "batch 3 height width"]]:
        """Return what the model takes of samples of an image data set."""
        return self([sample.image for sample in samples])

    def save_pretrained(self, folder: Path) -> None:
        """Write preprocessor_config.json, as transformers' image processors read it."""
        height, width = self.size
        facts = {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": True,
            "size": {"height": height, "width": width},
            "resample": int(FILTERS[self.resample]),
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }
        write_text(folder / "preprocessor_config.json", json.dumps(facts, indent=1) + "\n")

    def of(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 h w"]:
        """Return images in [0, 1] that have the model's size, as `squash` makes them, normalised.

        (image - mean) / std, in the dtype of the images.
        """
        mean, std = self._statistics(images)
        return (images - mean) / std

    def squash(self, image: ImageLike) -> Float[Tensor, "3 height width"]:
        """Return one image at `size` in [0, 1], not yet normalised, in float32.

        8-bit images are resized by PIL, as for the published models, which rounds to 256 levels;
        finer ones by the same filter in torch. Raises InputError as `read_image` does.
        """
        image = read_image(image)
        height, width = self.size
        if isinstance(image, Image.Image):
            if image.size != (width, height):
                image = image.resize((width, height), FILTERS[self.resample])
            return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        if image.shape[1:] != (height, width):
            image = F.interpolate(
                image[None], size=self.size, mode=self.resample, antialias=True, align_corners=False
            )[0].clamp(0, 1)
        return image

    def squash_mask(self, mask: Int8[Tensor, "h w"]) -> Int8[Tensor, "height width"]:
        """Return a mask (of 1, 0 and -1) at `size` by nearest neighbour, exactly as PIL picks it.

        The pixel (y, x) is the mask's at (floor((y + 1/2) h / H), floor((x + 1/2) w / W)).
        """
        height, width = self.size
        shifted = Image.fromarray((mask.cpu().numpy().astype(np.int16) + 128).astype(np.uint8))
        resized = np.array(shifted.resize((width, height), Image.Resampling.NEAREST))
        return torch.from_numpy((resized.astype(np.int16) - 128).astype(np.int8))

    def denormalize(
        self, pixel_values: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Return the images in [0, 1] that `pixel_values` came from: clip(x * std + mean, 0, 1)."""
        mean, std = self._statistics(pixel_values)
        return (pixel_values * std + mean).clamp(0, 1)

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = (like.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return mean, std
