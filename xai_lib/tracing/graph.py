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


def is_cut(
    x: Shaped[Tensor, "..."], root: Shaped[Tensor, "..."], logits: Float[Tensor, "..."]
) -> bool:
    """Whether all that the logits take from the leaf `root` comes through x.

    Read off the graph, whose edges say which tensor a gradient is handed to.
    """
    end = x.grad_fn
    pending, seen = [logits.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if getattr(node, "variable", None) is root:
            return False
        pending += [
            function
            for function, number in node.next_functions
            if function is not end or number != x.output_nr
        ]
    return True


def reaches_own_rows(
    x: Float[Tensor, "other rows *dim"], root: Float[Tensor, "..."], axis: int = 1
) -> bool:
    """Whether each row of x is made of the same row of `root`, along its `axis`, and of no other.

    Measured by a backward pass from half of the rows, to the numbers that it leaves at the others.
    """
    rows = x.shape[1]
    generator = torch.Generator().manual_seed(0)
    chosen = torch.zeros(rows, dtype=torch.bool)
    chosen[torch.randperm(rows, generator=generator)[: max(1, rows // 2)]] = True
    chosen = chosen.to(x.device)
    noise = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
    noise = noise * chosen.view(-1, *[1] * (x.dim() - 2))
    (found,) = torch.autograd.grad(x, root, noise, True, allow_unused=True)
    if found is None:
        return False
    sizes = found.abs().movedim(axis, 0).flatten(1).amax(1)
    return bool(sizes[chosen].any()) and not bool(sizes[~chosen].any())
