"""A plain pass, watched: every operation runs as the model makes it, and nothing stands for it.

`Trace` takes attention apart, sets rules and starts graphs; this observer only remembers, so that
what a trace found can be held against the model itself. It shares nothing with a trace but the
names of operations: where one of them errs, the other does not err with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.overrides import TorchFunctionMode

from xai_lib.tracing.forms import note_folding
from xai_lib.tracing.marks import leave
from xai_lib.tracing.ops import bare_name

# The name of the mark: which axes of a tensor are those of a softmax, (queries, keys).
WEIGHTS = "_xai_weights"

# What may happen to attention weights on their way to the values.
KEEPING = frozenset(
    (
        *("to", "type", "type_as", "float", "double", "half", "bfloat16", "contiguous", "clone"),
        *("masked_fill", "where", "nan_to_num", "mul", "rmul", "multiply", "div", "truediv"),
        *("dropout", "view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze", "detach"),
        *("identity", "alias", "expand", "getitem"),
    )
)
TURNING = frozenset(("transpose", "swapaxes", "swapdims", "permute", "mT", "T", "t"))


@dataclass
class Spot:
    """One attention call of a plain pass: what it read and what it gave, and where tokens lie.

    value: what tokens hand over, one of its axes, `keys`, being that of tokens. output: what they
    receive, `queries` being its axis of tokens.
    """

    value: Float[Tensor, "..."]
    keys: int
    output: Float[Tensor, "..."]
    queries: int

    @property
    def tokens(self) -> int:
        """How many tokens are looked at."""
        return self.value.shape[self.keys]

    @property
    def looking(self) -> int:
        """How many tokens look."""
        return self.output.shape[self.queries]


class Watch(TorchFunctionMode):
    """Remembers the attention calls of a pass, the embeddings of its words and its last tokens.

    ids: the token numbers of a text. root: a leaf that the embeddings of these words are a copy of,
    once they are looked up. patches: what the last convolution before the first attention gave.
    spots: the attention calls in order. last: the last tensor (batch, tokens, dim) or (tokens,
    batch, dim) that was made after the last of them.
    """

    def __init__(self, ids: Shaped[Tensor, "batch tokens"] | None = None):
        super().__init__()
        self.ids = ids
        self.root: Float[Tensor, "batch tokens dim"] | None = None
        self.patches: Float[Tensor, "batch dim rows columns"] | None = None
        self.spots: list[Spot] = []
        self._convolved = False
        self.last: Float[Tensor, "..."] | None = None

    def forget(self) -> None:
        """Let go of every tensor."""
        self.spots.clear()
        self.root = self.patches = self.last = None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        name = bare_name(func)
        if isinstance(output, Tensor):
            note_folding(name, output, args)
        if name == "embedding" and self.root is None and self._looks_up(args, kwargs):
            # A copy, so that a model may write into it.
            self.root = root = output.detach().requires_grad_()
            return root.clone()
        spot = None
        if name == "scaled_dot_product_attention":
            value = args[2] if len(args) > 2 else kwargs["value"]
            spot = Spot(value, -2, output, -2)
        elif name == "multi_head_attention_forward":
            value = args[2] if len(args) > 2 else kwargs["value"]
            spot = Spot(value, 0, output[0], 0)
        elif name == "softmax" and isinstance(output, Tensor):
            leave(output, WEIGHTS, (-2, -1))
        elif name in PRODUCTS:
            spot = PRODUCTS[name](args, kwargs, output)
        elif isinstance(output, Tensor) and name in (KEEPING | TURNING | {"linear"}):
            _carry(name, output, args, kwargs)
        if spot is not None:
            self.spots.append(spot)
            self.last, self._convolved = None, False
        elif name == "conv2d" and not self.spots:
            self.patches = output
        elif name in ("conv1d", "conv2d"):
            self._convolved = True
        elif name not in TURNING and isinstance(output, Tensor) and output.dim() == 3:
            self._note_last(output)
        return output

    def _looks_up(self, args: Sequence, kwargs: dict) -> bool:
        indices = args[0] if args else kwargs.get("input")
        if self.ids is None or not isinstance(indices, Tensor) or indices.shape != self.ids.shape:
            return False
        return indices is self.ids or bool(torch.equal(indices, self.ids))

    def _note_last(self, output: Tensor) -> None:
        # A convolution behind the last attention belongs to the head, which may read as it likes.
        if not self.spots or self._convolved or not output.requires_grad:
            return
        if self.spots[-1].looking in output.shape[:2]:
            self.last = output


def _carry(name: str, output: Tensor, args: Sequence, kwargs: dict) -> None:
    """Mark what is made of attention weights, where its axes of queries and keys are known."""
    made = next((x for x in args[:3] if hasattr(x, WEIGHTS)), None)
    if made is None or output.dim() < 2:
        return
    axes = getattr(made, WEIGHTS)
    if name in TURNING:
        order = _order(name, made.dim(), args[1:], kwargs)
        axes = tuple(order.index(axis % made.dim()) - made.dim() for axis in axes)
    elif name == "linear" and -1 in axes:
        # A linear map over the heads (talking heads) is one that turned them to the end.
        return
    leave(output, WEIGHTS, axes)


def _order(name: str, dims: int, args: Sequence, kwargs: dict) -> list[int]:
    """Return which axis of its operand each axis is, after an operation that turns them."""
    order = list(range(dims))
    if name in ("T", "mT", "t"):
        order[-2:] = order[:-3:-1]
        return order if name == "mT" or dims == 2 else order[::-1]
    places = [*args, *kwargs.values()]
    if name == "permute":
        chosen = places[0] if isinstance(places[0], list | tuple) else places
        return [axis % dims for axis in chosen]
    a, b = (axis % dims for axis in places[:2])
    order[a], order[b] = order[b], order[a]
    return order


def _matmul(args: Sequence, kwargs: dict, output: Any) -> Spot | None:
    a, b = (*args, *kwargs.values())[:2]
    return _product(a, b, output)


def _reflected(args: Sequence, kwargs: dict, output: Any) -> Spot | None:
    return _product(args[1], args[0], output)


def _product(a: Any, b: Any, output: Any) -> Spot | None:
    """Weights @ values, or, where both are turned, valuesᵀ @ weightsᵀ."""
    if not (isinstance(a, Tensor) and isinstance(b, Tensor) and isinstance(output, Tensor)):
        return None
    if min(a.dim(), b.dim(), output.dim()) < 2:
        return None
    if getattr(a, WEIGHTS, None) == (-2, -1):
        return Spot(b, -2, output, -2)
    if getattr(b, WEIGHTS, None) == (-1, -2):
        return Spot(a, -1, output, -1)
    return None


def _einsum(args: Sequence, kwargs: dict, output: Any) -> Spot | None:
    equation, *operands = args
    operands = list(operands[0]) if isinstance(operands[0], list | tuple) else operands
    if not isinstance(equation, str) or len(operands) != 2 or "->" not in equation:
        return None
    if not isinstance(output, Tensor):
        return None
    left, _, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    for this, other in ((0, 1), (1, 0)):
        weights, value = operands[this], operands[other]
        if not hasattr(weights, WEIGHTS) or "." in equation:
            continue
        mine, theirs = terms[this], terms[other]
        queries, keys = (mine[axis] for axis in getattr(weights, WEIGHTS))
        if keys in theirs and keys not in right and queries in right and queries not in theirs:
            return Spot(value, theirs.index(keys), output, right.index(queries))
    return None


PRODUCTS: dict[str, Callable[[Sequence, dict, Any], Spot | None]] = {
    "matmul": _matmul,
    "bmm": _matmul,
    "rmatmul": _reflected,
    "einsum": _einsum,
}
