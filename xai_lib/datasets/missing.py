"""Data that a user must bring: what it is, where it comes from, where it is looked for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from xai_lib.errors import MissingDataError


@dataclass(frozen=True)
class Source:
    """A data set that cannot be shipped.

    place: its official address. sha256, size (bytes): of `archive`, the published file; None where
    nobody publishes them. samples: in the whole original, or in `split`, which is opened where none
    is named. variable: the environment variable that points at it. kind: "file" or "folder".
    script: of data_scripts, that fetches it, or "". modality: "image", "text" or "question".
    evidence: what says where a label's evidence lies: "masks", "rationales" or "no".
    """

    name: str
    title: str
    place: str
    archive: str
    variable: str
    kind: str
    samples: int
    script: str = ""
    split: str | None = None
    modality: str = "image"
    evidence: str = "no"
    sha256: str | None = None
    size: int | None = None

    def looked_for(self, path: str | os.PathLike | None = None) -> Path | None:
        """Return where the data should lie: `path`, else the environment variable, else None."""
        place = path if path is not None else os.environ.get(self.variable) or None
        return None if place is None else Path(place).expanduser()

    def locate(self, path: str | os.PathLike | None = None) -> Path:
        """Return where the data lies; raise MissingDataError if it is not there."""
        place = self.looked_for(path)
        if place is None:
            raise self.missing(f"neither path= nor the variable {self.variable} says where it is")
        if not place.exists():
            given = "path=" if path is not None else self.variable
            raise self.missing(f"there is nothing at {str(place)!r}, where {given} points")
        return place

    def missing(self, reason: str) -> MissingDataError:
        """Return the error that says what is missing, where to get it and how to point at it."""
        size = "unknown to us" if self.size is None else f"{self.size:,} bytes"
        script = f", for instance with data_scripts/{self.script}" if self.script else ""
        return MissingDataError(
            f"The data set {self.name!r} ({self.title}) is missing: {reason}. Get {self.archive} "
            f"from {self.place} (size {size}, sha256 {self.sha256 or 'unknown to us'}){script}, "
            f"then give the {self.kind} as path=, or set {self.variable} to it."
        )


GTSEGS = Source(
    name="gtsegs",
    title="ImageNet segmentation: Guillaumin, Küttel and Ferrari, IJCV 2014",
    place="http://calvin-vision.net/bigstuff/proj-imagenet/data/gtsegs_ijcv.mat",
    archive="gtsegs_ijcv.mat",
    variable="XAI_GTSEGS",
    kind="file",
    samples=4276,
    script="fetch_gtsegs.py",
    evidence="masks",
)
IMAGENET_VAL = Source(
    name="imagenet-val",
    title="ImageNet ILSVRC 2012, validation images",
    place="https://image-net.org/challenges/LSVRC/2012/ (with an account of your own)",
    archive="ILSVRC2012_img_val.tar",
    variable="XAI_IMAGENET_VAL",
    kind="folder",
    samples=50_000,
    script="fetch_imagenet_val.py",
    # As torchvision's prototype reader and others list them; not measured by us.
    sha256="c7e06a6c0baccf06d8dbeb6577d71efff84673a5dbdd50633ab44f8ea0456ae0",
    size=6_744_924_160,
)
VQA2 = Source(
    name="vqa2",
    title="VQA v2: Goyal et al., CVPR 2017, on COCO's images",
    place="https://visualqa.org/download.html",
    archive="the validation questions and annotations (or LXMERT's valid.json), COCO's val2014 or "
    "region features, and trainval_label2ans.json, in one folder",
    variable="XAI_VQA2",
    kind="folder",
    samples=214_354,
    split="validation",
    modality="question",
)
