"""Text families: rows that the head reads, embeddings, completeness and LRP, by slow oracles."""

from contextlib import ExitStack
from unittest import mock

import pytest
import torch
from support.catalogue_texts import TEXTS
from support.matrix import wide
from test_support_lrp import fixed_layer_norm, halved, proportional
from torch.nn import functional as F
from transformers import activations

import xai_lib as xai
from xai_lib.passes.call import Call
from xai_lib.streams.prepare import prepare

BY_NAME = {entry.name: entry for entry in TEXTS}
ONE_MAP = [e for e in TEXTS if "conv layer" not in e.name]
# Their hidden_states[0] is what the first block takes up.
KEEP_STATES = [e for e in TEXTS if "mean pooling and" not in e.name and "+ same" not in e.name]
EXCHANGED = (
    "HF RobertaForSequenceClassification",
    "HF AlbertForSequenceClassification",
    "HF DebertaV2ForSequenceClassification",
    "HF T5EncoderModel + mean pooling and linear head",
    "HF GPT2ForSequenceClassification",
    "HF LlamaForSequenceClassification",
)


@pytest.fixture(autouse=True)
def in_float64():
    with wide():
        yield


def live_sites(model, inputs, target=1):
    """Return attention maps and their gradients, from a graph that the parameters start."""
    with xai.trace(model) as trace:
        logits = model(**inputs).logits if hasattr(model, "config") else model(**inputs)
    probs = [site.probs for site in trace.sites]
    grads = torch.autograd.grad(logits[:, target].sum(), probs)
    return [(p.detach(), g) for p, g in zip(probs, grads, strict=True)]


def read(entry, rows):
    """Take the rows of one text that the entry says its head reads: (tokens,)."""
    return {"first": rows[0], "last": rows[-1], "all": rows.mean(0)}[entry.reads]


@pytest.mark.parametrize("entry", ONE_MAP, ids=lambda e: e.name)
def test_the_rows_are_those_that_the_head_reads(entry):
    """Generic attention of a padded batch, and that of each text alone on its full matrix."""
    model, batch = entry.model(), entry.batch()
    found = xai.explain(model, batch, "generic_attention", target=1).relevance
    last = xai.explain(model, batch, "raw_attention").relevance
    for i, sample in enumerate(entry.samples()):
        tokens = sample["input_ids"].shape[1]
        R, sites = torch.eye(tokens, dtype=torch.float64), live_sites(model, sample)
        for probs, grad in sites:
            R = R + (probs * grad).clamp(min=0).mean(1)[0] @ R
        expected = read(entry, sites[-1][0][0].mean(0))
        torch.testing.assert_close(found[i, :tokens], read(entry, R), rtol=1e-9, atol=1e-15)
        torch.testing.assert_close(last[i, :tokens], expected, rtol=1e-9, atol=1e-15)


def a_call(model, inputs):
    return Call(model, prepare(model, inputs), lambda logits: logits.argmax(-1)[None])


def features(model, inputs):
    """Return the embeddings as the library finds them."""
    return a_call(model, inputs).forward(at_input=True).features.detach()


@pytest.mark.parametrize("entry", KEEP_STATES, ids=lambda e: e.name)
def test_the_embeddings_are_what_the_first_block_takes_up(entry):
    """Of ALBERT they are the projected ones, which hidden_states begins with as well."""
    model, batch = entry.model(), entry.batch()
    with torch.no_grad():
        states = model(**batch, output_hidden_states=True).hidden_states
    torch.testing.assert_close(features(model, batch), states[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("entry", TEXTS, ids=lambda e: e.name)
@pytest.mark.slow
def test_integrated_gradients_are_complete(entry):
    """Their sum is what each logit gains on the way from the baseline."""
    model, (sample, *_) = entry.model(), entry.samples()
    # A quarter of the way: close to zero, normalisations divide by almost nothing.
    start = features(model, sample) * 0.75
    options = {"targets": [0, 1], "steps": 100, "baseline": start}
    att = xai.explain(model, sample, "integrated_gradients", **options)
    call = a_call(model, sample)
    with torch.no_grad():
        lost = (call.forward().logits - call.forward(start.clone()).logits)[0, :2]
    error = (att.relevance[:, 0].sum(-1) - lost).abs().max() / lost.abs().max()
    # The corners of ReLU (T5, OPT) are what a quadrature of smooth functions is worst at: the error
    # of T5 is 1e-2 with 40 steps, 4e-3 with 100, 1e-4 with 1,000.
    assert error < 5e-3, error


@pytest.mark.parametrize("family", ["GPT2", "OPT", "Llama", "Qwen2"])
def test_the_gradient_is_that_at_inputs_embeds(family):
    """These models add positions to their words, or nothing: the gradient is that of the words."""
    entry = BY_NAME[f"HF {family}ForSequenceClassification"]
    model, sample = entry.model(), entry.samples()[0]
    words = model.get_input_embeddings()(sample["input_ids"]).detach().requires_grad_()
    output = model(inputs_embeds=words, attention_mask=sample["attention_mask"])
    (grad,) = torch.autograd.grad(output.logits[:, 2].sum(), words)
    att = xai.explain(model, sample, "gradient_sensitivity", target=2)
    torch.testing.assert_close(att.relevance, grad.square().sum(-1), rtol=1e-9, atol=0)


def slow_attnlrp(entry, sample, target):
    """AttnLRP as x · ∂/∂x of the model with its operations exchanged one by one."""
    model = entry.model(eager=entry.eager is not None).requires_grad_(False)
    x = features(model, sample).requires_grad_()

    exchanged = [
        (torch.Tensor, "__matmul__", halved(torch.Tensor.__matmul__)),
        (torch, "matmul", halved(torch.matmul)),
        (torch, "bmm", halved(torch.bmm)),
        (F, "layer_norm", fixed_layer_norm),
        (torch, "tanh", proportional(torch.tanh)),
        (F, "relu", proportional(F.relu)),
        *modules_exchanged(model),
    ]
    with ExitStack() as stack:
        for place, name, substitute in exchanged:
            stack.enter_context(mock.patch.object(place, name, substitute))
        logits = with_features(model, sample, x)
    (grad,) = torch.autograd.grad(logits[:, target].sum(), x)
    return (x * grad).sum(-1).detach()


def modules_exchanged(model):
    """Return substitutes of activations and norms that transformers writes out, and of gates."""
    gelus = (activations.GELUActivation, activations.NewGELUActivation)
    substitutes = [(kind, "forward", proportional_forward(kind.forward)) for kind in gelus]
    for module in model.modules():
        kind = type(module).__name__
        if kind.endswith("RMSNorm") or kind == "T5LayerNorm":
            substitutes.append((module, "forward", fixed_rms_norm(module)))
        elif "MLP" in kind and hasattr(module, "gate_proj"):
            substitutes.append((module, "forward", halved_gate(module)))
    return substitutes


def proportional_forward(forward):
    return lambda module, x: proportional(lambda y: forward(module, y))(x)


def fixed_rms_norm(module):
    eps = module.variance_epsilon

    def forward(x):
        size = (x.square().mean(-1, keepdim=True) + eps).sqrt().detach()
        return x / size * module.weight

    return forward


def halved_gate(module):
    def forward(x):
        gated = halved(torch.mul)(proportional(F.silu)(module.gate_proj(x)), module.up_proj(x))
        return module.down_proj(gated)

    return forward


def with_features(model, sample, x):
    """Run the model with x as what its first block takes, by a hook on that."""
    first = next(m for m in model.modules() if type(m).__name__ in BLOCKS)

    def replace(module, args, kwargs):
        # ALBERT's only block runs several times.
        handle.remove()
        return ((x, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": x})

    handle = first.register_forward_pre_hook(replace, with_kwargs=True)
    output = model(**sample)
    return getattr(output, "logits", output)


BLOCKS = (
    "RobertaLayer",
    "AlbertLayerGroup",
    "DebertaV2Layer",
    "T5Block",
    "GPT2Block",
    "LlamaDecoderLayer",
)


@pytest.mark.parametrize("name", EXCHANGED)
def test_attnlrp_is_the_gradient_of_the_exchanged_model(name):
    entry = BY_NAME[name]
    for sample in entry.samples():
        expected = slow_attnlrp(entry, sample, 2)
        found = xai.explain(entry.model(), sample, "attnlrp", target=2).relevance
        scale = expected.abs().max()
        torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", EXCHANGED)
def test_lrp_conserves_what_no_constant_takes(name):
    """Without the position biases of scores, the relevance of the logit reaches the embeddings."""
    entry = BY_NAME[name]
    model = entry.model()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "relative_attention_bias" in key:
                parameter.zero_()
    one = torch.ones(3, dtype=torch.float64)
    total = xai.explain(model, entry.batch(), "lrp", target=2).relevance.sum(-1)
    torch.testing.assert_close(total, one, rtol=0, atol=1e-3)
    found = xai.explain(
        model, entry.batch(), "lrp_alpha_beta", target=2, seed="one", reduce="sum", alpha=0.7
    )
    torch.testing.assert_close(found.relevance.sum(-1), one, rtol=0, atol=1e-6)
