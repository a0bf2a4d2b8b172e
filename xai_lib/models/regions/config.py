"""What a Visual Genome detector was built with, read from its published configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from xai_lib.errors import CheckpointError

# Blocks of res2, res3, res4 and res5 (He et al., CVPR 2016, table 1).
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


@dataclass(frozen=True)
class DetectorConfig:
    """The numbers of a C4 Faster R-CNN with an attribute head, in pixels of the resized image.

    depth: 50, 101 or 152. stem, res2, width, groups: channels after the stem and after res2, and of
    one group inside a bottleneck of res2; each later stage doubles. stride_in_1x1: where the
    stride of a stage sits, in the first 1x1 convolution (as caffe's ResNet) or in the 3x3.
    caffe_pool: the pooling after the stem adds no border and rounds up. res5_dilated: res5 keeps
    its resolution, with dilation 2. anchor_sizes, anchor_ratios (height / width), anchor_offset (in
    strides): the anchors of each cell. before_nms, after_nms: proposals kept by logit before and
    after the proposals' NMS. nms_thresholds: tried in order until `min_detections` are left.
    mean, std: of the channels in the order `channels` ("BGR" or "RGB"), on the scale 0..255.
    """

    depth: int
    stem: int
    res2: int
    width: int
    groups: int
    stride_in_1x1: bool
    caffe_pool: bool
    res5_dilated: bool
    anchor_sizes: tuple[float, ...]
    anchor_ratios: tuple[float, ...]
    anchor_offset: float
    proposal_channels: int
    proposal_nms: float
    before_nms: int
    after_nms: int
    proposal_weights: tuple[float, ...]
    min_box: float
    classes: int
    attributes: int
    pool: int
    box_weights: tuple[float, ...]
    class_agnostic: bool
    nms_thresholds: tuple[float, ...]
    min_detections: int
    max_detections: int
    channels: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    min_size: int
    max_size: int

    @property
    def features(self) -> int:
        """The width of a region's feature: the channels of res5 (2048 as published)."""
        return 8 * self.res2

    @classmethod
    def from_published(cls, content: Mapping, source: str = "The config") -> DetectorConfig:
        """Return the config that nested sections describe, in upper or lower case.

        Raises CheckpointError that lists each field which is missing or has another kind of value,
        and for a network that is not this one: another normalisation, no attribute head.
        """
        flat = _flatten(content)
        problems = [name for name in FIELDS if FIELDS[name][0] not in flat]
        if problems:
            names = ", ".join(FIELDS[name][0] for name in problems)
            raise CheckpointError(
                f"{source} lacks {names}: it is not the configuration of the Visual Genome "
                "Faster R-CNN. Copy the config that belongs to the weights."
            )
        for key, expected in REQUIRED.items():
            if key in flat and flat[key] not in expected:
                raise CheckpointError(
                    f"{source} has {key} = {flat[key]!r}; this detector is built for "
                    f"{' or '.join(map(repr, expected))} only, other weights need another model."
                )
        values = {name: _value(flat, name, source) for name in FIELDS}
        values["res5_dilated"] = not values["res5_dilated"]
        config = cls(**values)
        config._check(source)
        return config

    def _check(self, source: str) -> None:
        rules = {
            f"RESNETS.DEPTH is one of {sorted(BLOCKS)}": self.depth in BLOCKS,
            "INPUT.FORMAT is 'BGR' or 'RGB'": self.channels in ("BGR", "RGB"),
            "MODEL.PIXEL_MEAN and PIXEL_STD have three numbers, none of PIXEL_STD 0": (
                len(self.mean) == len(self.std) == 3 and all(self.std)
            ),
            "BBOX_REG_WEIGHTS have four positive numbers": all(
                len(weights) == 4 and min(weights) > 0
                for weights in (self.proposal_weights, self.box_weights)
            ),
            "ANCHOR_GENERATOR names sizes and ratios above 0": all(
                values and min(values) > 0 for values in (self.anchor_sizes, self.anchor_ratios)
            ),
            "ROI_HEADS.NMS_THRESH_TEST names thresholds in [0, 1]": (
                len(self.nms_thresholds) > 0
                and all(0 <= threshold <= 1 for threshold in self.nms_thresholds)
            ),
            "1 <= MIN_DETECTIONS <= MAX_DETECTIONS": (
                1 <= self.min_detections <= self.max_detections
            ),
            "1 <= INPUT.MIN_SIZE_TEST <= INPUT.MAX_SIZE_TEST": 1 <= self.min_size <= self.max_size,
            "counts and channels are at least 1": min(
                *(self.stem, self.res2, self.width, self.groups, self.proposal_channels),
                *(self.before_nms, self.after_nms, self.classes, self.attributes, self.pool),
            )
            >= 1,
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            raise CheckpointError(
                f"{source} describes no detector, expected: {'; '.join(broken)}. "
                "Copy the config that belongs to the weights."
            )


def _numbers(value: Any) -> tuple[float, ...]:
    # The published config nests a list per feature level; C4 has one level.
    if isinstance(value, (list, tuple)) and len(value) == 1 and isinstance(value[0], (list, tuple)):
        value = value[0]
    if not isinstance(value, (list, tuple)):
        value = [value]
    return tuple(_number(entry) for entry in value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError("expected a number")
    return float(value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        raise TypeError("expected a whole number")
    return int(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("expected true or false")
    return value


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("expected a word")
    return value.upper()


# Where each number stands in the published configuration, and what it must be.
FIELDS: dict[str, tuple[str, Callable]] = {
    "depth": ("RESNETS.DEPTH", _count),
    "stem": ("RESNETS.STEM_OUT_CHANNELS", _count),
    "res2": ("RESNETS.RES2_OUT_CHANNELS", _count),
    "width": ("RESNETS.WIDTH_PER_GROUP", _count),
    "groups": ("RESNETS.NUM_GROUPS", _count),
    "stride_in_1x1": ("RESNETS.STRIDE_IN_1X1", _flag),
    "caffe_pool": ("MODEL.MAX_POOL", _flag),
    # The config says whether res5 halves the resolution; dilation takes its place where not.
    "res5_dilated": ("ROI_BOX_HEAD.RES5HALVE", _flag),
    "anchor_sizes": ("ANCHOR_GENERATOR.SIZES", _numbers),
    "anchor_ratios": ("ANCHOR_GENERATOR.ASPECT_RATIOS", _numbers),
    "anchor_offset": ("ANCHOR_GENERATOR.OFFSET", _number),
    "proposal_channels": ("PROPOSAL_GENERATOR.HIDDEN_CHANNELS", _count),
    "proposal_nms": ("RPN.NMS_THRESH", _number),
    "before_nms": ("RPN.PRE_NMS_TOPK_TEST", _count),
    "after_nms": ("RPN.POST_NMS_TOPK_TEST", _count),
    "proposal_weights": ("RPN.BBOX_REG_WEIGHTS", _numbers),
    "min_box": ("PROPOSAL_GENERATOR.MIN_SIZE", _number),
    "classes": ("ROI_HEADS.NUM_CLASSES", _count),
    "attributes": ("ROI_BOX_HEAD.NUM_ATTRS", _count),
    "pool": ("ROI_BOX_HEAD.POOLER_RESOLUTION", _count),
    "box_weights": ("ROI_BOX_HEAD.BBOX_REG_WEIGHTS", _numbers),
    "class_agnostic": ("ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", _flag),
    "nms_thresholds": ("ROI_HEADS.NMS_THRESH_TEST", _numbers),
    "min_detections": ("MIN_DETECTIONS", _count),
    "max_detections": ("MAX_DETECTIONS", _count),
    "channels": ("INPUT.FORMAT", _word),
    "mean": ("MODEL.PIXEL_MEAN", _numbers),
    "std": ("MODEL.PIXEL_STD", _numbers),
    "min_size": ("INPUT.MIN_SIZE_TEST", _count),
    "max_size": ("INPUT.MAX_SIZE_TEST", _count),
}
# Switches of the published code that would make another network; absent means as here.
REQUIRED = {
    "RESNETS.NORM": ("BN", "FrozenBN"),
    "RESNETS.OUT_FEATURES": (["res4"],),
    "RESNETS.RES5_DILATION": (1,),
    "ROI_BOX_HEAD.ATTR": (True,),
    "SIZE_DIVISIBILITY": (0,),
}


def _flatten(content: Mapping, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in content.items():
        name = prefix + str(key).upper()
        if isinstance(value, Mapping):
            flat |= _flatten(value, name + ".")
        else:
            flat[name] = value
    return flat


def _value(flat: dict[str, Any], name: str, source: str) -> Any:
    key, read = FIELDS[name]
    try:
        return read(flat[key])
    except (TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(
            f"{source} has {key} = {flat[key]!r}; {error}. Copy the config that belongs to the "
            "weights."
        ) from error
