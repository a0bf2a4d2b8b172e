"""Propagation rules of linear maps: z+ (alpha-beta), its split form, and z^B at the pixels.

With z = W x, the z+ rule of deep Taylor decomposition (Montavon et al. 2017; Chefer et al. 2021,
Eq. 6) shares R by x⁺W⁺ + x⁻W⁻. Neither sign needs a product of its own:

    x⁺W⁺ + x⁻W⁻ = (W x + |W||x|) / 2
    x⁺(W⁺ᵀs) + x⁻(W⁻ᵀs) = (x · Wᵀs + |x| · |W|ᵀs) / 2

so the forward's own z and one product with |W| give the denominator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv1d_input, conv2d_input

from xai_lib.rules import gemm
from xai_lib.rules.gate import EPS, Switch, Uses, safe_divide

# rule(op, relevance, output, x) returns the relevance of x, shaped as x.
LinearRule = Callable[..., Float[Tensor, "..."]]


@dataclass
class LinearMap:
    """y = W x + b over the last dimension; `apply` and `transpose` take any weight of W's shape.

    scratch: buffers by shape, which the maps of a pass share.
    """

    weight: Float[Tensor, "outputs ..."]
    bias: Float[Tensor, " outputs"] | None = None
    scratch: dict[tuple, Tensor] = field(default_factory=dict, kw_only=True, repr=False)

    rowwise = True

    @property
    def magnitude(self) -> Float[Tensor, "outputs ..."]:
        """|W|, valid until another map of this shape asks for its own.

        Kept, all of them would take the memory of the model once more, and at small batches fresh
        memory costs more time than the products that read it.
        """
        weight = self.weight.detach()
        key = tuple(weight.shape), weight.dtype, weight.device
        if key not in self.scratch:
            self.scratch[key] = torch.empty_like(weight, memory_format=torch.contiguous_format)
        return torch.abs(weight, out=self.scratch[key])

    def apply(
        self, x: Float[Tensor, "*n inputs"], weight: Float[Tensor, "outputs inputs"]
    ) -> Float[Tensor, "*n outputs"]:
        return gemm.linear(x, weight)

    def transpose(
        self,
        s: Float[Tensor, "*n outputs"],
        weight: Float[Tensor, "outputs inputs"],
        x: Float[Tensor, "*n inputs"],
    ) -> Float[Tensor, "*n inputs"]:
        return gemm.transposed(s, weight)

    def without_bias(self, output: Float[Tensor, "*z"]) -> Float[Tensor, "*z"]:
        return output.clone() if self.bias is None else output - self.bias


@dataclass
class ConvMap(LinearMap):
    """y = W * x + b, a 1- or 2-d convolution with `options` (stride, padding, ...)."""

    options: dict[str, Any] | None = None

    rowwise = False

    def apply(
        self,
        x: Float[Tensor, "batch inputs *size"],
        weight: Float[Tensor, "outputs inputs_of_group *kernel"],
    ) -> Float[Tensor, "batch outputs *places"]:
        convolve = F.conv1d if weight.dim() == 3 else F.conv2d
        return convolve(x, weight, None, **(self.options or {}))

    def transpose(
        self,
        s: Float[Tensor, "batch outputs *places"],
        weight: Float[Tensor, "outputs inputs_of_group *kernel"],
        x: Float[Tensor, "batch inputs *size"],
    ) -> Float[Tensor, "batch inputs *size"]:
        gradient = conv1d_input if weight.dim() == 3 else conv2d_input
        return gradient(x.shape, weight, s.contiguous(), **(self.options or {}))

    def without_bias(self, output: Float[Tensor, "*z"]) -> Float[Tensor, "*z"]:
        if self.bias is None:
            return output.clone()
        return output - self.bias.reshape(-1, *[1] * (output.dim() - 2))


class _Linear(torch.autograd.Function):
    """`F.linear` with a frozen weight: gradient gW, or a rule's relevance; empty rows skipped."""

    @staticmethod
    def forward(ctx, switch: Switch, rule: LinearRule | None, op: LinearMap, x: Tensor) -> Tensor:
        output = gemm.linear(x, op.weight, op.bias)
        ctx.switch, ctx.rule, ctx.op = switch, rule, op
        ctx.uses = Uses.of(x)
        ctx.save_for_backward(*((x, output) if rule is not None else ()))
        return output

    @staticmethod
    def backward(ctx, *grads: Tensor):
        (grad,) = grads
        op, rule = ctx.op, ctx.rule
        if not ctx.switch.relevance or rule is None:
            return None, None, None, _on_used_rows(ctx.switch, _gradient, op, grad)
        x, output = ctx.saved_tensors
        share = _on_used_rows(ctx.switch, rule, op, grad, output, x)
        return None, None, None, Uses.shrink(ctx.uses, share, x, linear=True)


def _gradient(op: LinearMap, grad: Tensor) -> Tensor:
    return gemm.transposed(grad, op.weight)


def _on_used_rows(
    switch: Switch, function: LinearRule, op: LinearMap, grad: Tensor, *saved: Tensor
) -> Tensor:
    """Apply `function` to the rows that carry anything: in the last block that is CLS alone."""
    if switch.dense or grad.dim() < 3:
        return function(op, grad, *saved)
    used = (grad != 0).any(-1)
    if used.float().mean() > 0.5:
        switch.dense = True
        return function(op, grad, *saved)
    share = function(op, grad[used], *(t[used] for t in saved))
    result = grad.new_zeros(*grad.shape[:-1], share.shape[-1])
    result[used] = share
    return result


def linear(
    switch: Switch,
    x: Float[Tensor, "*n inputs"],
    weight: Float[Tensor, "outputs inputs"],
    bias: Float[Tensor, " outputs"] | None,
    rule: LinearRule | None = None,
) -> Float[Tensor, "*n outputs"]:
    """Return x Wᵀ + b whose backward is the gradient or, in a relevance pass, `rule`."""
    return _Linear.apply(switch, rule, LinearMap(weight, bias, scratch=switch.scratch), x)


def zplus(
    op: LinearMap,
    relevance: Float[Tensor, "*z"],
    output: Float[Tensor, "*z"],
    x: Float[Tensor, "*x"],
) -> Float[Tensor, "*x"]:
    """The z+ rule: R_x = x⁺ · W⁺ᵀs + x⁻ · W⁻ᵀs with s = R / (x⁺W⁺ + x⁻W⁻).

    Conserves ΣR up to the 1e-9 in the denominator; biases take no share.
    """
    magnitude, absolute = op.magnitude, x.abs()
    # Twice the denominator and hence half of s: the halves of both identities cancel.
    s = op.without_bias(output).add_(op.apply(absolute, magnitude)).add_(2 * EPS)
    s = torch.div(relevance, s, out=s)
    share = op.transpose(s, op.weight, x).mul_(x)
    return share.addcmul_(absolute, op.transpose(s, magnitude, x))


def alpha_beta(
    op: LinearMap,
    relevance: Float[Tensor, "*z"],
    output: Float[Tensor, "*z"],
    x: Float[Tensor, "*x"],
    alpha: float,
) -> Float[Tensor, "*x"]:
    """alpha · z+ share - (alpha - 1) · opposite signs' share (Bach et al. 2015, Eq. 60)."""
    share = zplus(op, relevance, output, x).mul_(alpha)
    magnitude, absolute = op.magnitude, x.abs()
    s = relevance / (op.without_bias(output).sub_(op.apply(absolute, magnitude)).add_(2 * EPS))
    inhibitor = op.transpose(s, op.weight, x).mul_(x)
    inhibitor.sub_(op.transpose(s, magnitude, x).mul_(absolute))
    return share.sub_(inhibitor, alpha=alpha - 1)


def split(
    op: LinearMap,
    relevance: Float[Tensor, "*z"],
    output: Float[Tensor, "*z"],
    x: Float[Tensor, "*x"],
    alpha: float,
) -> Float[Tensor, "*x"]:
    """The published `layers_lrp` rule: each sign divides R by its own sum, so ΣR about doubles."""
    up, down = op.weight.clamp(min=0), op.weight.clamp(max=0)
    positive, negative = x.clamp(min=0), x.clamp(max=0)

    def share(w1: Tensor, w2: Tensor) -> Tensor:
        first = safe_divide(relevance, op.apply(positive, w1), EPS)
        second = safe_divide(relevance, op.apply(negative, w2), EPS)
        return positive * op.transpose(first, w1, x) + negative * op.transpose(second, w2, x)

    result = share(up, down) * alpha
    return result if alpha == 1 else result - (alpha - 1) * share(down, up)


def pixel_box(
    op: ConvMap,
    relevance: Float[Tensor, "batch outputs rows columns"],
    output: Float[Tensor, "batch outputs rows columns"],
    x: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels height width"]:
    """The z^B rule at the pixels: shares x·W - l·W⁺ - h·W⁻ with l, h each image's own extremes.

    Montavon et al. 2017, section 4.1.3, as the published patch embedding applies it.
    """
    low = x.amin((1, 2, 3), keepdim=True).expand_as(x)
    high = x.amax((1, 2, 3), keepdim=True).expand_as(x)
    up, down = op.weight.clamp(min=0), op.weight.clamp(max=0)
    z = op.apply(x, op.weight) - op.apply(low, up) - op.apply(high, down)
    s = relevance / (z + EPS)
    return (
        x * op.transpose(s, op.weight, x)
        - low * op.transpose(s, up, x)
        - high * op.transpose(s, down, x)
    )
