"""The rule sets: which rule each kind of operation follows in a relevance pass.

A rule set has one method per kind of operation (`xai_lib.tracing.ops`); each runs the operation and
returns its output with the rule attached. `ZPlus` propagates relevance itself; `AttnLRP` changes
the graph so that plain autograd yields relevance as input x gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from xai_lib.rules import elementary, linear
from xai_lib.rules.gate import Shares, Switch, gate, identity
from xai_lib.rules.linear import ConvMap


class ZPlus:
    """The published rules of Chefer et al. (CVPR 2021, section 3.1), per sample.

    split: the references' `layers_lrp` (each sign normalised alone, sums not normalised).
    alpha: weight of the agreeing signs; alpha - 1 that of the opposite ones.
    whole_batch: normalise sums over the batch, as the published code does.
    Relevance is divided by sums that nearly cancel, which half precision cannot hold.
    """

    needs_float32 = True
    # Totals run over a sample, which must be the first dimension.
    per_sample = True

    def __init__(
        self,
        switch: Switch,
        *,
        split: bool = False,
        alpha: float = 1.0,
        whole_batch: bool = False,
    ):
        self.switch, self.published = switch, whole_batch
        if split:
            self.linear_rule = partial(linear.split, alpha=alpha)
        else:
            self.linear_rule = (
                linear.zplus if alpha == 1 else partial(linear.alpha_beta, alpha=alpha)
            )
        self.add_rule = partial(elementary.add, whole_batch=whole_batch, normalised=not split)

    def linear(
        self,
        x: Float[Tensor, "*n inputs"],
        weight: Float[Tensor, "outputs inputs"],
        bias: Float[Tensor, " outputs"] | None = None,
    ) -> Float[Tensor, "*n outputs"]:
        return linear.linear(self.switch, x, weight, bias, self.linear_rule)

    def conv(
        self,
        x: Float[Tensor, "batch inputs *size"],
        op: ConvMap,
        output: Float[Tensor, "batch outputs *places"],
        pixels: bool,
    ) -> Float[Tensor, "batch outputs *places"]:
        rule = linear.pixel_box if pixels else self.linear_rule

        def relevance(r: Tensor, output: Tensor, x: Tensor, wanted) -> Shares:
            return (rule(op, r, output, x),)

        return gate(self.switch, relevance, output, x)

    def pointwise(
        self, func: Callable[..., Tensor], args: tuple, kwargs: dict
    ) -> Float[Tensor, "..."]:
        return gate(self.switch, identity, func(*args, **kwargs), args[0])

    def add(
        self, a: Float[Tensor, "*#z"], b: Float[Tensor, "*#z"], output: Float[Tensor, "*z"]
    ) -> Float[Tensor, "*z"]:
        return gate(self.switch, self.add_rule, output, a, b)

    def unmasked(self, scores: Float[Tensor, "*z"]) -> Float[Tensor, "*z"]:
        """Attention scores of a text without padding, to which the published code adds zeros."""
        if not self.published:
            return scores
        return self.add(scores, torch.zeros_like(scores), scores)

    def matmul(
        self,
        a: Float[Tensor, "*#batch rows inner"],
        b: Float[Tensor, "*#batch inner columns"],
        factor: float = 1.0,
        share: float = 0.5,
    ) -> Float[Tensor, "*#batch rows columns"]:
        rule = partial(elementary.matmul, factor=factor, part=share)
        return gate(self.switch, rule, scaled_product(a, b, factor), a, b)

    def bilinear(
        self,
        product: Callable[[Tensor, Tensor], Tensor],
        a: Float[Tensor, "..."],
        b: Float[Tensor, "..."],
    ) -> Float[Tensor, "..."]:
        return gate(self.switch, partial(elementary.bilinear, product), product(a, b), a, b)

    def gating(
        self, a: Float[Tensor, "*#z"], b: Float[Tensor, "*#z"], output: Float[Tensor, "*z"]
    ) -> Float[Tensor, "*z"]:
        return gate(self.switch, elementary.gating, output, a, b)

    def normalised(
        self, x: Float[Tensor, "*#z"], size: Float[Tensor, "*#z"], output: Float[Tensor, "*z"]
    ) -> Float[Tensor, "*z"]:
        """Features divided by a number of their own, such as their length: x / ‖x‖ by hand."""
        return self.gating(x, size, output)

    def activation(
        self, x: Float[Tensor, "*z"], output: Float[Tensor, "*z"]
    ) -> Float[Tensor, "*z"]:
        """An activation written out in several operations, of which `output` is the last."""
        return gate(self.switch, identity, output, x)

    def centred(self, x: Float[Tensor, "*z"], output: Float[Tensor, "*z"]) -> Float[Tensor, "*z"]:
        """The difference of x and its mean: the first step of a normalisation."""
        return gate(self.switch, identity, output, x)

    def scale(self, x: Float[Tensor, "*#z"], output: Float[Tensor, "*z"]) -> Float[Tensor, "*z"]:
        return gate(self.switch, identity, output, x)

    def pool(
        self, average: Callable[[Tensor], Tensor], x: Float[Tensor, "..."]
    ) -> Float[Tensor, "..."]:
        return gate(self.switch, partial(elementary.pool, average), average(x), x)

    def select(self, x: Float[Tensor, "..."], output: Float[Tensor, "*z"]) -> Float[Tensor, "*z"]:
        """A choice of rows; its gradient routes relevance, the published rule stabilises it."""
        if not self.published or output.dtype != torch.float64:
            return output
        return gate(self.switch, elementary.stabilised, output, output)


def scaled_product(
    a: Float[Tensor, "..."], b: Float[Tensor, "..."], factor: float
) -> Float[Tensor, "..."]:
    """Return (a @ b) · factor, with no copy where the factor is one."""
    product = a @ b
    return product if factor == 1 else product * factor


class AttnLRP:
    """AttnLRP (Achtibat et al., ICML 2024), in the limit of a vanishing stabiliser.

    Where R = z · g for every activation z, the paper's rules become edits of the gradient g, with
    no division: the ε-rule of linear maps and sums is the plain gradient (Eq. 8); a product halves
    it (Eq. 13-14, Prop. 3.3); an activation f passes g·f(x)/x (the identity rule, Eq. 9); a
    normalisation holds its deviation fixed (Prop. 3.4); softmax keeps its own gradient
    (Prop. 3.1). One backward pass then gives R = x · g at any tensor.
    """

    # Nothing is normalised and nothing stabilised: there is one form only.
    published = False

    def __init__(self, switch: Switch):
        self.switch = switch

    def linear(
        self,
        x: Float[Tensor, "*n inputs"],
        weight: Float[Tensor, "outputs inputs"],
        bias: Float[Tensor, " outputs"] | None = None,
    ) -> Float[Tensor, "*n outputs"]:
        return linear.linear(self.switch, x, weight, bias)

    def conv(
        self,
        x: Float[Tensor, "batch inputs *size"],
        op: ConvMap,
        output: Float[Tensor, "batch outputs *places"],
        pixels: bool,
    ) -> Float[Tensor, "batch outputs *places"]:
        return output

    def pointwise(
        self, func: Callable[..., Tensor], args: tuple, kwargs: dict
    ) -> Float[Tensor, "..."]:
        name = func.__name__
        if "softmax" in name or "dropout" in name:
            return func(*args, **kwargs)
        if "norm" in name:
            return _fixed_deviation(func, args, kwargs)
        return _proportional(func, args, kwargs)

    def add(
        self, a: Float[Tensor, "*#z"], b: Float[Tensor, "*#z"], output: Float[Tensor, "*z"]
    ) -> Float[Tensor, "*z"]:
        return output

    def unmasked(self, scores: Float[Tensor, "*z"]) -> Float[Tensor, "*z"]:
        return scores

    def matmul(
        self,
        a: Float[Tensor, "*#batch rows inner"],
        b: Float[Tensor, "*#batch inner columns"],
        factor: float = 1.0,
        share: float = 0.5,
    ) -> Float[Tensor, "*#batch rows columns"]:
        product = scaled_product(a, b, factor)
        return product if share == 1 else _halve(product)

    def bilinear(
        self,
        product: Callable[[Tensor, Tensor], Tensor],
        a: Float[Tensor, "..."],
        b: Float[Tensor, "..."],
    ) -> Float[Tensor, "..."]:
        return _halve(product(a, b))

    def gating(
        self, a: Float[Tensor, "*#z"], b: Float[Tensor, "*#z"], output: Float[Tensor, "*z"]
    ) -> Float[Tensor, "*z"]:
        for x, other in ((a, b), (b, a)):
            if x.shape[-1:] != output.shape[-1:]:
                return x.detach() * other
        return _halve(output)

    def normalised(
        self, x: Float[Tensor, "*#z"], size: Float[Tensor, "*#z"], output: Float[Tensor, "*z"]
    ) -> Float[Tensor, "*z"]:
        return x / size.detach()

    def activation(
        self, x: Float[Tensor, "*z"], output: Float[Tensor, "*z"]
    ) -> Float[Tensor, "*z"]:
        return x * _ratio(output, x)

    def centred(self, x: Float[Tensor, "*z"], output: Float[Tensor, "*z"]) -> Float[Tensor, "*z"]:
        return output

    def scale(self, x: Float[Tensor, "*#z"], output: Float[Tensor, "*z"]) -> Float[Tensor, "*z"]:
        return output

    def pool(
        self, average: Callable[[Tensor], Tensor], x: Float[Tensor, "..."]
    ) -> Float[Tensor, "..."]:
        return average(x)

    def select(self, x: Float[Tensor, "..."], output: Float[Tensor, "*z"]) -> Float[Tensor, "*z"]:
        return output


RuleSet = ZPlus | AttnLRP


class _Halve(torch.autograd.Function):
    @staticmethod
    def forward(ctx, output: Tensor) -> Tensor:
        return output.detach()

    @staticmethod
    def backward(ctx, *grads: Tensor) -> Tensor:
        return grads[0] / 2


def _halve(output: Tensor) -> Tensor:
    return _Halve.apply(output)


def _proportional(func, args, kwargs) -> Tensor:
    """Run f as x · c with c = f(x)/x held fixed: activations, RMS and L2 normalisation."""
    x = args[0]
    with torch.no_grad():
        output = func(*args, **kwargs)
    return x * _ratio(output, x)


@torch.no_grad()
def _ratio(output: Tensor, x: Tensor) -> Tensor:
    return output / torch.where(x == 0, torch.finfo(x.dtype).tiny, x)


def _fixed_deviation(func, args, kwargs) -> Tensor:
    """Run a normalisation whose deviation is held fixed: y = (x - mean(x)) · c + b, c constant."""
    if func.__name__ == "batch_norm":
        # In eval mode its mean and deviation are constants: an affine map, as a linear layer is.
        return func(*args, **kwargs)
    if func.__name__ != "layer_norm":
        return _proportional(func, args, kwargs)
    x = args[0]
    shape, weight, bias, eps = _layer_norm_arguments(*args[1:], **kwargs)
    dims = tuple(range(-len(shape), 0))
    with torch.no_grad():
        scale = torch.rsqrt(x.var(dims, correction=0, keepdim=True) + eps)
        scale = scale if weight is None else scale * weight
    centred = (x - x.mean(dims, keepdim=True)) * scale
    return centred if bias is None else centred + bias


def _layer_norm_arguments(normalized_shape, weight=None, bias=None, eps=1e-5):
    return normalized_shape, weight, bias, eps
