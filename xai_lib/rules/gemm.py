"""Matrix products of the forward and relevance passes, on the fastest float32 kernel at hand."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


@cache
def _onednn_linear() -> Callable[..., Tensor] | None:
    """Return oneDNN's dense linear kernel, or None where this build of torch lacks it.

    `F.linear` calls BLAS for float32 on the CPU, and the MKL in torch's wheels runs AVX2 kernels
    on AMD processors; oneDNN's AVX-512 kernels are over twice as fast there and equal elsewhere.
    `XAI_GEMM=blas` keeps to BLAS, to compare.
    """
    if os.environ.get("XAI_GEMM", "onednn") != "onednn" or not torch.backends.mkldnn.is_available():
        return None
    try:
        kernel = torch.ops.mkldnn._linear_pointwise
        kernel(torch.ones(1, 2), torch.ones(3, 2), None, "none", [], "")
    except (AttributeError, RuntimeError, NotImplementedError):
        return None
    return kernel


def linear(
    x: Float[Tensor, "*n inputs"],
    weight: Float[Tensor, "outputs inputs"],
    bias: Float[Tensor, " outputs"] | None = None,
) -> Float[Tensor, "*n outputs"]:
    """Return x Wᵀ + b for x (..., in) and W (out, in), outside autograd."""
    kernel = None
    if x.dtype == weight.dtype == torch.float32 and x.device.type == weight.device.type == "cpu":
        kernel = _onednn_linear()
    if kernel is None or x.numel() == 0:
        return F.linear(x, weight, bias)
    output = kernel(x, weight, bias, "none", [], "")
    # The kernel gives a view of a matrix, into which a model that writes `y += x` may not write.
    return torch.ops.aten._unsafe_view(output, output.shape)


def transposed(
    g: Float[Tensor, "*n outputs"], weight: Float[Tensor, "outputs inputs"]
) -> Float[Tensor, "*n inputs"]:
    """Return g W for g (..., out) and W (out, in): the transposed map of `linear`."""
    return linear(g, weight.t())
