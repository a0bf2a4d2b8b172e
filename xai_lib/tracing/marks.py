"""Marks of tensors: attributes of the Python object, which go with it.

A tensor is marked with the input it was made from, with the chain of tokens it belongs to and how
many sites that has passed, and with its stage on the way through attention (`follow`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Shaped
from torch import Tensor


@dataclass(eq=False)
class Chain:
    """One sequence of tokens; `name` is that of the input it was made from.

    parts: what it was joined of, (chain or None, version, tokens) in order; () for one that was
    not. tokens: their number, known once the first site is met.
    """

    name: str
    parts: tuple[tuple[Chain | None, int, int], ...] = ()
    tokens: int = 0
    sites: list[int] = field(default_factory=list)


State = tuple[Chain, int]
Mark = tuple[str, object]

# The names of the attributes.
STAGE, CHAIN, ORIGIN = "_xai", "_xai_chain", "_xai_origin"
MINGLED, PATCHES, AFTER = "_xai_mingled", "_xai_patches", "_xai_after"
FOLDED, MIXED = "_xai_folded", "_xai_mixed"


def leave(x: Shaped[Tensor, "..."], name: str, value: object) -> None:
    """Leave the mark `name` on a tensor."""
    setattr(x, name, value)


def hand_over(x: Shaped[Tensor, "..."], other: Shaped[Tensor, "..."]) -> None:
    """Leave all marks of x on `other`, which is the same numbers in another place."""
    for name in (STAGE, CHAIN, ORIGIN, MINGLED, PATCHES, AFTER, MIXED):
        if hasattr(x, name):
            leave(other, name, getattr(x, name))


def state_of(x: object) -> State | None:
    """Return (chain, version) of a tensor, None where it belongs to no chain."""
    return getattr(x, CHAIN, None)


def mark_of(x: object) -> Mark:
    """Return the (stage, what it belongs to) of a tensor, ("", None) where it has none."""
    return getattr(x, STAGE, ("", None))
