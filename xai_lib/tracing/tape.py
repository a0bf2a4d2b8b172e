"""What a pass did after its last attention call, kept so that it can be done again on other tokens.

So the model's own head (final norm, pooling, classifier) can be put on the tokens of any layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float, Shaped
from torch import Tensor

from xai_lib.tracing.marks import leave

# The name of the mark: which operation made a tensor.
MADE = "_xai_made"


@dataclass(frozen=True)
class Operation:
    """One call of a torch function, its operands and what it gave."""

    name: str
    func: Callable
    args: tuple
    kwargs: dict
    output: Shaped[Tensor, "..."] | tuple | list


class Tape:
    """Records the operations since the last attention call that a trace met."""

    def __init__(self):
        self._operations: list[Operation] = []

    def restart(self) -> None:
        """Forget what came before another attention call."""
        self._operations.clear()

    def note(self, name: str, func: Callable, args: tuple, kwargs: dict, output: object) -> None:
        """Record one operation, and on the tokens that it made which one made them."""
        if isinstance(output, Tensor) and output.dim() == 3 and not hasattr(output, MADE):
            leave(output, MADE, name)
        if isinstance(output, Tensor | tuple | list):
            self._operations.append(Operation(name, func, args, kwargs, output))

    def end_of_block(
        self, start: Float[Tensor, "*tokens_dim"]
    ) -> Float[Tensor, "*tokens_dim"] | None:
        """Return the tokens that the last block gave, `start` being those that it took up.

        Blocks end alike: with a sum where they normalise first (ViT), with a norm where they do so
        last (BERT). None where nothing after the last attention call was made as `start` was.
        """
        made = getattr(start, MADE, None)
        for operation in reversed(self._operations):
            x = operation.output
            if operation.name == made and isinstance(x, Tensor) and x.shape == start.shape:
                return x
        return None

    def again(
        self,
        root: Float[Tensor, "*tokens_dim"],
        x: Float[Tensor, "*tokens_dim"],
        end: Float[Tensor, "*scores"],
    ) -> Float[Tensor, "*scores"] | None:
        """Return what `end` would be if x stood for `root`; None where it does not depend on it."""
        known: dict[int, Tensor] = {id(root): x}
        for operation in self._operations:
            if operation.output is root or not _depends((operation.args, operation.kwargs), known):
                continue
            new = operation.func(
                *_exchanged(operation.args, known), **_exchanged(operation.kwargs, known)
            )
            _note_new(operation.output, new, known)
        return known.get(id(end))


def _depends(value, known: dict[int, Tensor]) -> bool:
    if isinstance(value, Tensor):
        return id(value) in known
    if isinstance(value, dict):
        return any(_depends(v, known) for v in value.values())
    return isinstance(value, tuple | list) and any(_depends(v, known) for v in value)


def _exchanged(value, known: dict[int, Tensor]):
    if isinstance(value, Tensor):
        return known.get(id(value), value)
    if isinstance(value, dict):
        return {key: _exchanged(v, known) for key, v in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_exchanged(v, known) for v in value)
    return value


def _note_new(old, new, known: dict[int, Tensor]) -> None:
    if isinstance(old, Tensor) and isinstance(new, Tensor):
        known[id(old)] = new
    elif isinstance(old, tuple | list) and isinstance(new, tuple | list):
        for before, after in zip(old, new, strict=True):
            _note_new(before, after, known)
