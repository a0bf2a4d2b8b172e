"""Gradient checkpointing, stepped around: what a pass computes is kept, as if nobody saved memory.

A checkpointed part of a model is run a second time in the backward pass, or its first time without
a graph. Neither can be traced: the second run happens outside the trace, and without a graph
nothing leads from the logits to the attention maps. So while a model is on loan
`torch.utils.checkpoint` runs what it is given once, as a plain call, in this thread alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Any

import torch.utils.checkpoint as torch_checkpoint

# What the function `checkpoint` calls, by whatever name somebody holds that function: the first for
# the reentrant kind, the others, of which a version of torch has some, for the other.
REENTRANT = "CheckpointFunction"
GENERATORS = ("_checkpoint_without_reentrant_generator",)
GENERATORS += tuple(f"{name}_impl" for name in GENERATORS)

_STEPPING: ContextVar[bool] = ContextVar("stepping", default=False)
_LOCK = Lock()
_ORIGINALS: dict[str, Any] = {}
_loans = 0


class _Plainly:
    """Stands for torch's `CheckpointFunction`."""

    @staticmethod
    def apply(function: Callable, preserve: bool, *args: Any) -> Any:
        if not _STEPPING.get():
            return _ORIGINALS[REENTRANT].apply(function, preserve, *args)
        return function(*args)


def _generator(name: str) -> Callable[..., Iterator[None]]:
    """Return what stands for a generator that runs code before and after the checkpointed part."""

    def run(*args: Any, **kwargs: Any) -> Iterator[None]:
        if _STEPPING.get():
            yield
        else:
            yield from _ORIGINALS[name](*args, **kwargs)

    return run


@contextmanager
def stepped_around() -> Iterator[None]:
    """Run checkpointed parts as plain calls inside the block; other threads go on as before."""
    global _loans
    with _LOCK:
        _loans += 1
        if _loans == 1:
            _ORIGINALS.update(
                (name, getattr(torch_checkpoint, name))
                for name in (REENTRANT, *GENERATORS)
                if hasattr(torch_checkpoint, name)
            )
            for name in _ORIGINALS:
                stand_in = _Plainly if name == REENTRANT else _generator(name)
                setattr(torch_checkpoint, name, stand_in)
    token = _STEPPING.set(True)
    try:
        yield
    finally:
        _STEPPING.reset(token)
        with _LOCK:
            _loans -= 1
            if not _loans:
                for name, original in _ORIGINALS.items():
                    setattr(torch_checkpoint, name, original)
