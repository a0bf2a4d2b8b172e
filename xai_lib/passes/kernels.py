"""Attention kernels that nobody sees into, exchanged for torch's own while a model is on loan.

transformers' models name their attention in the configuration. Flex and flash attention run outside
torch's operations (the former has no gradient on a CPU); torch's own computes the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

# Where a configuration of transformers keeps the name; a plain attribute of each configuration.
NAME = "_attn_implementation_internal"
UNSEEN = ("flex", "flash")


@contextmanager
def seen_attention(model: nn.Module) -> Iterator[None]:
    """Let modules use torch's own attention inside the block, and afterwards what they used."""
    before: list[tuple[object, str]] = []
    for module in model.modules():
        config = getattr(module, "config", None)
        name = getattr(config, NAME, None)
        if isinstance(name, str) and any(part in name for part in UNSEEN):
            before.append((config, name))
            setattr(config, NAME, "sdpa" if _takes_sdpa(model) else "eager")
    try:
        yield
    finally:
        for config, name in before:
            setattr(config, NAME, name)


def _takes_sdpa(model: nn.Module) -> bool:
    return all(getattr(m, "_supports_sdpa", True) for m in model.modules())
