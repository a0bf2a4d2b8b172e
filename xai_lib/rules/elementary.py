"""Propagation rules of sums, products and pools: the operations that carry no weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from xai_lib.rules.gate import EPS, Shares, safe_divide


def _totals(x: Tensor, whole_batch: bool) -> Tensor:
    """Return Σx per sample (first dimension) or over the whole batch, broadcastable over x."""
    if whole_batch or x.dim() < 2:
        return x.sum().reshape((1,) * x.dim())
    return x.flatten(1).sum(1).reshape(-1, *(1,) * (x.dim() - 1))


def add(
    relevance: Float[Tensor, "*z"],
    output: Float[Tensor, "*z"],
    a: Float[Tensor, "*#z"],
    b: Float[Tensor, "*#z"],
    wanted: Sequence[bool],
    whole_batch: bool = False,
    normalised: bool = True,
) -> Shares:
    """The sum rule of Chefer et al. 2021, Eq. 9: shares a·R/(a+b) and b·R/(a+b), normalised.

    Normalising rescales the shares so that their totals stand to each other as |Σa| : |Σb| and add
    up to ΣR, which bounds them where a + b nearly cancels. The totals run over one sample; the
    published code runs them over the batch, so that samples leak (`whole_batch`).
    """
    s = safe_divide(relevance, output, EPS)
    shares = [(x * s).masked_fill_(relevance == 0, 0) for x in (a, b)]
    if normalised:
        sums = [_totals(share, whole_batch) for share in shares]
        norm, total = sums[0].abs() + sums[1].abs(), _totals(relevance, whole_batch)
        for share, part in zip(shares, sums, strict=True):
            share.mul_(safe_divide(safe_divide(part.abs(), norm, EPS) * total, part, EPS))
    return tuple(
        share.sum_to_size(x.shape) if want else None
        for share, x, want in zip(shares, (a, b), wanted, strict=True)
    )


def stabilised(
    relevance: Float[Tensor, "*z"],
    output: Float[Tensor, "*z"],
    x: Float[Tensor, "*z"],
    wanted: Sequence[bool],
) -> Shares:
    """The published IndexSelect rule, R · x / (x + 1e-9): visible in float64 alone."""
    return (relevance * safe_divide(x, x, EPS),)


def bilinear(
    product: Callable[[Tensor, Tensor], Tensor],
    relevance: Float[Tensor, "*z"],
    output: Float[Tensor, "*z"],
    a: Float[Tensor, "..."],
    b: Float[Tensor, "..."],
    wanted: Sequence[bool],
) -> Shares:
    """Half of R to each factor of a product z = f(a, b): R_a = a · ∂⟨f, R/z⟩/∂a / 2.

    The z-rule of Chefer et al. 2021, Eq. 8, for attention·V and Q·Kᵀ, halved so that ΣR is kept.
    """
    s = safe_divide(relevance, output, EPS)
    with torch.enable_grad():
        leaves = [x.detach().requires_grad_(want) for x, want in zip((a, b), wanted, strict=True)]
        grads = iter(
            torch.autograd.grad(product(*leaves), [x for x in leaves if x.requires_grad], s)
        )
    return tuple(
        next(grads).mul_(x).div_(2) if want else None
        for x, want in zip((a, b), wanted, strict=True)
    )


def matmul(
    relevance: Float[Tensor, "*#batch rows columns"],
    output: Float[Tensor, "*#batch rows columns"],
    a: Float[Tensor, "*#batch rows inner"],
    b: Float[Tensor, "*#batch inner columns"],
    wanted: Sequence[bool],
    factor: float = 1.0,
    part: float = 0.5,
) -> Shares:
    """`bilinear` for z = (a @ b) · factor, without a second product; the factor takes no share.

    part: what a factor takes of R; all of it where the other one is a constant.
    """
    s = safe_divide(relevance, output if factor == 1 else output / factor, EPS)
    share_a = (s @ b.transpose(-1, -2)).mul_(a).mul_(part) if wanted[0] else None
    share_b = (a.transpose(-1, -2) @ s).mul_(b).mul_(part) if wanted[1] else None
    return share_a, share_b


def gating(
    relevance: Float[Tensor, "*z"],
    output: Float[Tensor, "*z"],
    a: Float[Tensor, "*#z"],
    b: Float[Tensor, "*#z"],
    wanted: Sequence[bool],
) -> Shares:
    """Element products of two activations: a gate shares half each (AttnLRP, Prop. 3.3).

    A factor that is constant along the features only rescales them, as the 1/σ of a hand-written
    normalisation does, and takes no share: the identity rule of a LayerNorm.
    """
    scales = [x.shape[-1:] != output.shape[-1:] for x in (a, b)]
    half = 1.0 if any(scales) else 0.5
    return tuple(
        None if not want else torch.zeros_like(x) if scale else relevance * half
        for x, scale, want in zip((a, b), scales, wanted, strict=True)
    )


def pool(
    average: Callable[[Tensor], Tensor],
    relevance: Float[Tensor, "*z"],
    output: Float[Tensor, "*z"],
    x: Float[Tensor, "..."],
    wanted: Sequence[bool],
) -> Shares:
    """The z+ rule of an average or a sum, whose weights are all positive: shares follow x⁺.

    Where nothing that is averaged is positive, they follow x⁻: else its relevance would vanish.
    """
    upper, some = _pooled_share(average, relevance, x.detach().clamp(min=0))
    lower, _ = _pooled_share(average, relevance.masked_fill(some, 0), x.detach().clamp(max=0))
    return (upper.add_(lower),)


def _pooled_share(
    average: Callable[[Tensor], Tensor], relevance: Tensor, x: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the shares x · R/z of z = average(x), and where z is not zero."""
    with torch.enable_grad():
        z = average(x.requires_grad_())
        (grad,) = torch.autograd.grad(z, x, relevance / z.detach().masked_fill(z == 0, 1))
    return grad * x.detach(), z != 0
