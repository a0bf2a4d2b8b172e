"""What `load` knows by name: the embedded models and the checkpoints of the papers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xai_lib.errors import unknown_name
from xai_lib.files import hub
from xai_lib.models.embedded import cards

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint: its name for `load`, its hub repository, and who published with it.

    `revision` is the hub commit or branch that is asked for, or None for the newest.
    """

    name: str
    repo: str
    paper: str
    revision: str | None = None
    classes: int | str = 1000


CHECKPOINTS = (
    # timm's default tag of vit_base_patch16_224 is another network than the papers'.
    Checkpoint(
        "timm:vit_base_patch16_224.orig_in21k_ft_in1k",
        "timm/vit_base_patch16_224.orig_in21k_ft_in1k",
        "ViT-B/16 of Chefer et al. 2021a, 2021b and Chen et al. 2023",
    ),
    Checkpoint(
        "timm:deit_base_patch16_224.fb_in1k",
        "timm/deit_base_patch16_224.fb_in1k",
        "DeiT-B of Touvron et al. 2021",
    ),
    Checkpoint(
        "timm:deit_base_distilled_patch16_224.fb_in1k",
        "timm/deit_base_distilled_patch16_224.fb_in1k",
        "distilled DeiT-B of Touvron et al. 2021",
    ),
    Checkpoint(
        "hf:textattack/bert-base-uncased-SST-2",
        "textattack/bert-base-uncased-SST-2",
        "BERT on SST-2 of Chefer et al. 2021a, 2021b (their notebooks)",
        # The main branch has pickled weights only; this one is the hub's own conversion of them.
        revision="refs/pr/2",
        classes=2,
    ),
    Checkpoint(
        "hf:openai/clip-vit-base-patch32",
        "openai/clip-vit-base-patch32",
        "CLIP ViT-B/32 of Chefer et al. 2021b and Chen et al. 2023",
        classes="its texts",
    ),
    # The two below were published pickled: where no conversion is on the hub, `load` says how.
    Checkpoint(
        "hf:unc-nlp/lxmert-vqa-uncased",
        "unc-nlp/lxmert-vqa-uncased",
        "LXMERT on VQA v2 of Chefer et al. 2021b",
        classes=3129,
    ),
    Checkpoint(
        "hf:uclanlp/visualbert-vqa",
        "uclanlp/visualbert-vqa",
        "VisualBERT on VQA v2, the Hugging Face head of Chefer et al. 2021b's model",
        classes=3129,
    ),
)


# What an embedded model stands in for.
PUBLISHED = {
    "vit-scenes": "timm:vit_base_patch16_224.orig_in21k_ft_in1k",
    "deit-scenes": "timm:deit_base_distilled_patch16_224.fb_in1k",
    "bert-reviews": "hf:textattack/bert-base-uncased-SST-2",
    "clip-scenes": "hf:openai/clip-vit-base-patch32",
    "lxmert-questions": "hf:unc-nlp/lxmert-vqa-uncased",
    "visualbert-questions": "hf:uclanlp/visualbert-vqa",
}
PROFILES = ("embedded", "paper")


def for_profile(name: str, profile: str) -> str:
    """Return `name`, or under profile "paper" the published checkpoint it stands in for.

    Other names, such as a local folder, stay as they are. Raises OptionError for other profiles.
    """
    if profile not in PROFILES:
        raise unknown_name("profile", profile, PROFILES)
    return PUBLISHED.get(name, name) if profile == "paper" else name


def pinned_revision(name: str) -> str | None:
    """Return the hub commit or branch pinned for `name`, or None where none is."""
    return next((row.revision for row in CHECKPOINTS if row.name == name), None)


def models() -> DataFrame:
    """Return one row a known model: name, profile, what it is, classes, and whether it is here.

    Any other timm or transformers classifier loads as well, as `timm:NAME`, `hf:NAME` or a path.
    """
    from pandas import DataFrame

    embedded = [
        {
            "name": name,
            "profile": "embedded",
            "model": f"{card['library']} {card['class'].rpartition('.')[2]}",
            "classes": len(card["class_names"]),
            "present": True,
        }
        for name, card in cards().items()
    ]
    published = [
        {
            "name": row.name,
            "profile": "paper",
            "model": row.paper,
            "classes": row.classes,
            "present": hub.cached(row.repo, revision=row.revision) is not None,
        }
        for row in CHECKPOINTS
    ]
    return DataFrame(
        embedded + published, columns=["name", "profile", "model", "classes", "present"]
    )
