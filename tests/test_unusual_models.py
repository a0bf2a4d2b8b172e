"""Models that are built in unusual ways: explained rightly or refused, never answered wrongly."""

import threading
from functools import cache

import pytest
import torch
from support.matrix import few
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import xai_lib as xai
from xai_lib.errors import MethodNotApplicableError, UnsupportedModelError

TOKEN_METHODS = ("raw_attention", "rollout", "attn_gradcam", "generic_attention", "bi_head")
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "num_heads": 2, "num_classes": 5}


def vit(depth=2, **options):
    torch.manual_seed(0)
    return VisionTransformer(depth=depth, **(SMALL | options)).double().eval()


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(
        2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )


class Patched(nn.Module):
    """Patches, a class token in front or behind, a torch encoder, and a head on the class token."""

    def __init__(self, behind=False, batch_first=True, **layer):
        super().__init__()
        torch.manual_seed(0)
        self.patch = nn.Conv2d(3, 32, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 32))
        self.place = nn.Parameter(torch.randn(1, 17, 32) * 0.3)
        part = nn.TransformerEncoderLayer(32, 2, 64, 0.0, batch_first=batch_first, **layer)
        self.encoder = nn.TransformerEncoder(part, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 5)
        self.behind, self.batch_first = behind, batch_first

    def forward(self, x):
        z = self.patch(x).flatten(2).transpose(1, 2)
        token = self.token.expand(len(z), -1, -1)
        z = torch.cat([z, token] if self.behind else [token, z], 1) + self.place
        z = self.encoder(z) if self.batch_first else self.encoder(z.transpose(0, 1)).transpose(0, 1)
        return self.head(z[:, -1 if self.behind else 0])


def test_class_token_behind_the_patches(pixels):
    model = Patched(behind=True).double()
    att = xai.explain(model, pixels, method="gradient_x_input")
    assert att.content[0].tolist() == [True] * 16 + [False]
    assert (att.relevance[:, -1] == 0).all() and (att.relevance[:, :-1] != 0).all()
    in_front = xai.explain(Patched().double(), pixels, method="rollout")
    assert in_front.content[0].tolist() == [False] + [True] * 16
    rolled = xai.explain(model, pixels, method="generic_attention")
    assert torch.equal(rolled.patches.flatten(1), rolled.relevance[:, :16])


def test_tokens_before_samples(pixels):
    model = Patched(batch_first=False, norm_first=True).double()
    twin = Patched(batch_first=True, norm_first=True).double()
    for method in (*TOKEN_METHODS, "bi_token", "attnlrp"):
        ours, theirs = (xai.explain(m, pixels, method=method) for m in (model, twin))
        shown = "pixels" if method == "attnlrp" else "relevance"
        assert torch.allclose(getattr(ours, shown), getattr(theirs, shown), rtol=1e-9), method
    for method in ("lrp", "partial_lrp", "transformer_attribution"):
        with pytest.raises(MethodNotApplicableError, match=r"batch_first=True"):
            xai.explain(model, pixels, method=method)


class Twice(nn.Module):
    """Flip test-time augmentation: one backbone, two chains of attention."""

    def __init__(self):
        super().__init__()
        self.net = vit()

    def forward(self, x):
        return self.net(x) + self.net(x.flip(-1))


@pytest.mark.parametrize("method", [*TOKEN_METHODS, "bi_token", "transformer_attribution"])
def test_two_chains_have_no_single_map(pixels, method):
    with pytest.raises(MethodNotApplicableError, match="'attnlrp'"):
        xai.explain(Twice(), pixels, method=method)


def test_two_chains_reach_the_pixels(pixels):
    model = Twice()
    ours = xai.explain(model, pixels, method="gradient_x_input", target=1).pixels
    leaf = pixels.clone().requires_grad_()
    (grad,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
    assert torch.allclose(ours, (grad * pixels).sum(1))
    assert torch.isfinite(xai.explain(model, pixels, method="lrp").pixels).all()


class SigmoidAttention(nn.Module):
    def __init__(self, like):
        super().__init__()
        self.qkv, self.proj, self.heads = like.qkv, like.proj, like.num_heads

    def forward(self, x, **_):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = torch.sigmoid(q @ k.transpose(-1, -2)) @ v
        return self.proj(mixed.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("method", [*TOKEN_METHODS, "transformer_attribution", "partial_lrp"])
def test_unseen_mixing_is_refused(pixels, method):
    model = vit(3)
    model.blocks[1].attn = SigmoidAttention(model.blocks[1].attn)
    with pytest.raises(MethodNotApplicableError, match="'attnlrp'"):
        xai.explain(model, pixels, method=method)


def test_frozen_backbone_under_no_grad_is_refused(pixels):
    class Probe(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.head = vit(), nn.Linear(5, 3).double()

        def forward(self, x):
            with torch.no_grad():
                features = self.net(x)
            return self.head(features)

    for method in ("gradient", "integrated_gradients", "smoothgrad", "lrp", "attnlrp"):
        with pytest.raises(MethodNotApplicableError):
            xai.explain(Probe(), pixels, method=method)


@pytest.mark.parametrize("method", ["rollout", "transformer_attribution", "lrp", "attnlrp"])
def test_autocast_changes_nothing(method):
    model, x = vit().float(), torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))

    class Cast(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model

        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16):
                return self.net(x)

    plain = xai.explain(model, x, method=method)
    with torch.autocast("cpu", torch.bfloat16):
        around = xai.explain(model, x, method=method)
    inside = xai.explain(Cast(), x, method=method)
    for other in (around, inside):
        assert other.relevance.dtype == torch.float32
        assert torch.allclose(other.relevance, plain.relevance, rtol=1e-3, atol=1e-6)


class Residual(nn.Module):
    """A ViT whose residual sums are written in one of several equivalent ways."""

    def __init__(self, way):
        super().__init__()
        self.net, self.way = vit(), way

    def forward(self, x):
        z = self.net._pos_embed(self.net.patch_embed(x))
        for block in self.net.blocks:
            z = self.join(z, block.attn(block.norm1(z)))
            z = self.join(z, block.mlp(block.norm2(z)))
        return self.net.forward_head(self.net.norm(z))

    def join(self, z, y):
        if self.way == "augmented":
            z += y
        elif self.way == "method":
            z.add_(y)
        elif self.way == "alpha":
            return torch.add(z, y / 2, alpha=2)
        elif self.way == "keywords":
            return torch.add(input=z, other=y)
        else:
            return z + y
        return z


@pytest.fixture(scope="module")
def plain_sums(pixels):
    """Return a function of a method: its relevance of the model as it is usually written."""
    return cache(lambda method: explain_sums("plain", method, pixels).relevance)


def explain_sums(way, method, pixels):
    return xai.explain(Residual(way), pixels, method=method, **few(method))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["augmented", "method", "alpha", "keywords"])
def test_every_way_to_write_a_sum(plain_sums, pixels, way):
    for method in xai.methods()["name"]:
        if method in ("bi_token", "legrad") and way == "alpha":
            # Both need the residual connection, which is not seen in a sum with a factor.
            with pytest.raises(MethodNotApplicableError):
                explain_sums(way, method, pixels)
            continue
        plain = plain_sums(method)
        if way in ("augmented", "method") and method in (
            "gradient",
            "gradient_x_input",
            "integrated_gradients",
            "smoothgrad",
            "gradient_sensitivity",
        ):
            # Writing into what a gradient needs is an error of the model's in plain autograd too.
            try:
                other = explain_sums(way, method, pixels)
            except UnsupportedModelError as error:
                assert "x = x + y" in str(error)
                continue
        else:
            other = explain_sums(way, method, pixels)
        scale = plain.abs().max()
        assert torch.allclose(other.relevance, plain, atol=1e-7 * scale), method


def test_threads_take_turns(pixels):
    model = vit().train()
    expected = xai.explain(model, pixels, method="lrp", target=0).pixels
    wrong = []

    def work():
        for _ in range(8):
            if not torch.equal(xai.explain(model, pixels, method="lrp", target=0).pixels, expected):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and model.training
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad for p in model.parameters())


def test_compiled_in_part_or_whole(pixels):
    plain = xai.explain(vit(), pixels)
    model = vit()
    model.blocks[0] = torch.compile(model.blocks[0])
    assert torch.equal(xai.explain(model, pixels).relevance, plain.relevance)
    whole = vit()
    whole.compile()
    assert torch.equal(xai.explain(whole, pixels).relevance, plain.relevance)
    with torch.no_grad(), xai.trace(whole) as trace:
        whole(pixels)
    assert len(trace.sites) == 2


def test_attention_weights_are_returned(pixels):
    attention = nn.MultiheadAttention(32, 2, batch_first=True).double().eval()
    x = torch.randn(2, 5, 32, dtype=torch.float64)
    for average in (True, False):
        plain = attention(x, x, x, average_attn_weights=average)
        with xai.trace(attention) as trace:
            traced = attention(x, x, x, average_attn_weights=average)
        assert torch.allclose(traced[0], plain[0]) and torch.allclose(traced[1], plain[1])
        assert len(trace.sites) == 1


def test_tracing_keeps_dropout_and_masks():
    q, k, v = torch.randn(3, 2, 4, 6, 8, dtype=torch.float64)
    mask = torch.rand(6, 6) > 0.4
    mask[2] = False
    plain = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask)
    with xai.trace(nn.Identity()):
        traced = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask)
        torch.manual_seed(0)
        dropped = torch.nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=0.5)
    assert torch.allclose(traced, plain) and (traced[:, :, 2] == 0).all()
    full = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    assert (dropped - full).abs().max() > 0.1


def test_patches_that_do_not_fill_the_image():
    model = vit(img_size=45, patch_size=16)
    x = torch.randn(1, 3, 45, 45, dtype=torch.float64)
    att = xai.explain(model, x, method="gradient_x_input")
    first = att.pixels[0, :16, :16].sum()
    assert torch.allclose(att.relevance[0, 1], first) and (att.pixels[0, 32:] == 0).all()
