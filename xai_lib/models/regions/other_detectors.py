"""Regions without the Visual Genome weights: boxes and features of any torchvision detector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import roi_align

from xai_lib.errors import InputError, OptionError, UnsupportedModelError
from xai_lib.files.images import ImageLike
from xai_lib.models.regions.preprocess import read_rgb
from xai_lib.models.regions.result import Regions, padded

POOL = 7  # cells per side over which a box's features are averaged where there is no box head
# What every torchvision detector has, in the order in which an image passes through them.
PARTS = ("transform", "backbone")


@torch.no_grad()
def torchvision_regions(
    model: nn.Module,
    images: ImageLike | Sequence[ImageLike],
    *,
    regions: int = 36,
    min_score: float = 0.0,
) -> Regions:
    """Return the `regions` best boxes of each image and features from `model`'s own network.

    `model` is a torchvision detector in eval mode: Faster, Mask or Keypoint R-CNN, whose features
    are the outputs of the box head (1024 wide), or RetinaNet, FCOS or SSD, where they are the mean
    of RoIAlign on the largest feature map. Classes are the model's own, attributes None. THE
    FEATURES LIE IN ANOTHER SPACE than LXMERT and VisualBERT were trained on, whose answers to them
    mean nothing: these regions are for looking, and for training one's own model
    (docs/regions.md). Raises InputError for an image without a box that scores `min_score`,
    OptionError for a model in training mode and UnsupportedModelError for another kind of model.
    """
    _check(model, regions, min_score)
    raw = read_rgb(images)
    weight = next(model.parameters())
    rows = []
    for index, image in enumerate(raw):
        found, features = _detect(model, image.to(weight))
        order = found["scores"].argsort(descending=True, stable=True)
        order = order[found["scores"][order] >= min_score][:regions]
        if not len(order):
            raise InputError(
                f"The detector finds nothing that scores {min_score} in image {index} of "
                f"{len(raw)}: lower min_score, or the model's own threshold (box_score_thresh or "
                "score_thresh, when it is built)."
            )
        height, width = image.shape[1:]
        limit = weight.new_tensor([width, height, width, height])
        rows.append(
            {
                "features": features(found["boxes"][order]),
                "boxes": (found["boxes"][order] / limit).clamp(0, 1),
                "classes": found["labels"][order],
                "scores": found["scores"][order],
                "present": torch.ones_like(order, dtype=torch.bool),
            }
        )
    columns = {name: padded([row[name] for row in rows], regions) for name in rows[0]}
    sizes = torch.tensor([image.shape[1:] for image in raw], device=weight.device)
    return Regions(attributes=None, attribute_scores=None, sizes=sizes, **columns)


def _check(model: nn.Module, regions: int, min_score: float) -> None:
    if not all(isinstance(getattr(model, name, None), nn.Module) for name in PARTS):
        raise UnsupportedModelError(
            f"{type(model).__name__} is no torchvision detector: it lacks {' or '.join(PARTS)}. "
            "Give one, such as torchvision.models.detection.fasterrcnn_resnet50_fpn."
        )
    if model.training:
        raise OptionError("The model is in training mode and would ask for targets: model.eval().")
    if isinstance(regions, bool) or not isinstance(regions, int) or regions < 1:
        raise OptionError(f"regions is {regions!r}; expected a whole number of at least 1.")
    if not isinstance(min_score, (int, float)) or not 0 <= min_score <= 1:
        raise OptionError(f"min_score is {min_score!r}; expected a probability in [0, 1].")


def _detect(
    model: nn.Module, image: Float[Tensor, "3 h w"]
) -> tuple[dict[str, Tensor], Callable[[Tensor], Tensor]]:
    """Return the model's detections in one image, and what makes features of boxes in it.

    The transform and the backbone are listened to while the model runs, so that features come from
    the very maps that the boxes were found on.
    """
    seen = {}
    handles = [
        getattr(model, name).register_forward_hook(
            lambda _module, _inputs, output, name=name: seen.__setitem__(name, output)
        )
        for name in PARTS
    ]
    try:
        (found,) = model([image])
    finally:
        for handle in handles:
            handle.remove()
    batch, maps = seen["transform"][0], seen["backbone"]
    maps = maps if isinstance(maps, Mapping) else {"0": maps}
    (size,) = batch.image_sizes
    # From the image's pixels to those that the network saw.
    ratio = image.new_tensor([size[1] / image.shape[2], size[0] / image.shape[1]] * 2)

    def features(boxes: Float[Tensor, "r 4"]) -> Float[Tensor, "r d"]:
        return _pool(model, maps, boxes * ratio, batch)

    return found, features


def _pool(model: nn.Module, maps: Mapping[str, Tensor], boxes: Tensor, batch) -> Tensor:
    heads = getattr(model, "roi_heads", None)
    if heads is not None:
        return heads.box_head(heads.box_roi_pool(maps, [boxes], batch.image_sizes))
    largest = max(maps.values(), key=lambda level: level.shape[-1])
    scale = largest.shape[-1] / batch.tensors.shape[-1]
    return roi_align(largest, [boxes], POOL, spatial_scale=scale, aligned=True).mean((2, 3))
