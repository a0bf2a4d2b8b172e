"""Which models are pruned just now: passes ask here for the head mask that counts for a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

from jaxtyping import Int
from torch import Tensor, nn

from xai_lib.tracing import HeadMask


class PassMask(HeadMask):
    """A head mask for the length of one pass; `check` objects to what the pass did not bear out."""

    def check(self) -> None:
        return


@runtime_checkable
class Plan(Protocol):
    """What is pruned; every pass gets a mask of its own, for `copies` of the batch.

    rows, focus: which samples of the batch the pass takes, and the stream to which that and the
    copies are confined, where the other belongs to no sample alone.
    """

    def for_pass(
        self, copies: int, rows: Int[Tensor, " rows"] | None = None, focus: str | None = None
    ) -> PassMask: ...

    def for_part(self) -> PassMask: ...

    def with_plan(self, other: Any) -> Plan: ...


PLANS: WeakKeyDictionary[nn.Module, Plan] = WeakKeyDictionary()
_TRACED: ContextVar[tuple[int, ...]] = ContextVar("traced", default=())


@contextmanager
def active(model: nn.Module, plan: Plan) -> Iterator[None]:
    """Let `plan` count for `model` inside the block, and afterwards what counted before."""
    before = PLANS.get(model)
    PLANS[model] = plan
    try:
        yield
    finally:
        if before is None:
            del PLANS[model]
        else:
            PLANS[model] = before


@contextmanager
def traced(model: nn.Module) -> Iterator[None]:
    """Say that a trace applies the model's mask inside the block, so that nothing else needs to."""
    token = _TRACED.set((*_TRACED.get(), id(model)))
    try:
        yield
    finally:
        _TRACED.reset(token)


def is_traced(model: nn.Module) -> bool:
    """Whether a trace that is active in this thread applies the model's mask."""
    return id(model) in _TRACED.get()
