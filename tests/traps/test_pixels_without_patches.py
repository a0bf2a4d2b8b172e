"""Models whose tokens have no known place in the image are still explained at the pixels."""

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

import xai_lib as xai
from xai_lib.errors import MethodNotApplicableError

PIXELS = ("gradient_x_input", "integrated_gradients", "smoothgrad", "lrp", "attnlrp")


class Attention(nn.Module):
    def __init__(self, dim=16):
        super().__init__()
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        return x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Columns(nn.Module):
    """A token is made of every fourth pixel, so that no patch is its own."""

    def __init__(self, pooled=False):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.block, self.head = nn.Linear(3 * 64, 16), Attention(), nn.Linear(16, 4)
        self.conv, self.pooled = nn.Conv2d(3, 16, 4, 4), pooled

    def forward(self, x):
        if self.pooled:
            # Fewer tokens than the last convolution has places.
            x = F.avg_pool2d(self.conv(x), 2).flatten(2).transpose(1, 2)
        else:
            x = x.unflatten(2, (8, 4)).unflatten(4, (8, 4)).permute(0, 3, 5, 1, 2, 4).flatten(3)
            x = self.embed(x.flatten(1, 2).flatten(2))
        return self.head(self.block(x).mean(1))


def by_hand(model, pixels, target=1):
    leaf = pixels.clone().requires_grad_()
    (grad,) = torch.autograd.grad(model(leaf)[:, target].sum(), leaf)
    return (grad * pixels).sum(1)


@pytest.fixture
def pixels():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("pooled", [True, False])
def test_every_pixel_stands_for_itself(pixels, pooled):
    model = Columns(pooled).eval()
    att = xai.explain(model, pixels, "gradient_x_input", target=1)
    torch.testing.assert_close(att.pixels, by_hand(model, pixels), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(att.relevance.sum(1), att.pixels.sum((1, 2)))


@pytest.mark.parametrize("method", PIXELS)
def test_all_methods_at_the_pixels(pixels, method):
    att = xai.explain(Columns(), pixels, method, target=1)
    assert att.pixels.isfinite().all() and att.heatmap().shape == att.pixels.shape
    assert att.show() is not None
    several = xai.explain(Columns(), pixels, method, targets=[0, 1])
    torch.testing.assert_close(several.pixels[1], att.pixels, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("name", "size"), [("twins_svt_small", 64), ("twins_pcpvt_small", 64)])
def test_windows_in_a_dimension_of_their_own(name, size):
    torch.manual_seed(0)
    small = {"embed_dims": (16, 16, 16, 16), "depths": (2, 2, 2, 2), "num_heads": (2, 2, 2, 2)}
    model = timm.create_model(name, img_size=size, num_classes=4, **small).eval()
    pixels = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    att = xai.explain(model, pixels, "gradient_x_input", target=1)
    torch.testing.assert_close(att.pixels, by_hand(model, pixels), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(att.relevance.sum(1), att.pixels.sum((1, 2)), rtol=1e-3, atol=1e-6)
    with pytest.raises(MethodNotApplicableError, match="'gradient_x_input'"):
        xai.explain(model, pixels, "rollout")
