"""Questions about tensors of a pass: what stands for one now, and what depends on it."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

# Tensors that were written to out of place, by their id, and what stands for them since.
Replaced = dict[int, tuple[Shaped[Tensor, "..."], object]]


def current(x: object, replaced: Replaced) -> object:
    """Return what stands for x now: itself, unless it was written to out of place."""
    while isinstance(x, Tensor) and id(x) in replaced:
        x = replaced[id(x)][1]
    return x


def substituted(args: tuple, replaced: Replaced) -> tuple:
    """Return args with every tensor that was written to out of place exchanged for its result."""

    def exchanged(value: object) -> object:
        if isinstance(value, list | tuple) and type(value) in (list, tuple):
            found = [current(x, replaced) for x in value]
            return found if isinstance(value, list) else tuple(found)
        return current(value, replaced)

    return tuple(map(exchanged, args))


def feeds(x: Shaped[Tensor, "..."] | None, logits: Float[Tensor, "..."]) -> bool:
    """Whether the logits are computed from x."""
    if x is None or not (x.requires_grad and logits.requires_grad):
        return False
    seed = torch.zeros_like(logits)
    return torch.autograd.grad(logits, x, seed, True, allow_unused=True)[0] is not None
