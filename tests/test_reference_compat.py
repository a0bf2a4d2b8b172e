"""Where the default departs from the published code, and compat="reference" brings it back."""

from pathlib import Path

import pytest
import torch
from small_vits import golden_model, relative_error

import xai_lib as xai
from xai_lib.errors import OptionError
from xai_lib.explainers.steps import conventions, step
from xai_lib.passes.call import Call
from xai_lib.streams.prepare import prepare

pytestmark = pytest.mark.usefixtures("one_thread")

LEAKING = ("transformer_attribution", "lrp_rollout", "partial_lrp", "lrp")


def min_max(x):
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    return (x - low) / (high - low)


def patches(model, inputs, method, **options):
    found = xai.explain(model, inputs, method, **options)
    return found.relevance[..., found.layout.prefix :]


@pytest.fixture
def vit():
    model, inputs, _ = golden_model("vit_a_seed0")
    return model, inputs


@pytest.fixture
def pooled_vit():
    model, inputs, _ = golden_model("vit_e_seed0")
    return model, inputs


def batch_effect(model, inputs, method, **options):
    """Return how far the other samples of its batch move a sample's explanation, relatively."""
    together = xai.explain(model, inputs, method, target=1, **options).relevance
    alone = [xai.explain(model, x[None], method, target=1, **options).relevance for x in inputs]
    return relative_error(together, torch.cat(alone))


@pytest.mark.parametrize("method", LEAKING)
def test_sum_rule_leaks_over_the_batch_only_in_the_reference(vit, method):
    assert batch_effect(*vit, method).max() < 1e-9
    assert batch_effect(*vit, method, compat="reference").max() > 1e-3


@pytest.mark.parametrize("method", LEAKING)
def test_split_rules_do_not_leak_in_either(vit, method):
    options = {"rules": "zplus_split"}
    assert batch_effect(*vit, method, **options).max() < 1e-9
    assert batch_effect(*vit, method, compat="reference", **options).max() < 1e-9


@pytest.mark.parametrize("method", LEAKING)
def test_reference_and_default_agree_on_a_batch_of_one(vit, method):
    model, inputs = vit
    default = xai.explain(model, inputs[:1], method).relevance
    reference = xai.explain(model, inputs[:1], method, compat="reference").relevance
    # The published stabiliser of a chosen row, x / (x + 1e-9), is part of compat="reference" alone.
    torch.testing.assert_close(
        reference, default, rtol=1e-5, atol=1e-7 * float(default.abs().max())
    )


@pytest.mark.parametrize("method", ("raw_attention", "attn_gradcam"))
def test_reference_min_maxes_the_patches(vit, method):
    model, inputs = vit
    default = patches(model, inputs, method)
    reference = patches(model, inputs, method, compat="reference")
    assert not torch.allclose(default, reference)
    torch.testing.assert_close(reference, min_max(default), rtol=0, atol=1e-12)


def test_gradcam_without_positive_evidence_is_zero_or_nan(vit):
    model, inputs = vit
    targets = golden_model("vit_a_seed0")[2][1]
    default = patches(model, inputs, "attn_gradcam", target=targets)
    reference = patches(model, inputs, "attn_gradcam", target=targets, compat="reference")
    assert not default[2].any()
    assert reference[2].isnan().all()
    assert not reference[:2].isnan().any()


def test_raw_attention_of_a_pooled_model_averages_queries_or_keys(pooled_vit):
    model, inputs = pooled_vit
    with xai.trace(model) as trace:
        model(inputs)
    attention = trace.sites[-1].probs.mean(1).detach()
    prefix = attention.shape[-1] - 16
    default = patches(model, inputs, "raw_attention")
    reference = patches(model, inputs, "raw_attention", compat="reference")
    by_query = attention[:, prefix:, prefix:]
    torch.testing.assert_close(default, by_query.mean(1))
    torch.testing.assert_close(reference, min_max(by_query.mean(2)))


def test_gradcam_of_a_pooled_model_averages_queries_or_keys(pooled_vit):
    model, inputs = pooled_vit
    with xai.trace(model) as trace:
        logits = model(inputs)
    probs = trace.sites[-1].probs
    (grad,) = torch.autograd.grad(logits[:, 2].sum(), probs)
    prefix = probs.shape[-1] - 16
    probs, grad = (t.detach()[:, :, prefix:, prefix:] for t in (probs, grad))
    by_row = (grad.mean(-1, keepdim=True) * probs).mean(1)
    default = patches(model, inputs, "attn_gradcam", target=2)
    torch.testing.assert_close(default, by_row.mean(1).clamp(min=0))
    # The published code weights each query by one number over heads and keys.
    by_query = (grad.mean((1, 3), keepdim=True) * probs).mean(1).clamp(min=0)
    reference = patches(model, inputs, "attn_gradcam", target=2, compat="reference")
    torch.testing.assert_close(reference, min_max(by_query.mean(2)))


@pytest.mark.parametrize("feedback", ("ig", "none"))
@pytest.mark.parametrize("method", ("bi_head", "bi_token"))
def test_a_start_layer_beyond_the_depth_is_refused_or_gives_zeros(vit, method, feedback):
    model, inputs = vit
    options = {"start_layer": 3, "feedback": feedback}
    with pytest.raises(OptionError, match="start_layer is 3; expected an integer from 0 to 2"):
        xai.explain(model, inputs, method, **options)
    assert not patches(model, inputs, method, compat="reference", **options).any()
    assert patches(
        model, inputs, method, compat="reference", start_layer=2, feedback=feedback
    ).any()


def test_integrated_gradients_by_the_definition_or_weighted_by_alpha(vit):
    model, inputs = vit
    steps = 5

    def gradient_at(alpha):
        return xai.explain(model, inputs * alpha, "gradient", target=0, reduce="sum").pixels

    alphas = torch.linspace(0, 1, steps, dtype=torch.float64).tolist()
    expected = sum(alpha * gradient_at(alpha) for alpha in alphas) / steps
    options = {"target": 0, "steps": steps}
    reference = xai.explain(model, inputs, "integrated_gradients", compat="reference", **options)
    torch.testing.assert_close(reference.pixels, expected)

    default = xai.explain(model, inputs, "integrated_gradients", target=0, steps=60)
    gap = model(inputs)[:, 0] - model(torch.zeros_like(inputs))[:, 0]
    torch.testing.assert_close(default.pixels.sum((1, 2)), gap.detach(), rtol=0, atol=1e-6)
    assert relative_error(reference.pixels, default.pixels).min() > 0.1


def test_nothing_else_changes(vit):
    """Every other method gives the same array under compat="reference"."""
    model, inputs = vit
    differing = {*LEAKING, "raw_attention", "attn_gradcam", "integrated_gradients"}
    differing.add("lrp_alpha_beta")  # Refused: the code is written for BERT alone.
    for method in set(xai.methods()["name"]) - differing:
        default = xai.explain(model, inputs, method).relevance
        reference = xai.explain(model, inputs, method, compat="reference").relevance
        assert torch.equal(default, reference), method


def test_the_table_of_departures_is_the_one_in_the_docs():
    text = (Path(__file__).parent.parent / "docs" / "conventions.md").read_text()
    told = text.split("<!-- departures: begin")[1].split("-->\n")[1].split("<!--")[0]
    assert told.strip() == conventions(), "renew it with `xai methods --write`"


def test_a_step_is_ours_unless_the_published_code_is_asked_for(vit):
    model, inputs = vit
    for reference, expected in ((False, "ours"), (True, True)):
        call = Call(model, prepare(model, inputs), lambda logits: logits, reference=reference)
        assert step(call, "zplus.whole_batch", "ours") == expected
        assert step(call, "a step that nobody departs from", "ours") == "ours"
