"""Two towers that return features and leave it to the caller to compare them (open_clip).

Their score of an image and a text is scale · ⟨v, t⟩ + bias, with unit features v and t, as in
Radford et al. (ICML 2021) and Zhai et al. (ICCV 2023).
"""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float, Shaped
from torch import Tensor

# What models of images and texts call their inputs otherwise than transformers does.
KEYWORDS = {"pixel_values": "image", "input_ids": "text"}
OWN_NAMES = {own: name for name, own in KEYWORDS.items()}
NAMES = ("image_features", "text_features", "logit_scale", "logit_bias")
# How far a feature's length may be from 1.
UNIT = 1e-2


def features_of(output: object) -> tuple[Shaped[Tensor, "..."], ...] | None:
    """Return (images, texts, scale) or (images, texts, scale, bias) if a model returned these.

    By name, or by what they are: two matrices of one width and one or two numbers.
    """
    if isinstance(output, Mapping):
        found = [output[name] for name in NAMES if output.get(name) is not None]
        named = all(name in output for name in NAMES[:3])
        return tuple(found) if named and all(isinstance(x, Tensor) for x in found) else None
    if not isinstance(output, tuple | list) or len(output) not in (3, 4):
        return None
    if not all(isinstance(x, Tensor) and x.is_floating_point() for x in output):
        return None
    images, texts, *numbers = output
    fits = images.dim() == texts.dim() == 2 and images.shape[1] == texts.shape[1]
    return tuple(output) if fits and all(x.numel() == 1 for x in numbers) else None


def are_unit(features: tuple[Shaped[Tensor, "..."], ...]) -> bool:
    """Whether images and texts are unit vectors, so that their product is a cosine."""
    lengths = (x.detach().float().norm(dim=-1) for x in features[:2])
    return all(bool(((length - 1).abs() < UNIT).all()) for length in lengths)


def compared(features: tuple[Shaped[Tensor, "..."], ...]) -> Float[Tensor, "images texts"]:
    """Return the score of every image with every text."""
    images, texts, scale, *bias = features
    scores = images @ texts.t() * scale
    return scores + bias[0] if bias else scores
