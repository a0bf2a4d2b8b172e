"""LRP on windows, rotary positions, gates, talking heads and probes, against slow oracles."""

from contextlib import ExitStack
from unittest import mock

import pytest
import torch
from support.catalogue import CATALOGUE
from torch.nn import functional as F

import xai_lib as xai

pytestmark = pytest.mark.slow

BY_NAME = {entry.name: entry for entry in CATALOGUE}
MODELS = (
    "timm swin_tiny_patch4_window7_224",
    "timm swinv2_tiny_window8_256",
    "timm eva02_tiny_patch14_224",
    "timm eva02_base_patch14_448",
    "timm vit_small_patch16_dinov3",
    "timm cait_xxs24_224",
    "timm beit_base_patch16_224",
    "timm vit_base_patch16_siglip_224",
)


def both_need(a, b):
    return all(isinstance(x, torch.Tensor) and x.requires_grad for x in (a, b))


def halved(product):
    """A product of two activations whose gradient to each factor is halved."""

    def patched(a, b):
        if not both_need(a, b):
            return product(a, b)
        return (product(a.detach(), b) + product(a, b.detach())) / 2

    return patched


def proportional(function):
    """f(x) = x · c with c = f(x)/x held fixed."""

    def patched(x, *args, **kwargs):
        with torch.no_grad():
            ratio = function(x, *args, **kwargs) / x
        return x * ratio

    return patched


def fixed_layer_norm(x, shape, weight=None, bias=None, eps=1e-5):
    deviation = (x.var(-1, correction=0, keepdim=True) + eps).sqrt().detach()
    y = (x - x.mean(-1, keepdim=True)) / deviation
    y = y if weight is None else y * weight.detach()
    return y if bias is None else y + bias.detach()


def slow_attnlrp(model, pixels, target):
    """AttnLRP as x · ∂/∂x of the model with its operations exchanged one by one."""
    exchanged = [
        (torch.Tensor, "__matmul__", halved(torch.Tensor.__matmul__)),
        (torch.Tensor, "__mul__", halved(torch.Tensor.__mul__)),
        (F, "layer_norm", fixed_layer_norm),
        *((F, name, proportional(getattr(F, name))) for name in ("gelu", "silu", "normalize")),
    ]
    x = pixels.clone().requires_grad_()
    with ExitStack() as stack:
        for place, name, substitute in exchanged:
            stack.enter_context(mock.patch.object(place, name, substitute))
        logits = model.requires_grad_(False)(x)
    (grad,) = torch.autograd.grad(logits[:, target].sum(), x)
    return (x * grad).sum(1).detach()


@pytest.mark.parametrize("name", MODELS)
def test_attnlrp_is_the_gradient_of_the_exchanged_model(name):
    entry = BY_NAME[name]
    pixels = entry.pixels(2)
    expected = slow_attnlrp(entry.model(eager=True), pixels, 2)
    found = xai.explain(entry.model(), pixels, "attnlrp", target=2)
    scale = expected.abs().amax((1, 2), keepdim=True)
    torch.testing.assert_close(found.pixels / scale, expected / scale, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_zplus_conserves_what_no_constant_takes(name):
    """With position embeddings and biases of scores at zero, all relevance reaches the tokens."""
    entry = BY_NAME[name]
    model = entry.model()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "pos_embed" in key or "relative" in key or "cpb" in key:
                parameter.zero_()
    att = xai.explain(model, entry.pixels(2), "lrp", target=2)
    total = att.relevance.sum(1)
    if "cait" in name or "swinv2" in name:
        # Class tokens that join late have no embedding, and a score bias of 16·sigmoid(0) is left.
        assert ((total > 0) & (total < 1)).all()
    else:
        torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-3)
