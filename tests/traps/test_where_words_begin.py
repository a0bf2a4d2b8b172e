"""Gradients of a text start at what all of it comes through, whatever the model does to its words.

In float32 `x.to(float32)` is x itself; a residual may take a copy of what its norm reads; words may
be read a second time, mix before the first attention, or meet no attention that can be seen.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import xai_lib as xai

VOCABULARY, DIM, TOKENS, CLASSES = 12, 8, 6, 3


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)

    def forward(self, x):
        q, k, v = self.qkv(x).unsqueeze(1).chunk(3, -1)
        return self.out(F.scaled_dot_product_attention(q, k, v).squeeze(1))


class Reader(nn.Module):
    """Words, `begin`, one block that takes up `residual`, mean and a linear head.

    begin, residual, memory: functions of the words, of the block's input, and of the words again.
    """

    def __init__(self, begin=None, residual=None, memory=None, attend=True):
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(VOCABULARY, DIM)
        self.norm, self.attention = nn.LayerNorm(DIM), Attention()
        self.mixer = nn.GRU(DIM, DIM, batch_first=True)
        self.head = nn.Sequential(nn.Linear(DIM, DIM), nn.Tanh(), nn.Linear(DIM, CLASSES))
        self.begin, self.residual, self.memory = begin, residual, memory
        self.attend = attend

    def look_up(self, input_ids):
        return self.words(input_ids)

    def of_words(self, words):
        x = words if self.begin is None else self.begin(self, words)
        if self.attend:
            taken = x if self.residual is None else self.residual(x)
            x = taken + self.attention(self.norm(x))
        if self.memory is not None:
            x = x + self.memory(words)
        return self.head(x.mean(1))

    def forward(self, input_ids):
        return self.of_words(self.look_up(input_ids))


class RMSNorm(nn.Module):
    def forward(self, x):
        wide = x.to(torch.float32)
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)).to(x.dtype)


def with_rms_norm():
    model = Reader()
    model.norm = RMSNorm()
    return model


class ByPosition(Reader):
    """Position numbers are looked up first, and the words by an index."""

    def look_up(self, input_ids):
        places = torch.arange(TOKENS).expand(len(input_ids), -1)
        return F.embedding(places, self.words.weight) * 0.1 + self.words.weight[input_ids]


class ByOneHot(Reader):
    def look_up(self, input_ids):
        return F.one_hot(input_ids, VOCABULARY).float() @ self.words.weight


class SequenceFirst(Reader):
    def look_up(self, input_ids):
        return self.words(input_ids.t()).transpose(0, 1)


class Flat(Reader):
    def look_up(self, input_ids):
        return self.words.weight.index_select(0, input_ids.reshape(-1)).view(*input_ids.shape, -1)


AT_WORDS = {
    "RMSNorm in float32": with_rms_norm,
    "residual of a copy": lambda: Reader(residual=torch.clone),
    "words read again": lambda: Reader(begin=lambda m, x: m.norm(x), memory=torch.tanh),
    "mixed by a GRU": lambda: Reader(begin=lambda m, x: m.mixer(x)[0]),
    "shifted": lambda: Reader(begin=lambda m, x: x.roll(1, 1)),
    "no attention": lambda: Reader(attend=False),
    "looked up by one-hot rows": lambda: ByOneHot(),
    "looked up in sequence": lambda: SequenceFirst(),
    "looked up flat": lambda: Flat(),
}


@pytest.fixture
def ids():
    return torch.randint(0, VOCABULARY, (2, TOKENS), generator=torch.Generator().manual_seed(1))


def oracle(model, start, ids, target=1):
    """The gradient and the integrated gradient at start(words), by plain autograd."""
    x = start.detach()
    alphas, weights = torch.tensor([0.5 - 12**-0.5, 0.5 + 12**-0.5]), (0.5, 0.5)

    def gradient(at):
        at = at.clone().requires_grad_()
        return torch.autograd.grad(model(at)[:, target].sum(), at)[0]

    mean = sum(w * gradient(a * x) for a, w in zip(alphas, weights, strict=True))
    return (gradient(x) * x).sum(-1), (mean * x).sum(-1)


def check(model, rest, start, ids):
    first, integrated = oracle(rest, start, ids)
    found = xai.explain(model, {"input_ids": ids}, "gradient_x_input", target=1)
    torch.testing.assert_close(found.relevance, first, rtol=1e-4, atol=1e-6)
    found = xai.explain(model, {"input_ids": ids}, "integrated_gradients", target=1, steps=2)
    torch.testing.assert_close(found.relevance, integrated, rtol=1e-4, atol=1e-6)
    found = xai.explain(model, {"input_ids": ids}, "smoothgrad", target=1, noise=0.0, samples=2)
    xai_gradient = xai.explain(model, {"input_ids": ids}, "gradient", target=1)
    torch.testing.assert_close(found.relevance, xai_gradient.relevance, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", AT_WORDS)
def test_gradients_are_those_at_the_words(name, ids):
    model = AT_WORDS[name]().eval()
    check(model, model.of_words, model.look_up(ids), ids)


def test_positions_that_are_looked_up_first_are_no_words(ids):
    model = ByPosition().eval()
    check(model, model.of_words, model.look_up(ids), ids)


def test_what_is_made_token_by_token_stands_for_the_words(ids):
    """As in BERT: the first block takes up normalised words, and that is where its input begins."""
    model = Reader(begin=lambda m, x: m.norm(x)).eval()

    def rest(x):
        return model.head((x + model.attention(model.norm(x))).mean(1))

    check(model, rest, model.norm(model.look_up(ids)), ids)


def test_bi_scales_the_residual_and_not_the_norm_alone(ids):
    """`bi_head`'s feedback in float32 is that in float64, where the norm reads a copy."""
    model = with_rms_norm().eval()
    narrow = xai.explain(model, {"input_ids": ids}, "bi_head", target=1, steps=4).relevance
    wide = xai.explain(model.double(), {"input_ids": ids}, "bi_head", target=1, steps=4).relevance
    torch.testing.assert_close(narrow.double(), wide, rtol=1e-4, atol=1e-9)


def test_pixels_of_a_model_without_attention():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    pixels = torch.rand(2, 3, 16, 16)
    x = pixels.clone().requires_grad_()
    (grad,) = torch.autograd.grad(model(x)[:, 1].sum(), x)
    att = xai.explain(model, pixels, "gradient_x_input", target=1)
    torch.testing.assert_close(att.pixels, (grad * pixels).sum(1))
    att = xai.explain(model, pixels, "integrated_gradients", target=1, steps=200)
    lost = (model(pixels) - model(0 * pixels))[:, 1].detach()
    torch.testing.assert_close(att.pixels.sum((1, 2)), lost, rtol=1e-2, atol=1e-4)
    with pytest.raises(xai.errors.UnsupportedModelError, match="gradient_x_input"):
        xai.explain(model, pixels, "rollout")
