"""The arguments of torch's operations, whichever way a model passes them."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from xai_lib.errors import UnsupportedModelError

# A number, or one for each dimension of space.
Lengths = int | tuple[int, ...] | list[int]


def softmax_dtype(scores: Float[Tensor, "..."]) -> torch.dtype:
    """Softmax and its gradient need more than half precision."""
    return torch.float32 if scores.dtype in (torch.float16, torch.bfloat16) else scores.dtype


def is_plain(weight: Shaped[Tensor, "..."]) -> bool:
    """Whether a weight is torch's own kind of tensor, no subclass that says what operations do."""
    return type(weight) in (Tensor, nn.Parameter)


def baddbmm_arguments(
    bias: Shaped[Tensor, "..."],
    batch1: Shaped[Tensor, "batch rows inner"],
    batch2: Shaped[Tensor, "batch inner columns"],
    *,
    beta: float = 1.0,
    alpha: float = 1.0,
) -> tuple[
    Shaped[Tensor, "..."],
    Shaped[Tensor, "batch rows inner"],
    Shaped[Tensor, "batch inner columns"],
    float,
    float,
]:
    """Return (bias, a, b, alpha, beta) of beta·bias + alpha·(a @ b)."""
    return bias, batch1, batch2, alpha, beta


def linear_arguments(
    input: Shaped[Tensor, "*n inputs"],
    weight: Shaped[Tensor, "..."],
    bias: Shaped[Tensor, "..."] | None = None,
) -> tuple[Shaped[Tensor, "*n inputs"], Shaped[Tensor, "..."], Shaped[Tensor, "..."] | None]:
    """Return (input, weight, bias)."""
    return input, weight, bias


def conv_arguments(
    input: Shaped[Tensor, "..."],
    weight: Shaped[Tensor, "outputs inputs_of_group *kernel"],
    bias: Shaped[Tensor, " outputs"] | None = None,
    stride: Lengths = 1,
    padding: Lengths | str = 0,
    dilation: Lengths = 1,
    groups: int = 1,
) -> tuple[
    Shaped[Tensor, "..."], Shaped[Tensor, "..."], Shaped[Tensor, "..."] | None, dict[str, Any]
]:
    """Return (input, weight, bias, options), with the padding in numbers."""
    if isinstance(padding, str):
        padding = 0 if padding == "valid" else same_padding(weight, dilation)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return input, weight, bias, options


def is_mixing(equation: str) -> bool:
    """Whether an einsum is probs @ values in the layout (..., queries, keys), (..., keys, dim)."""
    left, _, right = equation.replace(" ", "").partition("->")
    a, _, b = left.partition(",")
    return len(a) == len(b) == len(right) >= 3 and a[-1] == b[-2] and right == a[:-1] + b[-1]


def same_padding(
    weight: Shaped[Tensor, "outputs inputs *kernel"], dilation: Lengths
) -> tuple[int, ...]:
    """Return the padding that keeps the size, for a kernel of odd numbers."""
    kernel = weight.shape[2:]
    steps = (dilation,) * len(kernel) if isinstance(dilation, int) else dilation
    spans = [d * (k - 1) for d, k in zip(steps, kernel, strict=True)]
    if any(span % 2 for span in spans):
        raise UnsupportedModelError(
            "No relevance rule for a convolution with padding='same' and an even kernel."
        )
    return tuple(span // 2 for span in spans)
