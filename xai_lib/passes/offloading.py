"""Weights that are elsewhere until a layer runs: what accelerate brings, and takes away again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

# Where accelerate keeps what it does before and after a module's forward pass.
HOOK = "_hf_hook"


@contextmanager
def offloaded_again(model: nn.Module) -> Iterator[None]:
    """Have weights taken away again that a pass brought and, cut short, left where they were."""
    before = [module for module in model.modules() if hasattr(module, HOOK) and _is_away(module)]
    try:
        yield
    finally:
        for module in before:
            if not _is_away(module):
                getattr(module, HOOK).post_forward(module, None)


def _is_away(module: nn.Module) -> bool:
    own = list(module.parameters(recurse=False))
    return bool(own) and all(p.device.type == "meta" for p in own)
