"""What the scene models learn: the image's label, token labels, and the teacher's decision.

Next to the image's label every patch token learns which class covers it (token labels, Jiang et al.
2021) through a linear head that is dropped afterwards. The distilled model's second token learns
the teacher's hard decision (DeiT, Touvron et al. 2021, section 4).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xai_lib.datasets.worlds.scenes import SCENE_CLASSES, SceneBatch

PATCH = 8
MEAN, STD = 0.5, 0.25
TOKEN_WEIGHT = 2.0


class Teacher(nn.Sequential):
    """A ConvNet of six 3x3 layers with batch norm, for images of any size."""

    def __init__(self, classes: int = len(SCENE_CLASSES)):
        widths = [(3, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
        layers = []
        for before, after, stride in widths:
            layers += [
                nn.Conv2d(before, after, 3, stride, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, classes))


def image_targets(batch: SceneBatch) -> Tensor:
    """Return the label distribution (n, classes): equal shares of the objects, uniform if none."""
    present = batch.labels >= 0
    shares = F.one_hot(batch.labels.clamp_min(0), len(SCENE_CLASSES)) * present[..., None]
    shares = shares.sum(1) + (~present.any(1))[:, None]
    return shares / shares.sum(1, keepdim=True)


def token_targets(batch: SceneBatch) -> Tensor:
    """Return what covers each patch (n, patches, classes + 1): area shares, background last."""
    cover = F.avg_pool2d(batch.masks.float(), PATCH).flatten(2)
    classes = F.one_hot(batch.labels.clamp_min(0), len(SCENE_CLASSES)).float()
    share = torch.einsum("nkp,nkc->npc", cover, classes)
    return torch.cat((share, 1 - share.sum(-1, keepdim=True)), -1)


def normalise(images: Tensor) -> Tensor:
    """Return images in [0, 1] as the models read them."""
    return (images - MEAN) / STD


def scene_losses(
    model: nn.Module, teacher: nn.Module | None, tokens: nn.Module | None, batch: SceneBatch
) -> dict[str, Tensor]:
    """Return the loss terms of one batch: class token, distillation token, patch tokens."""
    features = model.forward_features(normalise(batch.image))
    wanted = image_targets(batch)
    if teacher is None:
        terms = {"class": F.cross_entropy(model.forward_head(features), wanted)}
    else:
        with torch.no_grad():
            decided = teacher(normalise(batch.image)).argmax(1)
        decided = F.one_hot(decided, len(SCENE_CLASSES)).float()
        # An empty scene has no decision to copy: both heads learn the uniform distribution.
        decided = torch.where((batch.labels >= 0).any(1)[:, None], decided, wanted)
        terms = {
            "class": 0.5 * F.cross_entropy(model.head(features[:, 0]), wanted),
            "distilled": 0.5 * F.cross_entropy(model.head_dist(features[:, 1]), decided),
        }
    if tokens is not None:
        patches = tokens(features[:, model.num_prefix_tokens :]).flatten(0, 1)
        covered = token_targets(batch).flatten(0, 1)
        terms["tokens"] = TOKEN_WEIGHT * F.cross_entropy(patches, covered)
    return terms
