"""Golden files and random small vision transformers, shared by the tests."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer

from xai_lib.explainers.registry import all_methods

GOLDENS = Path(__file__).parent / "goldens" / "vit"


@cache
def golden(name):
    """Return the arrays of a golden file as a dict."""
    with np.load(GOLDENS / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def golden_model(name, dtype=torch.float64):
    """Return the model of a golden file, its inputs (3, 3, H, W) and its targets (2, 3)."""
    arrays = golden(name)
    build = VisionTransformerDistilled if "distilled" in name else VisionTransformer
    model = build(**json.loads(str(arrays["config"])))
    state = {k[6:]: torch.from_numpy(v) for k, v in arrays.items() if k.startswith("state/")}
    model.load_state_dict(state)
    inputs = torch.from_numpy(arrays["input"]).to(dtype)
    return model.to(dtype).eval(), inputs, torch.from_numpy(arrays["target"]).t()


def random_vit(seed=0, dtype=torch.float64, **config):
    """Return a ViT in eval mode whose weights are large enough that its attention is not flat."""
    defaults = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    torch.manual_seed(seed)
    model = VisionTransformer(**defaults | {"num_classes": 4} | config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.dim() > 1 else 0.5))
        for name, parameter in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1)
    return model.to(dtype).eval()


def random_pixels(model, batch=2, seed=0):
    """Return random inputs (batch, 3, H, W) of the model's size and dtype."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, 3, *model.patch_embed.img_size)
    dtype = model.patch_embed.proj.weight.dtype
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def relative_error(found, expected):
    """Return max|found - expected| / max|expected|, over all but the first dimension."""
    found, expected = (torch.as_tensor(x).double().flatten(1) for x in (found, expected))
    top = expected.abs().amax(1)
    return (found - expected).abs().amax(1) / torch.where(top == 0, 1.0, top)


def every_method():
    """Return {method: options} of the whole registry, with few steps where a method takes any."""
    few = {"steps": 4, "samples": 3}
    return {
        name: {key: few[key] for key in few if key in method.options}
        for name, method in all_methods().items()
    }


METHODS = every_method()
LRP = {name for name, method in all_methods().items() if "LRP" in method.family}


def tolerance(method):
    """Return the relative error that round-off may reach in float64.

    Relevance is divided by sums of both signs, so that what nearly cancels amplifies rounding.
    """
    return 1e-6 if method in LRP else 1e-9
