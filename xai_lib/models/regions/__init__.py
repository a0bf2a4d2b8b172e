"""Regions of images: the Visual Genome Faster R-CNN, and other detectors in its place."""

from xai_lib.models.regions.config import DetectorConfig
from xai_lib.models.regions.detector import RegionDetector
from xai_lib.models.regions.loading import load_detector
from xai_lib.models.regions.other_detectors import torchvision_regions
from xai_lib.models.regions.result import Regions

__all__ = ["DetectorConfig", "RegionDetector", "Regions", "load_detector", "torchvision_regions"]
