"""What a trace does with each kind of operation: run it, with the rule set's rule where one is set.

One method per value of `xai_lib.tracing.ops.KINDS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

import xai_lib.tracing.arguments as arguments
import xai_lib.tracing.attention as attention
from xai_lib.errors import UnsupportedModelError
from xai_lib.rules import gemm
from xai_lib.rules.gate import Switch
from xai_lib.rules.linear import ConvMap
from xai_lib.rules.linear import linear as ruled_linear
from xai_lib.rules.rulesets import RuleSet, scaled_product
from xai_lib.tracing.embeddings import Embeddings
from xai_lib.tracing.forms import Form, adds_up, form_of
from xai_lib.tracing.guards import Guards, Mixing
from xai_lib.tracing.marks import PATCHES, STAGE, hand_over, leave, mark_of
from xai_lib.tracing.masks import HeadMask
from xai_lib.tracing.ops import bare_name
from xai_lib.tracing.sources import common_source, is_own_mean

# The stages of a tensor that holds attention probabilities.
SHARES = ("probs", "talked")


class Handlers(TorchFunctionMode, ABC):
    """Operations of an intercepted pass; `Trace` adds the sites and the bookkeeping.

    Every method takes (func, args, kwargs) as the model called them and returns the output.
    """

    rules: RuleSet | None
    switch: Switch
    guards: Guards
    embeddings: Embeddings | None
    mask: HeadMask | None
    fused: int
    samples: int | None
    grid: tuple[int, int] | None
    patch: tuple[int, int] | None
    _count: int
    _embeddings: list[Tensor]
    _recent: Tensor | None
    _wants_weights: bool

    @abstractmethod
    def _plain(self, name: str, func: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
        """Run an operation that no handler is for."""

    @abstractmethod
    def _meet(self, probs: Tensor, value: Tensor) -> Tensor:
        """Run the product of attention probabilities and values, a site."""

    @abstractmethod
    def _meet_folded(self, probs: Tensor, value: Tensor) -> Tensor:
        """The same where samples and heads share the first dimension, or there is one head."""

    @abstractmethod
    def _pass_by(self, func: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
        """Run an attention call that nobody looks into."""

    @abstractmethod
    def _in_focus(self, x: Tensor, key: Tensor | None = None) -> bool: ...

    @abstractmethod
    def _standing_for(self, x: Tensor, other: Tensor) -> Tensor: ...

    def _rules_of(self, *operands: object) -> RuleSet | None:
        """Return the rule set where one of the operands carries a gradient, else None."""
        if self.rules is None:
            return None
        carried = any(isinstance(x, Tensor) and x.requires_grad for x in operands)
        return self.rules if carried else None

    def _fused_attention(self, func, args, kwargs):
        query, key = (*args, *(kwargs[k] for k in ("query", "key") if k in kwargs))[:2]
        beside = not (self._in_focus(query, key) or self._rules_of(*args, *kwargs.values()))
        opaque = self.mask is None and not self._wants_weights
        if opaque and (self._count < self.fused or beside):
            return self._pass_by(func, args, kwargs)
        return self._attend(*args, **kwargs)

    def _attend(
        self,
        query,
        key,
        value,
        attn_mask=None,
        dropout_p=0.0,
        is_causal=False,
        scale=None,
        enable_gqa=False,
    ):
        key, value = attention.expand_groups(query, key, value, enable_gqa)
        mask = attention.score_mask(query, key, attn_mask, is_causal)
        factor = attention.default_scale(query, scale)
        scores = self._product(query, key.transpose(-1, -2), factor)
        if mask is not None and mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, float("-inf"))
        elif mask is not None:
            scores = self._masked(scores, mask, scores + mask)
        probs = self._pointwise(
            F.softmax, (scores,), {"dim": -1, "dtype": arguments.softmax_dtype(scores)}
        )
        if mask is not None and mask.dtype == torch.bool:
            # torch gives zero where a query may attend to nothing.
            probs = probs.masked_fill(~mask.any(-1, keepdim=True), 0.0)
        if dropout_p:
            probs = F.dropout(probs, dropout_p)
        return self._encounter(self._standing_for(query, probs), value)

    def _encounter(self, probs: Tensor, value: Tensor) -> Tensor:
        folded = probs.dim() == value.dim() == 3
        return self._meet_folded(probs, value) if folded else self._meet(probs, value)

    def _module_attention(self, func, args, kwargs):
        asked = attention.wants_weights(*args, **kwargs)
        self._wants_weights = bool(asked)
        with self:
            output = attention.multi_head_attention(*args, **kwargs)
        self._wants_weights = False
        probs, self._recent = self._recent, None
        if not asked:
            return output, None
        return output, probs.mean(1) if probs is not None and asked == "average" else probs

    def _linear(self, func, args, kwargs):
        x, weight, bias = arguments.linear_arguments(*args, **kwargs)
        if not self._count and x.dim() == 3:
            self._embeddings.append(x)
        if not arguments.is_plain(weight):
            if self._rules_of(x):
                raise UnsupportedModelError(
                    f"A linear layer has weights of the class {type(weight).__name__}, for which "
                    "no relevance rule is defined. Dequantize the model, or use a gradient or "
                    "attention method, such as 'gradient_x_input' or 'generic_attention'."
                )
            return func(*args, **kwargs)
        if weight.requires_grad or weight.layout != torch.strided or x.dtype != weight.dtype:
            if self._rules_of(x):
                raise UnsupportedModelError(
                    f"A linear layer has {weight.dtype} weights for {x.dtype} inputs, for which no "
                    "relevance rule is defined. Convert the model to one dtype, e.g. model.float()."
                )
            return func(*args, **kwargs)
        if not x.requires_grad:
            return gemm.linear(x, weight, bias)
        if self.rules is not None:
            return self.rules.linear(x, weight, bias)
        return ruled_linear(self.switch, x, weight, bias)

    def _conv(self, func, args, kwargs):
        output = func(*args, **kwargs)
        x, weight, bias, options = arguments.conv_arguments(*args, **kwargs)
        rules = self._rules_of(x)
        first = self.grid is None and weight.dim() == 4
        between = bool(self._count)
        if weight.dim() == 4 and not between:
            self.grid = output.shape[-2], output.shape[-1]
            self.patch = (weight.shape[-2], weight.shape[-1]) if first else None
            self.guards.patches = output.shape[-2:].numel()
            leave(output, PATCHES, True)
        if rules is not None:
            op = ConvMap(weight, bias, options, scratch=self.switch.scratch)
            output = rules.conv(x, op, output, pixels=first)
            if weight.dim() == 4:
                leave(output, PATCHES, True)
        if between:
            self.guards.convolution(output, weight.shape[2:].numel())
        return output

    def _matmul(self, func, args, kwargs):
        a, b = (*args, *kwargs.values())[:2]
        if mark_of(a)[0] in SHARES and a.dim() >= 3:
            return self._encounter(a, b)
        if mark_of(b)[0] in SHARES and b.dim() >= 3 and adds_up(b, -2):
            # A applied from the right: the transposed product.
            probs = b.transpose(-1, -2)
            hand_over(b, probs)
            output = self._encounter(probs, a.transpose(-1, -2))
            turned = output.transpose(-1, -2)
            hand_over(output, turned)
            return turned
        output = self._product(a, b)
        self.guards.product(a, b, output)
        return output

    def _reflected_matmul(self, func, args, kwargs):
        return self._matmul(func, args[::-1], kwargs)

    def _biased_product(self, func, args, kwargs):
        bias, a, b, alpha, beta = arguments.baddbmm_arguments(*args, **kwargs)
        scores = self._product(a, b, alpha)
        self.guards.product(a, b, scores)
        mask = bias * beta
        total = mask + scores
        if self._rules_of(scores):
            total = self._masked(scores, mask, total)
        leave(total, STAGE, mark_of(scores))
        return total

    def _product(self, a: Tensor, b: Tensor, factor: float = 1.0) -> Tensor:
        rules = self._rules_of(a, b)
        if rules is None:
            return scaled_product(a, b, factor)
        if not b.requires_grad and b.dim() == 2:
            return rules.linear(a, b.t())
        if not a.requires_grad and a.dim() == b.dim() == 2:
            # Scores of images with fixed texts: a linear map of b.
            return rules.linear(b.t(), a).t()
        both = a.requires_grad and b.requires_grad
        return rules.matmul(a, b, factor, 0.5 if both else 1.0)

    def _einsum(self, func, args, kwargs):
        equation, *operands = args
        operands = list(operands[0]) if isinstance(operands[0], list | tuple) else operands
        if len(operands) == 2 and any(mark_of(x)[0] in SHARES for x in operands):
            output = self._einsum_meeting(equation, *operands)
            if output is not None:
                return output
        rules = self._rules_of(*operands)
        if rules is None:
            output = func(equation, *operands, **kwargs)
        elif len(operands) != 2:
            raise UnsupportedModelError("No relevance rule for einsum of other than two operands.")
        else:
            a, b = operands
            output = rules.bilinear(lambda a, b: func(equation, a, b), a, b)
        if len(operands) == 2:
            self.guards.product(operands[0], operands[1], output)
        return output

    def _einsum_meeting(self, equation: str, a: Tensor, b: Tensor) -> Tensor | None:
        """Return what an einsum of probabilities and values gives; None for another purpose."""
        if mark_of(a)[0] in SHARES and arguments.is_mixing(equation):
            return self._encounter(a, b)
        letters = form_of(equation)
        if letters is None:
            return None
        first, second, wanted = letters
        if mark_of(a)[0] not in SHARES:
            a, b, first, second = b, a, second, first
        form = Form.of(first, second, wanted)
        if form is None or not adds_up(a, first.index(form.key)):
            return None
        form = form.led_by(self.samples, dict(zip(first, a.shape, strict=True)))
        probs, value = form.arranged(a, b)
        hand_over(a, probs)
        hand_over(b, value)
        output = self._encounter(probs, value)
        restored = form.restored(output)
        hand_over(output, restored)
        return restored

    def _multiply(self, func, args, kwargs):
        output = func(*args, **kwargs)
        a, b = args[:2]
        rules = self._rules_of(a, b)
        if rules is None:
            return output
        both = all(isinstance(x, Tensor) and x.requires_grad for x in (a, b))
        if both:
            return _combined(rules, rules.gating, a, b, output)
        return self._scale(a if isinstance(a, Tensor) and a.requires_grad else b, output)

    def _divide(self, func, args, kwargs):
        output = func(*args, **kwargs)
        a, b = args[:2]
        rules = self._rules_of(a, b)
        if rules is None:
            return output
        if isinstance(b, Tensor) and b.requires_grad:
            if bare_name(func).startswith("r") or not isinstance(a, Tensor):
                return self._plain("reciprocal", func, args, kwargs)
            if b.shape[-1:] != output.shape[-1:]:
                return rules.normalised(a, b, output)
            return _combined(rules, rules.gating, a, b, output)
        return self._scale(a, output)

    def _length(self, func, args, kwargs):
        """The Euclidean length of feature vectors, as the operations that it is short for."""
        output = func(*args, **kwargs)
        x = args[0]
        kind = kwargs.get("p", kwargs.get("ord", args[1] if len(args) > 1 else 2))
        # Of a vector, Frobenius' norm is its length.
        euclidean = kind in (2, None, "fro")
        if not self._rules_of(x):
            return output
        if not euclidean or output.shape != (*x.shape[:-1], 1):
            return self._plain(bare_name(func), func, args, kwargs)
        squares = self._pointwise(torch.square, (x,), {})
        return self._pointwise(torch.sqrt, (self._pool(torch.sum, (squares, -1, True), {}),), {})

    def _scale(self, x: Tensor, output: Tensor) -> Tensor:
        rules = self._rules_of(x)
        return output if rules is None else rules.scale(x, output)

    def _add(self, func, args, kwargs):
        output = func(*args, **kwargs)
        a, b = args[:2]
        rules = self._rules_of(a, b)
        if rules is None:
            return output
        name = bare_name(func)
        if name == "rsub":
            a, b = b, a
        a, b = (x if isinstance(x, Tensor) else output.new_tensor(x) for x in (a, b))
        factor = kwargs.get("alpha", 1) * (-1 if "sub" in name else 1)
        if factor != 1:
            b = self._scale(b, b * factor)
        for x, other in ((a, b), (b, a)):
            mixing = mark_of(x)[1]
            if isinstance(mixing, Mixing):
                mixing.summed = True
                return self._masked(x, other, output)
        if _is_bias(b):
            # The bias of a normalisation or map written by hand takes no share, as elsewhere.
            return self._scale(a, output)
        if is_own_mean(a, b):
            return rules.centred(a, output)
        return _combined(rules, rules.add, a, b, output)

    def _masked(self, scores: Tensor, bias: Tensor, output: Tensor) -> Tensor:
        """Attention scores plus what is no token: a mask or position bias, which takes no share.

        Softmax is the same with any constant added, so what a bias would take has no meaning of its
        own, and with ALiBi depends on the padding. Scores may also be sums of products (DeBERTa).
        """
        rules = self._rules_of(scores, bias)
        if rules is None:
            return output
        if rules.published or bias.requires_grad:
            return rules.add(scores, bias, output)
        return rules.scale(scores, output)

    def _pool(self, func, args, kwargs):
        rules = self._rules_of(args[0])
        if rules is None:
            return func(*args, **kwargs)
        return rules.pool(lambda x: func(x, *args[1:], **kwargs), args[0])

    def _pointwise(self, func, args, kwargs):
        x = args[0]
        if bare_name(func) == "pow" and self._rules_of(*args[1:]):
            return self._plain("pow", func, args, kwargs)
        if "norm" in bare_name(func) and not self._count and x.dim() == 3:
            self._embeddings.append(x)
        rules = self._rules_of(x)
        if rules is None:
            return func(*args, **kwargs)
        mixing = mark_of(x)[1]
        if isinstance(mixing, Mixing) and self.embeddings is not None and not mixing.summed:
            args = rules.unmasked(x), *args[1:]
        return rules.pointwise(func, args, kwargs)


def _combined(
    rules: RuleSet, rule: Callable[..., Tensor], a: Tensor, b: Tensor, output: Tensor
) -> Tensor:
    """Follow the rule of two operands, or that of activations where they are but one."""
    source = common_source(a, b, output)
    return rule(a, b, output) if source is None else rules.activation(source, output)


def _is_bias(b: Tensor) -> bool:
    """Whether b is a vector of constants, one for each feature, or for each channel of an image."""
    if b.dim() == 1:
        return isinstance(b, nn.Parameter)
    return b.dim() == 4 and not b.requires_grad and b.numel() == b.shape[1]
