"""Weights that are tensors of a class of their own (int8 in torchao) go the way it says."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map

import xai_lib as xai
from xai_lib.errors import UnsupportedModelError


class Quantized(torch.Tensor):
    """Integers and a scale that stand for a matrix; operations see the matrix."""

    @staticmethod
    def __new__(cls, integers, scale):
        return torch.Tensor._make_wrapper_subclass(cls, integers.shape, dtype=scale.dtype)

    def __init__(self, integers, scale):
        self.integers, self.scale = integers, scale

    def whole(self):
        return self.integers * self.scale

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.detach.default:
            return cls(args[0].integers, args[0].scale)
        args, kwargs = tree_map(
            lambda x: x.whole() if isinstance(x, Quantized) else x, (args, kwargs or {})
        )
        return func(*args, **kwargs)


class ByFunction(Quantized):
    """The same, known to `F.linear` alone."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is F.linear:
            x, weight, *bias = args
            return F.linear(x, weight.whole(), *bias)
        return super().__torch_function__(func, types, args, kwargs or {})


class Net(nn.Module):
    def __init__(self, kind=None):
        super().__init__()
        torch.manual_seed(0)
        self.patch = nn.Conv2d(3, 16, 8, 8)
        self.qkv, self.proj, self.head = nn.Linear(16, 48), nn.Linear(16, 16), nn.Linear(16, 4)
        for layer in (self.qkv, self.proj, self.head):
            scale = layer.weight.detach().abs().max() / 127
            integers = (layer.weight.detach() / scale).round().char()
            weight = integers * scale if kind is None else kind(integers, scale)
            layer.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head((x + self.proj(y)).mean(1))


@pytest.fixture
def pixels():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", [Quantized, ByFunction])
@pytest.mark.parametrize(
    "method", ["gradient_x_input", "integrated_gradients", "generic_attention", "rollout"]
)
def test_as_the_matrices_that_they_stand_for(kind, method, pixels):
    ours = xai.explain(Net(kind).eval(), pixels, method, target=1).relevance
    plain = xai.explain(Net().eval(), pixels, method, target=1).relevance
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [Quantized, ByFunction])
@pytest.mark.parametrize("method", ["lrp", "attnlrp", "transformer_attribution"])
def test_no_rule_is_known_for_them(kind, method, pixels):
    with pytest.raises(UnsupportedModelError, match="'gradient_x_input'"):
        xai.explain(Net(kind).eval(), pixels, method)
