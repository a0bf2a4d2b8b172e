"""Attention sites: the calls, in execution order, in which tokens look at tokens."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from xai_lib.tracing.marks import Chain, State


@dataclass
class Site:
    """One attention call. A module that is called twice makes two sites.

    probs: (batch, heads, queries, keys), the matrix that multiplies the values. Its batch is that
    of the tensor the model made, which for windowed attention is batch x windows.
    value: (batch, heads, keys, dim); output: (batch, heads, queries, dim).
    projection: the (out, heads·dim) weight applied to the joined heads, where one is.
    branch_scale: what multiplies the projected output (LayerScale), where something does.
    residual: the tensor the projected output is added to, i.e. the block's input; None where no
      residual connection passes the site (an attention-pooling probe).
    skip: the tensor that is added to whatever has become of the output: the residual, or what
      takes its part where a normalisation follows the projection (Gemma 2).
    mixes_heads: whether heads were mixed after the softmax (talking heads), so that the rows of
      probs are no distributions: entries may be negative.
    query, key: the chain whose tokens look and the one they look at, each with its version, where
      the trace follows chains (`chains.Chains`); ordinal: the how-manieth site of its chain.
    turned: whether the residual stream was measured to be (tokens, batch, dim), where there are as
      many tokens as samples and sizes do not tell; None where nothing was measured.
    call: the number of the attention call in the pass; those out of a trace's focus count as well.
    guessed: whether heads were told from samples by their numbers alone.
    """

    index: int
    name: str
    probs: Float[Tensor, "... queries keys"]
    value: Float[Tensor, "... keys dim"]
    output: Float[Tensor, "... queries dim"]
    projection: Float[Tensor, "outputs inputs"] | None = None
    branch_scale: Float[Tensor, "..."] | None = None
    residual: Float[Tensor, "..."] | None = None
    skip: Float[Tensor, "..."] | None = None
    mixes_heads: bool = False
    query: State | None = None
    key: State | None = None
    ordinal: int = 0
    call: int = 0
    turned: bool | None = None
    guessed: bool = False

    @property
    def kind(self) -> str:
        """Return "self", or "cross" where one chain looks at another."""
        return "self" if self.query is None or self.looking is self.seen else "cross"

    @property
    def looking(self) -> Chain:
        """The chain whose tokens look, in a trace that follows chains."""
        assert self.query is not None, "this trace follows no chains"
        return self.query[0]

    @property
    def seen(self) -> Chain:
        """The chain that they look at."""
        assert self.key is not None, "this trace follows no chains"
        return self.key[0]

    @property
    def sequence_first(self) -> bool:
        """Whether the residual stream is (tokens, batch, dim) instead of (batch, tokens, dim)."""
        if self.residual is None or self.residual.dim() != 3:
            return False
        shape, ours = tuple(self.residual.shape[:2]), (self.probs.shape[0], self.queries)
        return bool(self.turned) if shape[0] == shape[1] else shape == ours[::-1]

    @property
    def is_window(self) -> bool:
        """Whether what was taken for heads are windows: the projection takes them one by one."""
        if not self.guessed or self.projection is None:
            return False
        return self.projection.shape[-1] != self.heads * self.value.shape[-1]

    @property
    def heads(self) -> int:
        return self.probs.shape[-3] if self.probs.dim() > 3 else 1

    @property
    def queries(self) -> int:
        return self.probs.shape[-2]

    @property
    def keys(self) -> int:
        return self.probs.shape[-1]


def caller_name(names: dict[int, str]) -> str:
    """Return the path of the innermost module of the model whose forward is running.

    Read from the stack, so that nothing needs to be hooked onto the model.
    """
    frame = sys._getframe(1)
    while frame is not None:
        for holder in ("self", "module"):
            owner = frame.f_locals.get(holder)
            if isinstance(owner, nn.Module) and id(owner) in names:
                return names[id(owner)]
        frame = frame.f_back
    return ""
