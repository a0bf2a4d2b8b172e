"""The two entry points: `explain` a prediction, `trace` a forward pass."""

from __future__ import annotations

from contextlib import contextmanager

import torch
from torch import Tensor, nn

from xai_lib import registry
from xai_lib.attribution import Attribution
from xai_lib.borrowing import borrowed, eager
from xai_lib.errors import MethodNotApplicableError, unknown_name
from xai_lib.inputs import Prepared, prepare, unwrap
from xai_lib.passes import Call
from xai_lib.refusals import PIXEL_METHODS
from xai_lib.targets import Target, class_names, resolve_all
from xai_lib.tracing import Trace

COMPAT = (None, "reference")
FIRST_TOKEN = ("keep", "zero", "min")


@torch.inference_mode(False)
def explain(
    model: nn.Module,
    inputs,
    method: str = "transformer_attribution",
    target: Target = None,
    *,
    targets=None,
    compat: str | None = None,
    first_token: str = "keep",
    **options,
) -> Attribution:
    """Explain a model's predictions: how much each token counts for the target's logit.

    model: any unmodified timm, Hugging Face or torchvision transformer (or your own, if its
    attention is softmax(QKᵀ)V in torch operations). It comes back exactly as it was.
    inputs: pixels (batch, channels, H, W), normalised, or the dict that a processor or a tokenizer
    returns (pixel_values, or input_ids with attention_mask).
    method: a name of `xai.methods()`; its options follow as keywords.
    target: None (the predicted class), a class number, a class name where the model has names, or
    one of these per sample. targets=[...]: several for every sample, sharing one forward pass.
    compat: "reference" reproduces the published code where it differs from its paper
    (docs/conventions.md lists each case).
    first_token: "keep" what the first token ([CLS]) gets, or make it "zero" or the row's "min", as
    the published text pipelines do. Padding always gets 0.
    Raises InputError, TargetError, OptionError, UnsupportedModelError, MethodNotApplicableError.
    """
    if compat not in COMPAT:
        raise unknown_name("compat", compat, ("reference",))
    if first_token not in FIRST_TOKEN:
        raise unknown_name("first_token", first_token, FIRST_TOKEN)
    chosen = registry.find(method, options)
    model = unwrap(model)
    prepared = prepare(model, inputs)
    names = class_names(model)
    call = Call(
        model,
        prepared,
        lambda logits: resolve_all(targets, target, logits, names),
        reference=compat == "reference",
    )
    with borrowed(model):
        output = chosen.function(call, **options)
    layout = call.layout(call.run)
    relevance = output.relevance
    if relevance is None:
        relevance = layout.patch_sums(output.pixels)
    if relevance.shape[1:] != (prepared.batch, layout.tokens):
        raise MethodNotApplicableError(
            f"{method!r} sees {relevance.shape[-1]} tokens where the model starts with "
            f"{layout.tokens}: it merges tokens on the way. {PIXEL_METHODS.capitalize()}."
        )
    relevance = _finished(relevance, prepared, call.reference, first_token)

    def public(x):
        x = None if x is None else x.detach()
        return x if targets is not None or x is None else x[0]

    return Attribution(
        relevance=public(relevance),
        target=public(call.targets),
        logits=call.run.logits.detach(),
        content=call.content(call.run),
        method=method,
        options=options | ({"compat": compat} if compat else {}),
        layout=layout,
        inputs=(prepared.ids if prepared.stream == "text" else prepared.pixels).detach(),
        pixels=public(output.pixels),
        class_names=names,
        stream=prepared.stream,
    )


def _finished(relevance: Tensor, inputs: Prepared, reference: bool, first_token: str) -> Tensor:
    """Return relevance (targets, batch, tokens) with the padding and the first token as asked."""
    absent = None
    if inputs.stream == "text" and not reference:
        # What a method leaves there is rounding, or a constant that belongs to no token.
        absent = ~inputs.present
        relevance = relevance.masked_fill(absent, 0)
    if first_token == "keep":
        return relevance
    relevance = relevance.detach().clone()
    first = 0 if inputs.stream == "image" else inputs.present.long().argmax(1)
    rows = torch.arange(relevance.shape[1], device=relevance.device)
    # Nor is padding a row's least, or a text would depend on the others of its batch.
    tokens = relevance if absent is None else relevance.masked_fill(absent, torch.inf)
    replaced = 0 if first_token == "zero" else tokens.amin(-1)
    relevance[:, rows, first] = replaced
    return relevance


@contextmanager
def trace(model: nn.Module):
    """Record every attention site of the forward passes run inside the block.

    `with xai.trace(model) as t: logits = model(x)`; then t.sites[i].name, .probs (batch, heads,
    queries, keys), .value, .output. Nothing is hooked onto the model, and its parameters and mode
    are left alone, so gradients reach the probabilities wherever the caller's graph does.
    """
    with eager(), Trace(unwrap(model)) as active:
        yield active
