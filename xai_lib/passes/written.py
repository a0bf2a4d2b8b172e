"""Places of a text that another stream is written into: no words, though they have token numbers.

Models such as LLaVA put an image's features where the text has a placeholder. Measured: the
placeholder's own embedding has no influence on what the first attention reads.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from xai_lib.passes import pruned
from xai_lib.passes.stem import Reached, UntilAttention
from xai_lib.streams.prepare import Inputs
from xai_lib.streams.texts import Words
from xai_lib.tracing.ops import bare_name


class _Lookup(TorchFunctionMode):
    """Lets a graph begin at the embeddings of token numbers of a shape, the first that are made."""

    def __init__(self, shape: torch.Size):
        super().__init__()
        self.shape = shape
        self.found: Tensor | None = None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if self.found is not None or bare_name(func) != "embedding":
            return output
        if output.shape[:2] != self.shape or output.dim() != 3:
            return output
        self.found = root = output.detach().requires_grad_()
        # A copy goes on, since the model may write into it.
        return root.clone()


def without_written(model: nn.Module, inputs: Inputs) -> Inputs:
    """Return the view of a text whose written places count as padding does: 0, and no words."""
    words = inputs.focus
    if not isinstance(words, Words):
        return inputs
    written = _written(model, inputs, words)
    if written is None or not bool(written.any()):
        return inputs
    present = words.present & ~written
    own = replace(words, present=present, written=written)
    streams = tuple(own if stream is words else stream for stream in inputs.streams)
    return replace(inputs, streams=streams, focus=own)


def _written(model: nn.Module, inputs: Inputs, words: Words) -> Bool[Tensor, "batch tokens"] | None:
    lookup = _Lookup(words.data.shape)
    try:
        with torch.enable_grad(), pruned.traced(model), lookup, UntilAttention(model):
            inputs.run(model)
    except Reached as reached:
        value = reached.value
    else:
        return None
    if lookup.found is None:
        return None
    noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(0)).to(value)
    (found,) = torch.autograd.grad(value, [lookup.found], noise, allow_unused=True)
    return None if found is None else words.present & (found == 0).all(-1)
