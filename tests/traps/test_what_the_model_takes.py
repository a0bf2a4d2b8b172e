"""Whether pixels fit is shown by the pass: wrappers repeat grey, cast, enlarge or split them."""

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

import xai_lib as xai
from xai_lib.errors import InputError

METHODS = ("gradient_x_input", "generic_attention", "lrp")


def vit(channels=3):
    options = {"img_size": 32, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 5}
    return timm.create_model("vit_tiny_patch16_224", in_chans=channels, **options)


class Wrapped(nn.Module):
    def __init__(self, prepare, channels=3):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.prepare = vit(channels), prepare

    def forward(self, x):
        return self.net(self.prepare(x))


class Beside(nn.Module):
    """The first layer that is registered is not the first that is used."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.unused, self.stem, self.net = nn.Conv2d(7, 1, 64), nn.Conv2d(2, 3, 1), vit()

    def forward(self, x):
        return self.net(self.stem(x))


def split(x):
    """Two pictures, one on the other in the channels."""
    return x[:, :3] + 2 * x[:, 3:]


MODELS = {
    "grey": (Wrapped(lambda x: x.repeat(1, 3, 1, 1)), (1, 32, 32), torch.float32),
    "six": (Wrapped(split), (6, 32, 32), torch.float32),
    "cast": (Wrapped(lambda x: x.float()), (3, 32, 32), torch.float64),
    "half": (Wrapped(lambda x: x.float()), (3, 32, 32), torch.float16),
    "small": (Wrapped(lambda x: F.interpolate(x, size=(32, 32))), (3, 8, 8), torch.float32),
    "beside": (Beside(), (2, 32, 32), torch.float32),
    "thirteen": (Wrapped(lambda x: x, 13), (13, 32, 32), torch.float32),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_gradient_is_autograds(name):
    model, shape, dtype = MODELS[name]
    pixels = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    leaf = pixels.clone().requires_grad_()
    (grad,) = torch.autograd.grad(model.eval()(leaf)[:, 1].sum(), leaf)
    ours = xai.explain(model, pixels, "gradient_x_input", target=1).pixels
    expected = (grad * pixels).sum(1)
    torch.testing.assert_close(ours.float(), expected.float(), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["grey", "six", "cast", "beside", "thirteen"])
def test_other_methods(name, method):
    model, shape, dtype = MODELS[name]
    pixels = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    att = xai.explain(model.eval(), pixels, method, target=1)
    assert att.relevance.isfinite().all() and att.relevance.abs().sum() > 0


@pytest.mark.parametrize(
    ("spoil", "advice"),
    [
        (lambda x: x[:, :2], "convert('RGB')"),
        (lambda x: x.double(), "inputs.to(torch.float32)"),
        (lambda x: x[..., :8, :8], "processor(image)"),
        (lambda x: x.repeat(1, 1, 2, 2), "processor(image)"),
    ],
)
@pytest.mark.parametrize("method", [*METHODS, "integrated_gradients"])
def test_what_the_model_refuses_is_an_input_error_with_a_hint(spoil, advice, method):
    pixels = torch.randn(2, 3, 32, 32)
    with pytest.raises(InputError) as caught:
        xai.explain(vit().eval(), spoil(pixels), method)
    assert advice in str(caught.value)
