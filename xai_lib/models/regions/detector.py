"""The Visual Genome detector: images to 36 regions with features, classes and attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from xai_lib.errors import InputError, OptionError
from xai_lib.files.images import ImageLike
from xai_lib.models.regions.backbone import Backbone
from xai_lib.models.regions.config import DetectorConfig
from xai_lib.models.regions.heads import Detections, RegionHeads
from xai_lib.models.regions.preprocess import preprocess, read_rgb
from xai_lib.models.regions.proposals import ProposalGenerator
from xai_lib.models.regions.result import Regions, padded


class RegionDetector(nn.Module):
    """A C4 Faster R-CNN with an attribute head, for looking at images and never for training it.

    Ren et al., "Faster R-CNN" (NeurIPS 2015), trained with attributes by Anderson et al.,
    "Bottom-Up and Top-Down Attention" (CVPR 2018): with the published weights, the features that
    LXMERT was trained on (docs/regions.md says which those of VisualBERT are). `config`: a
    DetectorConfig or the published config as a mapping. The weights are random until
    `load_state_dict`; `load_detector` reads both from files. `class_names` and `attribute_names`
    are empty where no vocabulary was read.
    """

    def __init__(self, config: DetectorConfig | Mapping):
        super().__init__()
        if isinstance(config, Mapping):
            config = DetectorConfig.from_published(config)
        if not isinstance(config, DetectorConfig):
            raise OptionError(
                f"config is {type(config).__name__}; expected a DetectorConfig or the mapping that "
                "the published config.yaml holds. load_detector(path) reads a file."
            )
        self.config = config
        self.class_names: tuple[str, ...] = ()
        self.attribute_names: tuple[str, ...] = ()
        self.backbone = Backbone(config)
        self.proposal_generator = ProposalGenerator(config)
        self.roi_heads = RegionHeads(config)

    @torch.no_grad()
    def forward(
        self, images: ImageLike | Sequence[ImageLike], *, regions: int | None = None
    ) -> Regions:
        """Return the regions of one image or many, whatever `read_image` reads.

        `regions` is the number R of rows, `config.max_detections` if None: an image with fewer is
        filled up with zeros, of one with more the best are kept. Images go through one by one, so
        that what is seen in one never depends on its neighbours (the published code pads a batch
        to its largest image). Computed in the precision and on the device of the weights. Raises
        InputError for what is no image and for an image without a single region.
        """
        count = self.config.max_detections if regions is None else regions
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise OptionError(f"regions is {regions!r}; expected a whole number of at least 1.")
        weight = self.backbone.stem.conv1.weight
        raw = read_rgb(images)
        found, boxes = [], []
        for index, image in enumerate(raw):
            pixels = preprocess(image, self.config).to(weight)
            detections = self.detect(pixels[None])
            if not len(detections.boxes):
                raise InputError(
                    f"The detector finds nothing in image {index} of {len(raw)}, not even a poor "
                    "region. Look at the image, and at the weights if this happens for all."
                )
            height, width = pixels.shape[1:]
            found.append(detections)
            boxes.append(detections.boxes / weight.new_tensor([width, height, width, height]))
        columns = {
            name: padded([getattr(each, name) for each in found], count)
            for name in Detections._fields
            if name != "boxes"
        }
        present = [torch.ones(len(rows), dtype=torch.bool, device=rows.device) for rows in boxes]
        return Regions(
            boxes=padded(boxes, count),
            present=padded(present, count),
            sizes=torch.tensor([image.shape[1:] for image in raw], device=weight.device),
            **columns,
        )

    @torch.no_grad()
    def detect(self, pixels: Float[Tensor, "1 3 h w"]) -> Detections:
        """Return the detections of one preprocessed image, boxes in its pixels, best first."""
        size = tuple(pixels.shape[2:])
        features = self.backbone(pixels)
        (proposals,) = self.proposal_generator(features, [size])
        outputs = self.roi_heads(features, proposals.boxes)
        return self.roi_heads.choose(self.roi_heads.candidates(outputs, proposals.boxes, size))
