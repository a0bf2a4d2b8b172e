"""The alpha-beta rule (Bach et al. 2015, Eq. 60) for maps, sums, products and pools alike.

With contributions z_i that sum to z, P = Σ z_i⁺ and N = Σ z_i⁻, relevance is shared as

    R_i = (α z_i⁺/P + β z_i⁻/N) R,    α + β = 1,

as Wu & Ong (2021) state it for BERT, with α = β = 1/2. A sum is a map whose weights are one, and a
product's terms a·b are contributions too, of which each factor gets half. Where all contributions
have one sign, that sign takes all of R. So ΣR is kept everywhere, and for 0 <= α <= 1 no share has
another sign than R: nothing is divided by a sum that cancels.

With m = Σ|z_i|, P = (z + m)/2 and N = (z - m)/2, and for z = W x

    R_x = x · Wᵀu + |x| · |W|ᵀv,    u, v = (αR/P ± βR/N) / 2,

so that one product with |W| in front and two behind are enough. Biases take no share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from xai_lib.rules.gate import Shares, Switch, gate
from xai_lib.rules.linear import LinearMap
from xai_lib.rules.rulesets import ZPlus

# A sum of one sign that is smaller than this many roundings of Σ|z_i| is none.
ROUNDINGS = 16


def multipliers(
    relevance: Float[Tensor, "*z"],
    z: Float[Tensor, "*z"],
    m: Float[Tensor, "*z"],
    alpha: float,
    noise: Float[Tensor, "*z"] | None = None,
) -> tuple[Float[Tensor, "*z"], Float[Tensor, "*z"]]:
    """Return u and v of the module's formula, for sums z and m = Σ|z_i| of any shape.

    noise: a tensor whose rounding z carries as well, such as z before a bias was taken off it.
    """
    scale = m if noise is None else m + noise.abs()
    least = scale * (2 * ROUNDINGS * torch.finfo(z.dtype).eps)
    up, down = z + m, z - m
    no_up, no_down = up <= least, -down <= least
    positive = torch.where(no_down, relevance, alpha * relevance) / up
    negative = torch.where(no_up, relevance, (1 - alpha) * relevance) / down
    # What carries no relevance gives none, also where its sums are infinite (masked scores).
    positive.masked_fill_(no_up | (relevance == 0), 0)
    negative.masked_fill_(no_down | (relevance == 0), 0)
    return positive + negative, positive - negative


def linear_map(
    op: LinearMap,
    relevance: Float[Tensor, "*z"],
    output: Float[Tensor, "*z"],
    x: Float[Tensor, "*x"],
    alpha: float,
) -> Float[Tensor, "*x"]:
    """Return the shares of x in z = W x."""
    magnitude, absolute = op.magnitude, x.abs()
    m = op.apply(absolute, magnitude)
    noise = None if op.bias is None else output
    u, v = multipliers(relevance, op.without_bias(output), m, alpha, noise)
    share = op.transpose(u, op.weight, x).mul_(x)
    return share.addcmul_(absolute, op.transpose(v, magnitude, x))


def add(
    relevance: Float[Tensor, "*z"],
    output: Float[Tensor, "*z"],
    a: Float[Tensor, "*#z"],
    b: Float[Tensor, "*#z"],
    wanted: Sequence[bool],
    alpha: float,
) -> Shares:
    """Return the shares of a and b in a + b: proportional where both have one sign.

    A constant (position embeddings) keeps its share.
    """
    u, v = multipliers(relevance, output, a.abs() + b.abs(), alpha)
    return tuple(
        _weighed(u, v, x).sum_to_size(x.shape) if want else None
        for x, want in zip((a, b), wanted, strict=True)
    )


def bilinear(
    product: Callable[[Tensor, Tensor], Tensor],
    relevance: Float[Tensor, "*z"],
    output: Float[Tensor, "*z"],
    a: Float[Tensor, "..."],
    b: Float[Tensor, "..."],
    wanted: Sequence[bool],
    alpha: float,
    part: float = 0.5,
) -> Shares:
    """Return the shares of two factors, `part` of R each, in sums of products a·b."""
    with torch.enable_grad():
        leaves = [x.detach().requires_grad_(want) for x, want in zip((a, b), wanted, strict=True)]
        sizes = [x.detach().abs().requires_grad_(x.requires_grad) for x in leaves]
        z, m = product(*leaves), product(*sizes)
        u, v = multipliers(relevance, output, m.detach(), alpha)
        signed = iter(torch.autograd.grad(z, [x for x in leaves if x.requires_grad], u))
        unsigned = iter(torch.autograd.grad(m, [x for x in sizes if x.requires_grad], v))
    return tuple(
        (next(signed) * x.detach() + next(unsigned) * size.detach()) * part if want else None
        for x, size, want in zip(leaves, sizes, wanted, strict=True)
    )


def matmul(
    relevance: Float[Tensor, "*#batch rows columns"],
    output: Float[Tensor, "*#batch rows columns"],
    a: Float[Tensor, "*#batch rows inner"],
    b: Float[Tensor, "*#batch inner columns"],
    wanted: Sequence[bool],
    alpha: float,
    factor: float = 1.0,
    part: float = 0.5,
) -> Shares:
    """`bilinear` for z = (a @ b) · factor, without repeating the product."""
    size_a, size_b = a.abs(), b.abs()
    u, v = multipliers(relevance, output / factor, size_a @ size_b, alpha)
    first = second = None
    if wanted[0]:
        first = (u @ b.mT).mul_(a).addcmul_(size_a, v @ size_b.mT).mul_(part)
    if wanted[1]:
        second = (a.mT @ u).mul_(b).addcmul_(size_b, size_a.mT @ v).mul_(part)
    return first, second


def pool(
    average: Callable[[Tensor], Tensor],
    relevance: Float[Tensor, "*z"],
    output: Float[Tensor, "*z"],
    x: Float[Tensor, "*x"],
    wanted: Sequence[bool] | None = None,
    *,
    alpha: float,
) -> tuple[Float[Tensor, "*x"]]:
    """Return the shares of x in an average or a sum over some of its dimensions."""
    with torch.enable_grad():
        leaf, size = x.detach().requires_grad_(), x.detach().abs().requires_grad_()
        z, m = average(leaf), average(size)
        u, v = multipliers(relevance, z.detach(), m.detach(), alpha)
        (signed,) = torch.autograd.grad(z, leaf, u)
        (unsigned,) = torch.autograd.grad(m, size, v)
    return (signed * x + unsigned * x.abs(),)


def _weighed(u: Tensor, v: Tensor, x: Tensor) -> Tensor:
    # An infinite mask is a constant: its share is asked for by nobody, and 0 · inf is not wanted.
    return (x * u + x.abs() * v).masked_fill((u == 0) & (v == 0), 0)


class AlphaBeta(ZPlus):
    """The module's rule everywhere; identity at activations, normalisations and softmax.

    z^B at the pixels (Montavon et al. 2017) and halves at gates stay as in `ZPlus`. Wu & Ong
    linearise an attention head as a whole (as Voita et al. 2019); here its softmax passes relevance
    on and its two products share it (Chefer et al. 2021, Eq. 8), since that holds for any attention
    written in torch operations.
    """

    per_sample = False

    def __init__(self, switch: Switch, *, alpha: float = 0.5):
        super().__init__(switch)
        self.alpha = alpha
        self.linear_rule = partial(linear_map, alpha=alpha)
        self.add_rule = partial(add, alpha=alpha)

    def matmul(
        self,
        a: Float[Tensor, "*#batch rows inner"],
        b: Float[Tensor, "*#batch inner columns"],
        factor: float = 1.0,
        share: float = 0.5,
    ) -> Float[Tensor, "*#batch rows columns"]:
        rule = partial(matmul, alpha=self.alpha, factor=factor, part=share)
        product = a @ b
        return gate(self.switch, rule, product if factor == 1 else product * factor, a, b)

    def bilinear(
        self,
        product: Callable[[Tensor, Tensor], Tensor],
        a: Float[Tensor, "..."],
        b: Float[Tensor, "..."],
    ) -> Float[Tensor, "..."]:
        rule = partial(bilinear, product, alpha=self.alpha)
        return gate(self.switch, rule, product(a, b), a, b)

    def pool(
        self, average: Callable[[Tensor], Tensor], x: Float[Tensor, "..."]
    ) -> Float[Tensor, "..."]:
        return gate(self.switch, partial(pool, average, alpha=self.alpha), average(x), x)
