"""One graph, two backward passes: the gradient, or a propagation rule's relevance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

# What a rule gives to the inputs of an operation, None to one that wants nothing.
Shares = tuple[Float[Tensor, "..."] | None, ...]
Rule = Callable[..., Shares]


@dataclass
class Switch:
    """Which backward pass runs: `relevance` is read by every gate when autograd reaches it.

    `dense` is set once a backward pass has met a tensor whose rows are all in use, so that the
    search for empty rows stops there (everything below a dense row is dense). scratch: memory that
    the rules of a pass use again and again.
    """

    relevance: bool = False
    dense: bool = False
    scratch: dict[tuple, Tensor] = field(default_factory=dict, repr=False)

    @contextmanager
    def mode(self, relevance: bool) -> Iterator[None]:
        """Run one backward pass as the gradient (False) or as relevance propagation (True)."""
        before = self.relevance, self.dense
        self.relevance, self.dense = relevance, False
        try:
            yield
        finally:
            self.relevance, self.dense = before


EPS = 1e-9


class Uses:
    """Counts the operations that read one tensor.

    A tensor's relevance is the sum over its readers, which autograd takes by itself. The published
    Clone rule, R = x Σ_k R_k / (x + 1e-9), shrinks that sum by x / (x + 1e-9): visible in float64
    next to the goldens, below rounding in float32, where the pass over memory is saved.
    """

    # In the published BERT a block's input is cloned for the residual connection and attention, and
    # attention clones its part for queries, keys and values.
    NESTED = 4
    MARK = "_xai_uses"

    def __init__(self):
        self.count = 0

    @classmethod
    def of(cls, x: Shaped[Tensor, "..."]) -> Uses | None:
        """Count one more reader of x; None where counting is of no consequence."""
        if x.dtype != torch.float64 or not x.requires_grad:
            return None
        uses = getattr(x, cls.MARK, None)
        if uses is None:
            uses = cls()
            setattr(x, cls.MARK, uses)
        uses.count += 1
        return uses

    @classmethod
    def shrink(
        cls,
        uses: Uses | None,
        share: Float[Tensor, "..."] | None,
        x: Float[Tensor, "..."],
        linear: bool = False,
    ) -> Float[Tensor, "..."] | None:
        """Apply the Clone rule's stabiliser to one reader's share of x."""
        if uses is None or uses.count < 2 or share is None:
            return share
        factor = safe_divide(x, x, EPS)
        return share * (factor * factor if linear and uses.count >= cls.NESTED else factor)


class _Gate(torch.autograd.Function):
    """Passes the gradient to the op's own graph, or the relevance straight to the op's inputs.

    Autograd skips the node of the op itself in the relevance pass, since its gradient is undefined
    there, so that a rule costs nothing on top of its own arithmetic.
    """

    @staticmethod
    def forward(ctx, switch: Switch, rule: Rule, output: Tensor, *inputs: Tensor) -> Tensor:
        ctx.switch, ctx.rule = switch, rule
        ctx.uses = [Uses.of(x) for x in inputs]
        if rule not in SHAPE_ONLY or any(ctx.uses):
            ctx.save_for_backward(output, *inputs)
        else:
            ctx.shapes = [x.shape for x in inputs]
        return output.detach()

    @staticmethod
    def backward(ctx, *grads: Tensor):
        (grad,) = grads
        if not ctx.switch.relevance:
            return (None, None, grad, *(None for _ in ctx.uses))
        if not ctx.saved_tensors:
            return (None, None, None, *(grad.sum_to_size(shape) for shape in ctx.shapes))
        output, *inputs = ctx.saved_tensors
        wanted = ctx.needs_input_grad[3:]
        shares = ctx.rule(grad, output, *inputs, wanted=wanted)
        return (None, None, None, *map(Uses.shrink, ctx.uses, shares, inputs))


def gate(
    switch: Switch, rule: Rule, output: Float[Tensor, "*z"], *inputs: Float[Tensor, "..."]
) -> Float[Tensor, "*z"]:
    """Return `output` with `rule` as its relevance pass.

    rule(relevance, output, *inputs, wanted) returns one share per input, shaped as that input, or
    None where `wanted` is False. `output` keeps its own graph for the gradient pass.
    """
    return _Gate.apply(switch, rule, output, *inputs)


def identity(
    relevance: Float[Tensor, "*z"],
    output: Float[Tensor, "*z"],
    *inputs: Float[Tensor, "..."],
    wanted: Sequence[bool] | None = None,
) -> Shares:
    """Relevance passes unchanged: activations, normalisations, softmax (CVPR'21, Eq. 3-5).

    An input that was broadcast collects the relevance of all its copies.
    """
    return tuple(relevance.sum_to_size(x.shape) for x in inputs)


# Rules that look at no value: nothing is kept for their backward pass.
SHAPE_ONLY = (identity,)


def safe_divide(
    numerator: Float[Tensor, "*n"], denominator: Float[Tensor, "*n"], eps: float = EPS
) -> Float[Tensor, "*n"]:
    """Return numerator / (denominator + eps), and 0 where the denominator is 0.

    The stabiliser is not sign-aware, as in the published code: the sign-aware one moves results.
    """
    quotient = numerator / (denominator + eps)
    return quotient.masked_fill_(denominator == 0, 0)
