"""Weights that are elsewhere until a layer runs: explained where something brings them."""

import pytest
import timm
import torch

import xai_lib as xai
from xai_lib.errors import InputError

accelerate = pytest.importorskip("accelerate")


def vit():
    torch.manual_seed(0)
    options = {"img_size": 32, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 5}
    return timm.create_model("vit_tiny_patch16_224", **options).eval()


@pytest.mark.parametrize("method", ["gradient_x_input", "generic_attention", "lrp", "rollout"])
def test_offloaded_to_memory(method):
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    plain = xai.explain(vit(), pixels, method, target=1).relevance
    model = accelerate.cpu_offload(vit(), execution_device="cpu")
    devices = [p.device for p in model.parameters()]
    assert torch.device("meta") in devices
    ours = xai.explain(model, pixels, method, target=1).relevance
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-7)
    assert [p.device for p in model.parameters()] == devices
    assert all(p.requires_grad for p in model.parameters())


def test_weights_without_numbers_are_said_to_have_none():
    with torch.device("meta"):
        model = timm.models.vision_transformer.VisionTransformer(img_size=32, weight_init="skip")
    with pytest.raises(InputError, match="load_state_dict"):
        xai.explain(model, torch.zeros(1, 3, 32, 32), "rollout")
