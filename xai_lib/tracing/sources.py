"""Activations and normalisations that a model writes out by hand, known by what they are made of.

0.5·x·(1 + tanh(...x...)) multiplies a tensor by a function of itself. Element by element that is an
activation, one input and one output, so it follows the rule of activations and not that of
products; x - mean(x) is the first step of a normalisation, not a difference of two things.
"""

from __future__ import annotations

from jaxtyping import Shaped
from torch import Tensor

from xai_lib.tracing.marks import leave
from xai_lib.tracing.ops import POINTWISE, POOLS, PRODUCTS, SCALES, SUMS

ACROSS = ("softmax", "log_softmax", "normalize")
COPIES = ("to", "type", "type_as", "float", "double", "half", "bfloat16", "contiguous", "clone")
FACTORS = tuple(name for name, kind in PRODUCTS.items() if kind == "multiply")
FUNCTIONS = tuple(n for n in POINTWISE if "norm" not in n and n not in ACROSS)
# The names of the marks: what a tensor is a function of, and what it is the mean of.
SOURCE, MEAN = "_xai_source", "_xai_mean_of"
ELEMENTWISE = frozenset((*FUNCTIONS, *COPIES, *FACTORS, *SUMS, *SCALES))


def source_of(x: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    """Return the tensor of which x is an elementwise function: itself, where nothing is known."""
    return getattr(x, SOURCE, x)


def common_source(
    a: Shaped[Tensor, "..."], b: Shaped[Tensor, "..."], output: Shaped[Tensor, "*z"]
) -> Shaped[Tensor, "*z"] | None:
    """Return the tensor of which a and b, and with them `output`, are elementwise functions."""
    source = source_of(a)
    shared = source is source_of(b) and source.requires_grad and source.shape == output.shape
    return source if shared else None


def is_own_mean(x: Shaped[Tensor, "..."], mean: Shaped[Tensor, "..."]) -> bool:
    """Whether `mean` is the mean of x over its features."""
    return getattr(mean, MEAN, None) is source_of(x)


def note_source(name: str, output: Shaped[Tensor, "..."], args: tuple) -> None:
    """Note on the output of the operation `name` what it is a function of."""
    operands = [x for x in args[:2] if isinstance(x, Tensor) and x.requires_grad]
    if not operands or not output.requires_grad:
        return
    source = source_of(operands[0])
    if name in POOLS and output.shape == (*source.shape[:-1], 1):
        leave(output, MEAN, source)
        return
    alone = all(source_of(x) is source for x in operands)
    # Dropout in eval mode returns what it was given, and a tensor that names itself is never freed.
    new = output is not source
    if new and alone and name in ELEMENTWISE and output.shape == source.shape:
        leave(output, SOURCE, source)
