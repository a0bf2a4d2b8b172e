"""The families of timm that attend: the smallest model of each, on a small image."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator

import timm
import torch
from torch import Tensor, nn

CLASSES = 5
# The modules of timm whose models attend, or are called transformers.
MODULES = (
    *("beit", "cait", "coat", "convit", "crossvit", "csatv2", "davit"),
    *("deepseek_vit", "deit", "edgenext", "efficientformer", "efficientformer_v2"),
    *("efficientvit_mit", "efficientvit_msra", "eva", "fastvit", "gcvit", "gemma4_vit", "hiera"),
    *("hieradet_sam2", "iformer", "levit", "lowformer", "maxxvit", "metaformer", "mobilenetv5"),
    *("mobilevit", "mvitv2", "naflexvit", "nest", "nextvit", "pit", "pvt_v2", "qwen3_vit"),
    *("repvit", "shvit", "swiftformer", "swin_transformer", "swin_transformer_v2"),
    *("swin_transformer_v2_cr", "tiny_vit", "tnt", "twins", "visformer", "vision_transformer"),
    *("vision_transformer_hybrid", "vision_transformer_relpos", "vision_transformer_sam"),
    *("vitamin", "volo", "xcit"),
    # Convolutional networks with some attention.
    *("byoanet", "byobnet"),
)
SIZES = (
    *("test", "atto", "femto", "pico", "nano", "zepto", "xxtiny", "xxs", "xx", "xtiny", "xs"),
    *("tiny", "ti", "mini", "xsmall", "x", "wee", "pwee", "little", "small", "s", "medium"),
    *("mediumd", "betwixt", "base", "b", "m", "t", "so150m", "so150m2", "so400m", "large", "l"),
    *("huge", "h", "giant", "giantopt", "g", "gigantic", "enormous", "xlarge", "xl", "plus"),
)
# A number with its letters, such as patch16, m36 and 224; what counts registers is no size.
NUMBERED = re.compile(r"(patch|window|res)?\d+\w?|(?!reg)[a-z]{1,3}\d+[a-z]{0,2}|\d+x\d+")
# Convolutional networks that stand in a module with models that attend.
CONVOLUTIONAL = {"byobnet": "clip"}
IMAGES = ({"img_size": 64, "depth": 2}, {"img_size": 64}, {"img_size": 128}, {})
SIDES = (64, 128, 224, 256, 384, 448)
# Of a family that has none below this, the number of blocks at least must be adjustable.
MOST_PARAMETERS = 120_000_000


def families() -> Iterator[str]:
    """Yield the name of the smallest model of each family."""
    for module in MODULES:
        found: dict[str, list[str]] = {}
        for name in timm.list_models(module=module):
            if CONVOLUTIONAL.get(module, "") in name:
                found.setdefault(_family(name), []).append(name)
        yield from (min(names, key=_rank) for names in found.values())


def build(name: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return the model with weights of chance, and an image of the least size that it takes.

    Raises RuntimeError where no size is taken.
    """
    last: Exception | None = None
    for options in IMAGES:
        try:
            torch.manual_seed(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = timm.create_model(name, num_classes=CLASSES, **options).eval()
        except Exception as error:
            last = error
            continue
        if sum(p.numel() for p in model.parameters()) > MOST_PARAMETERS and "depth" not in options:
            raise RuntimeError("no variant is small enough for this sweep")
        stated = options.get("img_size")
        for side in (stated,) if stated else SIDES:
            pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
            try:
                with torch.no_grad():
                    model(pixels)
            except Exception as error:
                last = error
                continue
            return model, {"pixel_values": pixels}
    raise RuntimeError(f"does not run by itself: {last}")


def _family(name: str) -> str:
    first, *tokens = name.split("_")
    kept = [t for t in tokens if t not in SIZES and not NUMBERED.fullmatch(t)]
    return "_".join([first, *kept])


def _rank(name: str) -> tuple:
    places = [SIZES.index(t) for t in name.split("_") if t in SIZES]
    return (max(places, default=SIZES.index("small")), len(name), name)
