"""Marks of tensors: which chain of tokens one belongs to, and how many sites it has passed."""

from __future__ import annotations

from dataclasses import dataclass, field


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


def state_of(x) -> State | None:
    """Return (chain, version) of a tensor, None where it belongs to no chain."""
    return getattr(x, "_xai_chain", None)
