"""What mixes tokens counts where attention takes it up, not in a head nor in a branch unused.

The pass itself is asked here, without the examination before it.
"""

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

import xai_lib as xai
from xai_lib.errors import MethodNotApplicableError

METHODS = ("generic_attention", "rollout", "attn_gradcam", "bi_token", "transformer_attribution")


class Net(nn.Module):
    """A ViT of patches whose `place` says where a convolution over the tokens stands."""

    def __init__(self, place):
        super().__init__()
        torch.manual_seed(0)
        options = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "num_heads": 2}
        self.vit = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=0, **options)
        self.conv, self.head = nn.Conv2d(16, 16, 3, padding=1), nn.Linear(16, 4)
        self.place = place

    def mixed(self, x):
        patches = x[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
        return torch.cat([x[:, :1], self.conv(patches).flatten(2).transpose(1, 2)], 1)

    def forward(self, x):
        vit = self.vit
        x = vit._pos_embed(vit.patch_embed(x))
        first, second = vit.blocks
        x = first(x)
        if self.place == "between":
            x = x + self.mixed(x)
        if self.place == "written":
            y = torch.zeros_like(x)
            y[:, :] = self.mixed(x)
            x = x + y.split(4, 1)[0].sum(1, keepdim=True)
        aside = self.mixed(x) if self.place == "aside" else 0
        aside = aside if self.place != "aside" else aside.sum((1, 2), keepdim=True)
        x = vit.norm(second(x))
        if self.place == "aside":
            self.seen = x + aside
        if self.place == "gram aside":
            self.seen = x @ x.transpose(1, 2)
        if self.place == "head":
            x = self.mixed(x)
        if self.place == "gram":
            x = (x.transpose(1, 2) @ x) / 17
        return self.head(x.mean(1))


@pytest.fixture
def pixels():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("place", ["between", "written", "gram"])
def test_what_attention_or_logits_take_up(pixels, place, method):
    with pytest.raises(MethodNotApplicableError, match="attnlrp"):
        xai.explain(Net(place).eval(), pixels, method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("place", ["aside", "gram aside"])
def test_branches_that_lead_nowhere(pixels, place, method):
    ours = xai.explain(Net(place).eval(), pixels, method, target=1)
    plain = xai.explain(Net("nowhere").eval(), pixels, method, target=1)
    torch.testing.assert_close(ours.relevance, plain.relevance, rtol=1e-4, atol=1e-7)


def test_a_convolution_in_the_head(pixels):
    model = Net("head").eval()
    for method in METHODS:
        assert xai.explain(model, pixels, method, target=1).relevance.abs().sum() > 0
    # By hand: the head reads all tokens, so rollout is the mean of its rows.
    with torch.no_grad(), xai.trace(model) as seen:
        model(pixels)
    first, second = (site.probs.mean(1) + torch.eye(17) for site in seen.sites)
    chain = F.normalize(second, p=1, dim=-1) @ F.normalize(first, p=1, dim=-1)
    rollout = xai.explain(model, pixels, "rollout").relevance
    torch.testing.assert_close(rollout, chain.mean(1), rtol=1e-3, atol=1e-5)
