"""No zeros, NaN or another pass's numbers: answers are right, or refused with what works."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import xai_lib as xai
from xai_lib.errors import InputError, MethodNotApplicableError, UnsupportedModelError

AT_INPUT = ("gradient", "gradient_x_input", "integrated_gradients", "smoothgrad", "attnlrp")
ON_MAPS = ("generic_attention", "attn_gradcam", "transformer_attribution", "bi_head")


class Small(nn.Module):
    """Four patches of four pixels, one attention layer, a head; `between` acts before the head.

    first: what is done to the pixels.
    """

    def __init__(self, between=None, first=None):
        super().__init__()
        torch.manual_seed(0)
        self.patch = nn.Conv2d(1, 8, 2, 2)
        self.norm, self.qkv, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)
        self.between, self.first = between, first

    def forward(self, x):
        if self.first is not None:
            x = self.first(x)
        x = self.patch(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm(x)).unsqueeze(1).chunk(3, -1)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).squeeze(1))
        x = x.mean(1)
        return self.head(x if self.between is None else self.between(x))


def without_grad(x):
    with torch.no_grad():
        return x * 1.5


SILENT = {
    "detach": torch.detach,
    "no_grad": without_grad,
    "rounding": lambda x: (x * 8).round() / 8,
    "integers": lambda x: (x * 8).int().to(x.dtype) / 8,
    "a saturated clamp": lambda x: (x + 100).clamp(-1, 1),
}


@pytest.fixture
def pixels():
    return torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", SILENT)
@pytest.mark.parametrize("method", AT_INPUT + ON_MAPS)
def test_no_gradient_is_no_zero_map(name, method, pixels):
    if (name, method) == ("a saturated clamp", "attnlrp"):
        # Its rule of activations is f(x) / x, which is not zero there.
        return
    with pytest.raises((MethodNotApplicableError, UnsupportedModelError)):
        xai.explain(Small(SILENT[name]).eval(), pixels, method, target=1)


@pytest.mark.parametrize("method", ["gradient_x_input", "generic_attention"])
def test_quantised_layers_let_no_gradient_through(method, pixels):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.ao.quantization.quantize_dynamic(Small().eval(), {nn.Linear})
    with pytest.raises(MethodNotApplicableError, match="quantised"):
        xai.explain(model, pixels, method, target=1)


def test_one_silent_sample_is_not_given_zeros(pixels):
    silent, model = torch.tensor([[0.0], [1e6]]), Small().eval()
    assert (xai.explain(model, pixels, "gradient", target=1).relevance != 0).any(1).all()
    model.between = lambda x: F.relu(x + 100 - silent)
    with pytest.raises(MethodNotApplicableError):
        xai.explain(model, pixels, "gradient", target=1)


@pytest.mark.parametrize("method", [*AT_INPUT, *ON_MAPS])
def test_half_precision_is_seeded_with_what_fits(method, pixels):
    """A logit scale of 1,000, as CLIP's 100 at its gradients, times 4,096 is beyond float16."""
    model = Small().eval()
    with torch.no_grad():
        model.head.weight.mul_(1000)
    expected = xai.explain(model, pixels, method, target=1).relevance
    found = xai.explain(model.half(), pixels.half(), method, target=1).relevance.float()
    assert found.isfinite().all()
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()


def test_numbers_that_are_none_are_refused(pixels):
    """The root of zero has an infinite slope, times zero: no number."""
    model = Small(lambda x: x + (x - x).square().sqrt()).eval()
    with pytest.raises(MethodNotApplicableError, match="NaN"):
        xai.explain(model, pixels, "gradient", target=1)


def subtract(x):
    x -= 0.5
    return x


@pytest.mark.parametrize("first", [lambda x: x.sub_(0.5).div_(0.25), subtract], ids=["sub_", "-="])
@pytest.mark.parametrize("method", [*AT_INPUT, "rollout", "bi_head", "lrp", "smoothgrad"])
def test_a_model_that_normalises_in_place(first, method, pixels):
    scale = 0.25 if first is not subtract else 1.0
    before = pixels.clone()
    expected = xai.explain(
        Small(first=lambda x: (x - 0.5) / scale).eval(), pixels, method, target=1
    )
    found = xai.explain(Small(first=first).eval(), pixels, method, target=1)
    torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-4, atol=1e-6)
    assert torch.equal(pixels, before) and torch.equal(found.inputs, before)


def llama():
    from transformers import LlamaConfig, LlamaForSequenceClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "vocab_size": 20, "pad_token_id": 0}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    return LlamaForSequenceClassification(LlamaConfig(**sizes, **layers)).eval()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_cache_is_no_input_and_does_not_grow(legacy):
    model = llama()
    ids = torch.arange(1, 7)[None]
    with torch.no_grad():
        cache = model(input_ids=ids[:, :3], use_cache=True).past_key_values
    given = {"input_ids": ids[:, 3:], "past_key_values": cache, "use_cache": True}
    if legacy:
        given["past_key_values"] = ((torch.zeros(1, 2, 3, 8),) * 2,) * 2
    kept = copy.deepcopy(cache.get_seq_length())
    with pytest.raises(InputError, match="past_key_values"):
        xai.explain(model, given, "gradient")
    assert cache.get_seq_length() == kept == 3
    xai.explain(model, {"input_ids": ids, "use_cache": True}, "gradient")


def test_backward_hooks_wait_until_the_model_is_given_back(pixels):
    """torch puts an alias in the place of what a module with such a hook takes and gives."""
    expected = Small().eval()
    model = Small().eval()
    calls = []
    for module in (model.norm, model.out):
        module.register_full_backward_hook(lambda *given: calls.append(given))
        module.register_full_backward_pre_hook(lambda *given: calls.append(given))
    for method in ("lrp", "attnlrp", "transformer_attribution", "gradient"):
        found = xai.explain(model, pixels, method, target=1).relevance
        known = xai.explain(expected, pixels, method, target=1).relevance
        torch.testing.assert_close(found, known, rtol=0, atol=0)
    assert not calls
    model(pixels).sum().backward()
    assert len(calls) == 4


@pytest.mark.parametrize("method", ["lrp", "attnlrp"])
def test_a_forward_hook_that_copies_what_the_norm_reads(method, pixels):
    """Then the norm's input is one of two branches of the tokens, and not the tokens."""
    model = Small().eval()
    known = xai.explain(model, pixels, method, target=1).relevance
    model.norm.register_forward_pre_hook(lambda module, given: tuple(x.clone() for x in given))
    found = xai.explain(model, pixels, method, target=1).relevance
    torch.testing.assert_close(found, known, rtol=1e-4, atol=1e-6)
