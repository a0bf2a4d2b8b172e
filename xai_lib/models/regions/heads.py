"""From proposals to regions: pooling, res5, classes, attributes and the final boxes."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torchvision.ops import nms, roi_pool

from xai_lib.models.regions.backbone import STRIDE, stage
from xai_lib.models.regions.boxes import clip_boxes, decode_boxes, first_sufficient
from xai_lib.models.regions.config import DetectorConfig

# Proposals that go through res5 at once: 300 of them with 1024 x 14 x 14 would fill a laptop.
AT_ONCE = 64


class HeadOutputs(NamedTuple):
    """Per proposal: features (n, d), class and attribute logits (the last is none), offsets."""

    features: Float[Tensor, "n d"]
    class_logits: Float[Tensor, "n classes+1"]
    attribute_logits: Float[Tensor, "n attributes+1"]
    deltas: Float[Tensor, "n 4*classes"]


class Detections(NamedTuple):
    """One image's regions, best first; boxes in pixels of the resized image."""

    features: Float[Tensor, "r d"]
    boxes: Float[Tensor, "r 4"]
    classes: Int[Tensor, " r"]
    scores: Float[Tensor, " r"]
    attributes: Int[Tensor, " r"]
    attribute_scores: Float[Tensor, " r"]


class BoxPredictor(nn.Module):
    """Linear classes and offsets, and attributes that know which class was found.

    Anderson et al., "Bottom-Up and Top-Down Attention" (CVPR 2018): the feature is joined with an
    embedding of the most probable class, background among them, then one hidden layer and relu.
    """

    def __init__(self, config: DetectorConfig):
        super().__init__()
        width = config.features
        self.cls_score = nn.Linear(width, config.classes + 1)
        self.bbox_pred = nn.Linear(width, 4 * (1 if config.class_agnostic else config.classes))
        self.cls_embedding = nn.Embedding(config.classes + 1, width // 8)
        self.fc_attr = nn.Linear(width + width // 8, width // 4)
        self.attr_score = nn.Linear(width // 4, config.attributes + 1)

    def forward(self, features: Float[Tensor, "n d"]) -> HeadOutputs:
        """Return `features` with their logits and offsets."""
        logits = self.cls_score(features)
        joined = torch.cat([features, self.cls_embedding(logits.argmax(-1))], dim=-1)
        attributes = self.attr_score(F.relu(self.fc_attr(joined)))
        return HeadOutputs(features, logits, attributes, self.bbox_pred(features))


class RegionHeads(nn.Module):
    """RoIPool on res4, res5 and its mean over places, then the predictor."""

    def __init__(self, config: DetectorConfig):
        super().__init__()
        self.res5 = stage(config, 5)
        self.box_predictor = BoxPredictor(config)
        self.config = config

    def forward(
        self, features: Float[Tensor, "1 c h w"], boxes: Float[Tensor, "n 4"]
    ) -> HeadOutputs:
        """Return the outputs for the proposals `boxes` of one image, in pixels."""
        pooled = [
            self.res5(roi_pool(features, [part], self.config.pool, spatial_scale=1 / STRIDE)).mean(
                (2, 3)
            )
            for part in boxes.split(AT_ONCE)
        ]
        return self.box_predictor(torch.cat(pooled))

    def candidates(
        self, outputs: HeadOutputs, proposals: Float[Tensor, "n 4"], size: tuple[int, int]
    ) -> Detections:
        """Return each proposal with its best class but background, and the box of that class."""
        scores, classes = outputs.class_logits.softmax(-1)[:, :-1].max(-1)
        boxes = decode_boxes(outputs.deltas, proposals, self.config.box_weights)
        boxes = boxes.unflatten(-1, (-1, 4))
        of_class = torch.zeros_like(classes) if self.config.class_agnostic else classes
        boxes = boxes[torch.arange(len(boxes), device=boxes.device), of_class]
        # "No attribute" is left out before the softmax, background after it.
        certain, attributes = outputs.attribute_logits[:, :-1].softmax(-1).max(-1)
        boxes = clip_boxes(boxes, *size)
        return Detections(outputs.features, boxes, classes, scores, attributes, certain)

    def survivors(self, candidates: Detections) -> list[Int[Tensor, " k"]]:
        """Return the candidates that survive NMS at each threshold, best first."""
        boxes, scores = candidates.boxes, candidates.scores
        return [nms(boxes, scores, threshold) for threshold in self.config.nms_thresholds]

    def choose(self, candidates: Detections) -> Detections:
        """Return the survivors of the first threshold that leaves `min_detections` of them.

        One NMS over the best boxes, whatever their class; at most `max_detections`. Where no
        threshold leaves enough, those of the last one.
        """
        config = self.config
        kept = first_sufficient(
            self.survivors(candidates), config.min_detections, config.max_detections
        )
        return Detections(*(field[kept] for field in candidates))
