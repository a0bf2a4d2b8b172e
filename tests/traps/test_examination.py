"""The examination of a model: what it measures, what it refuses, what it costs."""

import gc
import weakref

import pytest
import timm
import torch
from tokens_that_mix import MIXING, Vision, pixels
from torch import nn
from torch.nn import functional as F

import xai_lib as xai
from xai_lib.errors import MethodNotApplicableError, UnsupportedModelError
from xai_lib.tracing import Trace


class Counted(nn.Module):
    """Counts the forward passes of a model and the backward passes that reach its input."""

    def __init__(self, model):
        super().__init__()
        self.model, self.forwards, self.backwards = model, 0, 0

    def forward(self, x):
        self.forwards += 1
        if x.requires_grad:
            x.register_hook(self._count)
        return self.model(x)

    def _count(self, gradient):
        self.backwards += 1


def small():
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, num_classes=5).eval()


def test_a_sound_model_holds_in_every_respect():
    found = xai.examine(small(), torch.randn(2, 3, 64, 64))
    assert found.holds
    assert {"pass", "repeats", "gradient", "tokens", "input"} <= set(found.checks)
    assert all(check.verdict in ("holds", "not measured") for check in found.checks.values())
    assert found.checks["tokens"].measured == 0
    assert found.checks["gradient"].measured < 1e-4
    frame = found.to_frame()
    assert list(frame["assumption"]) and "holds" in str(found)
    assert "<table" in found._repr_html_()


def test_the_first_call_costs_one_forward_and_two_backward_passes_and_others_none():
    model = Counted(small())
    x = torch.randn(1, 3, 64, 64)
    # Where patches lie is measured once, whether or not a model is examined.
    xai.explain(model, x, "rollout", check=False)
    model.forwards = model.backwards = 0
    xai.explain(model, x, "rollout", check=False)
    plain = model.forwards, model.backwards
    xai.explain(model, x, "rollout")
    assert model.forwards == 2 * plain[0] + 1
    assert model.backwards == 2 * plain[1] + 2
    before = model.forwards, model.backwards
    xai.explain(model, torch.randn(1, 3, 64, 64), "rollout")
    assert (model.forwards, model.backwards) == (before[0] + plain[0], before[1] + plain[1])


def test_nothing_keeps_a_model_alive():
    model = small()
    xai.explain(model, torch.randn(1, 3, 64, 64), "rollout")
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None


def test_a_model_that_was_mended_is_explained():
    model = Vision(between=MIXING["roll"]()).eval()
    with pytest.raises(MethodNotApplicableError):
        xai.explain(model, pixels(), "rollout")
    model.between = None
    assert xai.explain(model, pixels(), "rollout").checks["tokens"] == 0


class Chance(nn.Module):
    """A model in which something of chance stays on in eval mode."""

    def __init__(self, act):
        super().__init__()
        self.model, self.act = small(), act

    def forward(self, x):
        return self.model(self.act(x))


@pytest.mark.parametrize(
    "act",
    [
        lambda x: F.dropout(x, 0.3, training=True),
        lambda x: x + torch.randn_like(x),
        lambda x: x * (torch.rand(1, 1, 64, 64) > 0.5),
    ],
    ids=["dropout", "noise", "mask"],
)
@pytest.mark.parametrize("method", ["rollout", "gradient_x_input", "attnlrp"])
def test_a_model_of_chance_is_refused(act, method):
    with pytest.raises(UnsupportedModelError, match="eval"):
        xai.explain(Chance(act).eval(), torch.randn(1, 3, 64, 64), method)


class Looking(nn.Module):
    """A model that computes something else where somebody looks on."""

    def __init__(self):
        super().__init__()
        self.model = small()

    def forward(self, x):
        stack = torch.overrides._get_current_function_mode_stack()
        seen = any(isinstance(mode, Trace) for mode in stack)
        return self.model(-x if seen else x)


def test_a_pass_that_is_not_the_models_is_refused():
    with pytest.raises(UnsupportedModelError):
        xai.explain(Looking().eval(), torch.randn(1, 3, 64, 64), "rollout")


def test_shuffled_patches_are_refused_and_gradients_answer():
    """As in a masked autoencoder: positions are added, then the patches are put in some order."""

    def shuffled(t):
        order = torch.rand(16).argsort() + 1
        return torch.cat([t[:, :1], t[:, order]], 1)

    model, x = Vision(before=shuffled).eval(), pixels()
    with pytest.raises(MethodNotApplicableError) as refused:
        xai.explain(model, x, "generic_attention")
    assert "gradient_x_input" in str(refused.value)
    found = xai.explain(model, x, "gradient_x_input", target=0)
    leaf = x.clone().requires_grad_()
    model(leaf)[:, 0].sum().backward()
    torch.testing.assert_close(found.pixels, (leaf.grad * x).sum(1), rtol=1e-3, atol=1e-5)


def test_a_mean_of_the_patches_for_a_class_token():
    model = timm.create_model("resnet50_clip.openai", pretrained=False).eval()
    x = torch.randn(1, 3, 224, 224)
    found = xai.explain(model, x, "raw_attention")
    assert (found.layout.prefix, found.layout.grid) == (1, (7, 7))


def test_integrated_gradients_say_how_complete_they_are():
    torch.manual_seed(1)
    model, x = small(), 3 * torch.randn(2, 3, 64, 64)
    for head in model.modules():
        if isinstance(head, nn.Linear):
            nn.init.normal_(head.weight, std=0.2)
    coarse = xai.explain(model, x, "integrated_gradients", target=1, steps=2)
    exact = xai.explain(model, x, "integrated_gradients", target=1, steps="auto")
    with torch.no_grad():
        gained = (model(x) - model(torch.zeros_like(x)))[:, 1]
    apart = ((coarse.pixels.sum((1, 2)) - gained) / gained).abs().max()
    assert coarse.checks["completeness"] == pytest.approx(float(apart), rel=1e-3)
    assert exact.checks["completeness"] <= 0.01 < coarse.checks["completeness"]
    with pytest.warns(xai.errors.IncompleteWarning, match="auto"):
        xai.explain(model, x, "integrated_gradients", target=1, steps=2)


def test_relevance_that_is_kept_is_measured():
    found = xai.explain(small(), torch.randn(2, 3, 64, 64), "lrp")
    assert found.checks["relevance"] < 1e-3


def test_padding_is_measured_where_a_text_has_a_mask():
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    sizes = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    model = BertForSequenceClassification(BertConfig(vocab_size=50, **sizes)).eval()
    ids = torch.randint(5, 50, (2, 7))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    found = xai.examine(model, inputs)
    assert found.holds and found.checks["padding"].measured < 1e-5
    assert found.checks["input"].measured == 0
    assert found.checks["gradient"].measured < 1e-4


class Towers(nn.Module):
    """CLIP whose image tower moves its patches between two layers."""

    def __init__(self, act):
        super().__init__()
        self.clip, self.act = small_clip(), act
        layers = self.clip.vision_model.encoder.layers
        layers[1].register_forward_pre_hook(lambda module, given: (act(given[0]), *given[1:]))
        self.config = self.clip.config

    def forward(self, pixel_values, input_ids, attention_mask=None):
        return self.clip(
            pixel_values=pixel_values, input_ids=input_ids, attention_mask=attention_mask
        )


def small_clip():
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    sizes = dict(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32)
    vision = dict(sizes, image_size=32, patch_size=8)
    text = dict(sizes, vocab_size=40, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).eval()


def test_streams_are_examined_as_well():
    ids = torch.randint(3, 40, (2, 6))
    ids[:, -1] = 2
    inputs = {"pixel_values": torch.randn(2, 3, 32, 32), "input_ids": ids}
    inputs["attention_mask"] = torch.ones_like(ids)
    sound = xai.explain(Towers(lambda t: t).eval(), inputs, "generic_attention")
    assert sound.checks["tokens"] == 0
    with pytest.raises(MethodNotApplicableError):
        xai.explain(Towers(lambda t: t.roll(1, 1)).eval(), inputs, "generic_attention")
