"""Questions about tensors of a pass: what stands for one now, and what depends on it."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


def substituted(args: tuple, replaced: dict[int, tuple[Shaped[Tensor, "..."], object]]) -> tuple:
    """Return args with every tensor that was written to out of place exchanged for its result."""

    def current(x):
        while isinstance(x, Tensor) and id(x) in replaced:
            x = replaced[id(x)][1]
        return x

    return tuple(type(a)(map(current, a)) if type(a) in (list, tuple) else current(a) for a in args)


def feeds(x: Shaped[Tensor, "..."] | None, logits: Float[Tensor, "..."]) -> bool:
    """Whether the logits are computed from x."""
    if x is None or not (x.requires_grad and logits.requires_grad):
        return False
    seed = torch.zeros_like(logits)
    return torch.autograd.grad(logits, x, seed, True, allow_unused=True)[0] is not None
