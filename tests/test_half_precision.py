"""bfloat16 and float16 models are explained with finite relevance close to float32's."""

import copy

import pytest
import torch
from small_vits import LRP, METHODS, random_pixels, random_vit
from test_model_untouched import assert_untouched, snapshot

import xai_lib as xai

pytestmark = pytest.mark.usefixtures("one_thread")

# Unit round-off of the type (2^-8, 2^-11) in every activation, amplified by three blocks.
BOUNDS = {torch.bfloat16: 0.2, torch.float16: 0.03}
# Their rules divide by sums that nearly cancel, so the pass runs in float32 throughout.
WIDENED = LRP - {"attnlrp"}


def half_vit(seed, dtype):
    """Return a half-precision ViT and a float32 one with the very same weights and inputs."""
    config = {"embed_dim": 64, "num_heads": 4, "depth": 3, "img_size": 32}
    model = random_vit(seed, torch.float32, **config)
    for block in model.blocks:
        for layer in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
            layer.weight.data.div_(0.3 * layer.in_features**0.5)  # activations keep their size
    model = model.to(dtype)
    inputs = random_pixels(model, seed=seed)
    return model, inputs, copy.deepcopy(model).float(), inputs.float()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", BOUNDS)
def test_half_precision_is_close_to_float32(method, dtype):
    for seed in range(3):
        model, inputs, wide_model, wide_inputs = half_vit(seed, dtype)
        try:
            model(inputs)
        except RuntimeError as error:
            pytest.skip(f"torch has no {dtype} kernel on this machine: {error}")
        found = xai.explain(model, inputs, method, target=1, **METHODS[method])
        expected = xai.explain(wide_model, wide_inputs, method, target=1, **METHODS[method])
        assert found.relevance.dtype == torch.float32
        assert torch.isfinite(found.relevance).all()
        assert torch.isfinite(found.logits).all()
        difference = (found.relevance - expected.relevance).norm(dim=1)
        bound = 1e-6 if method in WIDENED else BOUNDS[dtype]
        assert (difference <= bound * expected.relevance.norm(dim=1)).all()
        if found.pixels is not None:
            assert torch.isfinite(found.pixels).all()
            assert found.pixels.dtype == torch.float32


@pytest.mark.parametrize("dtype", BOUNDS)
def test_relevance_too_small_for_float16_survives(dtype):
    """A model whose shares lie below the smallest half-precision number still gets an answer."""
    model, inputs, wide_model, wide_inputs = half_vit(0, dtype)
    for each in (model, wide_model):
        each.head.weight.data.mul_(2**-10)
    found = xai.explain(model, inputs, "attnlrp", target=1).relevance
    expected = xai.explain(wide_model, wide_inputs, "attnlrp", target=1).relevance
    assert found.any(1).all()
    error = (found - expected).norm() / expected.norm()
    assert error <= BOUNDS[dtype]


@pytest.mark.parametrize("method", METHODS)
def test_a_half_precision_model_comes_back_as_it_was(method):
    model, inputs, *_ = half_vit(0, torch.bfloat16)
    before = snapshot(model)
    xai.explain(model, inputs, method, **METHODS[method])
    assert_untouched(before, model)
