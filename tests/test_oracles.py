"""Explanations against independent answers: captum, and slow explicit forms of the rules."""

import pytest
import torch
from small_vits import random_pixels, random_vit, relative_error
from torch.nn import functional as F

import xai_lib as xai
from xai_lib.rules import gemm
from xai_lib.rules.gate import Switch
from xai_lib.rules.linear import ConvMap
from xai_lib.rules.rulesets import ZPlus

pytestmark = pytest.mark.usefixtures("one_thread")

TARGETS = torch.tensor([1, 3])


@pytest.fixture
def vit():
    model = random_vit(seed=3, img_size=(16, 24))
    return model, random_pixels(model)


@pytest.fixture
def captum():
    return pytest.importorskip("captum.attr", reason="captum is an optional extra")


def test_captum_integrated_gradients(captum, vit):
    model, inputs = vit
    baseline = torch.randn(inputs.shape[1:], dtype=inputs.dtype) / 5
    expected = captum.IntegratedGradients(model).attribute(
        inputs, baseline[None], target=TARGETS, n_steps=20, method="gausslegendre"
    )
    found = xai.explain(
        model, inputs, "integrated_gradients", target=TARGETS, steps=20, baseline=baseline
    )
    # captum keeps its nodes and weights in float32.
    assert relative_error(found.pixels, expected.sum(1)).max() < 1e-7


def test_captum_input_x_gradient(captum, vit):
    model, inputs = vit
    expected = captum.InputXGradient(model).attribute(inputs.requires_grad_(), target=TARGETS)
    found = xai.explain(model, inputs, "gradient_x_input", target=TARGETS)
    assert relative_error(found.pixels, expected.sum(1).detach()).max() < 1e-10


def test_captum_saliency(captum, vit):
    model, inputs = vit
    signed = captum.Saliency(model).attribute(inputs.requires_grad_(), target=TARGETS, abs=False)
    reductions = {"max_abs": signed.abs().amax(1), "sum": signed.sum(1), "l2": signed.norm(dim=1)}
    for reduce, expected in reductions.items():
        found = xai.explain(model, inputs, "gradient", target=TARGETS, reduce=reduce)
        assert relative_error(found.pixels, expected).max() < 1e-10


def test_captum_smoothgrad(captum, vit, monkeypatch):
    """With captum's normal draws replaced by ours, its noise tunnel gives the same average."""
    model, inputs = vit
    samples, noise = 6, 0.2
    for image, target in zip(inputs, TARGETS, strict=True):
        generator = torch.Generator().manual_seed(5)
        shape = samples, *image.shape
        draws = torch.randn(shape, generator=generator, dtype=torch.float64)
        monkeypatch.setattr(torch, "normal", lambda mean, std, draws=draws: mean + std * draws)
        spread = noise * (image.max() - image.min()).item()
        tunnel = captum.NoiseTunnel(captum.Saliency(model))
        expected = tunnel.attribute(
            image[None].clone().requires_grad_(),
            target=int(target),
            nt_type="smoothgrad",
            nt_samples=samples,
            stdevs=spread,
            abs=False,
        )
        found = xai.explain(
            model,
            image[None],
            "smoothgrad",
            target=int(target),
            samples=samples,
            noise=noise,
            seed=5,
            reduce="sum",
        )
        # captum keeps the deviation in float32.
        assert relative_error(found.pixels, expected.sum(1).detach()).max() < 1e-5


# -- z+ and its relatives with explicit signs ----------------------------------------------------


def signs(x):
    return x.clamp(min=0), x.clamp(max=0)


def explicit_share(apply, transpose, x, weight, relevance, opposite=False):
    """Share R by x⁺W⁺ + x⁻W⁻, or by x⁺W⁻ + x⁻W⁺."""
    (px, nx), (up, down) = signs(x), signs(weight)
    up, down = (down, up) if opposite else (up, down)
    s = relevance / (apply(px, up) + apply(nx, down) + 1e-9)
    return px * transpose(s, up) + nx * transpose(s, down)


def propagate(rules, output, relevance, x):
    with rules.switch.mode(True):
        return torch.autograd.grad(output, x, relevance)[0]


def sparse_rows(x, keep):
    """Return x with most rows empty, as relevance at the last block is."""
    rows = torch.zeros(x.shape[:-1], dtype=torch.bool)
    rows[:, :keep] = True
    return x * rows.unsqueeze(-1)


@pytest.mark.parametrize("rows", (1, 7))
@pytest.mark.parametrize("bias", (True, False))
@pytest.mark.parametrize("alpha", (1.0, 2.0))
def test_linear_rule(alpha, bias, rows):
    torch.manual_seed(0)
    x = torch.randn(2, 7, 24, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 24, dtype=torch.float64)
    offset = torch.randn(4, dtype=torch.float64) if bias else None
    relevance = sparse_rows(torch.randn(2, 7, 4, dtype=torch.float64), rows)
    rules = ZPlus(Switch(), alpha=alpha)
    output = rules.linear(x, weight, offset)
    torch.testing.assert_close(output.detach(), F.linear(x, weight, offset).detach())

    parts = (lambda x, w: x @ w.t()), (lambda s, w: s @ w), x.detach(), weight, relevance
    expected = alpha * explicit_share(*parts)
    if alpha != 1:
        expected = expected - (alpha - 1) * explicit_share(*parts, opposite=True)
    found = propagate(rules, output, relevance, x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)
    if alpha == 1:
        torch.testing.assert_close(found.sum(-1), relevance.sum(-1), rtol=0, atol=1e-7)
    (gradient,) = torch.autograd.grad(rules.linear(x, weight, offset), x, relevance)
    torch.testing.assert_close(gradient, relevance @ weight)


def test_split_linear_rule_gives_each_sign_its_own_whole():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 24, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 24, dtype=torch.float64)
    relevance = torch.randn(2, 3, 4, dtype=torch.float64)
    rules = ZPlus(Switch(), split=True)
    (px, nx), (up, down) = signs(x.detach()), signs(weight)
    expected = px * ((relevance / (px @ up.t())) @ up)
    expected += nx * ((relevance / (nx @ down.t())) @ down)
    found = propagate(rules, rules.linear(x, weight), relevance, x)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_convolution_rule():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    weight, bias = torch.randn(4, 3, 3, 3, dtype=torch.float64), torch.randn(4).double()
    options = {"stride": 2, "padding": 1, "dilation": 1, "groups": 1}
    rules = ZPlus(Switch())
    raw = F.conv2d(x, weight, bias, **options)
    relevance = torch.randn(raw.shape, dtype=torch.float64)
    output = rules.conv(x, ConvMap(weight, bias, options), raw, pixels=False)

    def transpose(s, w):
        return torch.nn.grad.conv2d_input(x.shape, w, s, **options)

    expected = explicit_share(
        lambda x, w: F.conv2d(x, w, **options), transpose, x.detach(), weight, relevance
    )
    found = propagate(rules, output, relevance, x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


def test_pixel_rule_pixel_by_pixel():
    """z^B with loops over patches, outputs and pixels, bounds taken per image."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 8, dtype=torch.float64, requires_grad=True)
    weight, bias = torch.randn(5, 3, 4, 4, dtype=torch.float64), torch.randn(5).double()
    options = {"stride": 4, "padding": 0, "dilation": 1, "groups": 1}
    rules = ZPlus(Switch())
    raw = F.conv2d(x, weight, bias, **options)
    relevance = torch.randn(raw.shape, dtype=torch.float64)
    found = propagate(
        rules, rules.conv(x, ConvMap(weight, bias, options), raw, pixels=True), relevance, x
    )
    expected = torch.zeros_like(found)
    up, down = signs(weight)
    for image in range(2):
        low, high = x[image].min().item(), x[image].max().item()
        for column in range(2):
            window = slice(4 * column, 4 * column + 4)
            patch = x.detach()[image, :, :, window]
            for channel in range(5):
                z = patch * weight[channel] - low * up[channel] - high * down[channel]
                share = z / (z.sum() + 1e-9) * relevance[image, channel, 0, column]
                expected[image, :, :, window] += share
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


def test_sum_rule_keeps_the_total_of_each_sample():
    torch.manual_seed(0)
    a, b = (torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True) for _ in "ab")
    relevance = torch.randn(3, 4, 5, dtype=torch.float64)
    rules = ZPlus(Switch())
    with rules.switch.mode(True):
        found = torch.autograd.grad(rules.add(a, b, a + b), (a, b), relevance)
    for n in range(3):
        x, y, r = a[n].detach(), b[n].detach(), relevance[n]
        shares = [x * r / (x + y + 1e-9), y * r / (x + y + 1e-9)]
        totals = [share.sum().item() for share in shares]
        weight = sum(map(abs, totals))
        for share, total, part in zip(shares, totals, found, strict=True):
            expected = share / total * abs(total) / weight * r.sum()
            torch.testing.assert_close(part[n], expected, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(sum(part[n].sum() for part in found), r.sum())


# -- AttnLRP in explicit relevance form ----------------------------------------------------------


class ExplicitAttnLRP:
    """AttnLRP on a timm ViT by the paper's formulas: a forward pass by hand, then R layer by layer.

    No gradient is taken: each rule divides by its output, stabilised by a tiny ε (Eq. 8).
    """

    EPS = 1e-14

    def __init__(self, model):
        self.model = model

    def ratio(self, relevance, z):
        return relevance / (z + self.EPS * torch.where(z < 0, -1.0, 1.0))

    def linear(self, layer, x, relevance):
        z = F.linear(x, layer.weight, layer.bias)
        return x * (self.ratio(relevance, z) @ layer.weight)

    def product(self, a, b, relevance):
        """z = a @ b: each of the products a_ik b_kj is shared half and half (uniform rule)."""
        terms = a.unsqueeze(-1) * b.unsqueeze(-3)
        shares = terms * self.ratio(relevance, a @ b).unsqueeze(-2) / 2
        return shares.sum(-1), shares.sum(-3)

    def softmax(self, x, s, relevance):
        """Taylor expansion at x: R_i = x_i (R_i - s_i Σ_j R_j)."""
        return x * (relevance - s * relevance.sum(-1, keepdim=True))

    def norm(self, layer, x, relevance):
        """Affine part and centring by the ε-rule, division by the deviation by the identity."""
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + layer.eps).sqrt()
        z = scaled * layer.weight + layer.bias
        relevance = scaled * layer.weight * self.ratio(relevance, z)
        width = x.shape[-1]
        centring = torch.eye(width, dtype=x.dtype) - 1 / width
        return x * (self.ratio(relevance, centred) @ centring)

    def attention(self, attn, x, relevance):
        width = x.shape[-1]
        heads = attn.num_heads
        q, k, v = (
            part.unflatten(-1, (heads, -1)).transpose(1, 2)
            for part in F.linear(x, attn.qkv.weight, attn.qkv.bias).chunk(3, -1)
        )
        scores = q @ k.transpose(-1, -2)
        scaled = scores * (width // heads) ** -0.5
        probs = scaled.softmax(-1)
        mixed = probs @ v
        joined = mixed.transpose(1, 2).flatten(2)
        r = self.linear(attn.proj, joined, relevance)
        r = r.unflatten(-1, (heads, -1)).transpose(1, 2)
        r_probs, r_v = self.product(probs, v, r)
        r_scores = self.softmax(scaled, probs, r_probs)
        r_q, r_k = self.product(q, k.transpose(-1, -2), r_scores)
        r_k = r_k.transpose(-1, -2)
        r_qkv = torch.cat([r.transpose(1, 2).flatten(2) for r in (r_q, r_k, r_v)], -1)
        return self.linear(attn.qkv, x, r_qkv)

    def residual(self, x, branch, relevance):
        s = self.ratio(relevance, x + branch)
        return x * s, branch * s

    def block(self, block, x, relevance):
        attended = block.attn(block.norm1(x))
        middle = x + attended
        hidden = block.mlp.fc1(block.norm2(middle))
        moved = block.mlp.fc2(F.gelu(hidden))
        r_middle, r = self.residual(middle, moved, relevance)
        r = self.linear(block.mlp.fc2, F.gelu(hidden), r)
        r = self.linear(block.mlp.fc1, block.norm2(middle), r)  # GELU: identity rule
        r_middle = r_middle + self.norm(block.norm2, middle, r)
        r_x, r = self.residual(x, attended, r_middle)
        r = self.attention(block.attn, block.norm1(x), r)
        return r_x + self.norm(block.norm1, x, r)

    @torch.no_grad()
    def __call__(self, pixels, target):
        """Return relevance of the token embeddings (batch, tokens) and the pixels (batch, H, W)."""
        model = self.model
        patches = model.patch_embed(pixels)
        cls = model.cls_token.expand(len(pixels), -1, -1)
        tokens = torch.cat([cls, patches], 1)
        streams = [tokens + model.pos_embed]
        for block in model.blocks:
            streams.append(block(streams[-1]))
        last = streams.pop()
        read = model.norm(last)[:, 0]
        logits = model.head(read)
        r = torch.zeros_like(logits).scatter(1, target[:, None], logits.gather(1, target[:, None]))
        r = self.linear(model.head, read, r)
        r_last = torch.zeros_like(last)
        r_last[:, 0] = r
        r = self.norm(model.norm, last, r_last)
        for block, x in zip(reversed(model.blocks), reversed(streams), strict=True):
            r = self.block(block, x, r)
        embedded = r.sum(-1)
        r_patches = self.residual(tokens, model.pos_embed, r)[0][:, 1:]
        return embedded, self.to_pixels(pixels, patches, r_patches)

    def to_pixels(self, pixels, patches, relevance):
        conv = self.model.patch_embed.proj
        size = conv.kernel_size[0]
        windows = F.unfold(pixels, size, stride=size).transpose(1, 2)
        shares = windows * (self.ratio(relevance, patches) @ conv.weight.flatten(1))
        shape = pixels.shape[-2:]
        return F.fold(shares.transpose(1, 2), shape, size, stride=size).sum(1)


@pytest.mark.parametrize("seed", range(3))
def test_attnlrp_equals_the_rules_in_explicit_form(seed):
    model = random_vit(seed, img_size=(16, 24), depth=2, num_heads=2)
    inputs = random_pixels(model, seed=seed)
    tokens, pixels = ExplicitAttnLRP(model)(inputs, TARGETS)
    found = xai.explain(model, inputs, "attnlrp", target=TARGETS)
    assert relative_error(found.relevance, tokens).max() < 1e-8
    assert relative_error(found.pixels, pixels).max() < 1e-8


# -- the matrix kernel ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64, torch.bfloat16, torch.float16))
@pytest.mark.parametrize("shape", ((3, 7), (2, 5, 7), (2, 3, 5, 7), (0, 7), (2, 0, 7), (7,)))
@pytest.mark.parametrize("bias", (True, False))
def test_gemm_is_the_linear_map(dtype, shape, bias):
    torch.manual_seed(0)
    x, weight = torch.randn(shape, dtype=dtype), torch.randn(11, 7, dtype=dtype)
    offset = torch.randn(11, dtype=dtype) if bias else None
    expected = F.linear(x, weight, offset)
    torch.testing.assert_close(gemm.linear(x, weight, offset), expected)
    back = gemm.transposed(expected, weight)
    torch.testing.assert_close(back, expected @ weight)


def test_gemm_takes_strided_operands():
    x = torch.randn(7, 5, 4).permute(2, 1, 0)
    weight = torch.randn(7, 22)[:, ::2].t()
    torch.testing.assert_close(gemm.linear(x, weight), F.linear(x, weight))
    torch.testing.assert_close(gemm.transposed(x[..., :5], weight[:5]), x[..., :5] @ weight[:5])
