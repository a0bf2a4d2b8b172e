"""The two entry points: `explain` a prediction, `trace` a forward pass."""

from __future__ import annotations

from contextlib import contextmanager

import torch
from torch import Tensor, nn

from xai_lib.attribution import Attribution
from xai_lib.errors import MethodNotApplicableError, unknown_name
from xai_lib.explainers import registry
from xai_lib.explainers.meeting import explain_streams
from xai_lib.passes.call import Call
from xai_lib.passes.loan import borrowed, eager
from xai_lib.passes.refusals import PIXEL_METHODS
from xai_lib.streams.finishing import finished
from xai_lib.streams.prepare import prepare_streams
from xai_lib.streams.targets import Target, class_names, resolve_all
from xai_lib.streams.views import prepare, unwrap
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
    position: int | None = None,
    compat: str | None = None,
    first_token: str = "keep",
    **options,
) -> Attribution:
    """Explain a model's predictions: how much each token counts for the target's logit.

    model: any unmodified timm, Hugging Face or torchvision transformer (or your own, if its
    attention is softmax(QKᵀ)V in torch operations). It comes back exactly as it was.
    inputs: pixels (batch, channels, H, W), normalised, or the dict that a processor or a tokenizer
    returns (pixel_values, or input_ids with attention_mask). Models of text and image take both in
    one dict (pixel_values, or visual_feats with visual_pos, or visual_embeds); their relevance is
    in `att.streams`. CLIP scores every image with every text: its samples are the images and its
    classes the texts.
    method: a name of `xai.methods()`; its options follow as keywords.
    target: None (the predicted class), a class number, a class name where the model has names (the
    texts themselves, where those are the classes), a
    tuple (one, other) for why one rather than the other (the difference of their logits), or a list
    with one of these per sample. targets=[...]: several for every sample, sharing a forward pass.
    position: of (batch, rows, classes) logits, the row to explain (a detector's query, a token).
    compat: "reference" reproduces the published code where it differs from its paper
    (docs/conventions.md lists each case).
    first_token: "keep" what the first token ([CLS]) gets, or make it "zero" or the row's "min", as
    the published text pipelines do; in one sequence of text and image (VisualBERT), the token that
    the head reads. Padding always gets 0.
    Raises InputError, TargetError, OptionError, UnsupportedModelError, MethodNotApplicableError.
    """
    if compat not in COMPAT:
        raise unknown_name("compat", compat, ("reference",))
    if first_token not in FIRST_TOKEN:
        raise unknown_name("first_token", first_token, FIRST_TOKEN)
    chosen = registry.find(method, options)
    model = unwrap(model)
    names = class_names(model)
    reference = compat == "reference"
    streams = prepare_streams(model, inputs, position)

    def choose(logits: Tensor, of_texts: bool = False) -> Tensor:
        nonlocal names
        if of_texts:
            # A text is its own name; the configuration's labels are of other classes.
            names = streams.text_names()
        return resolve_all(targets, target, logits, names)

    if streams is None:
        prepared = prepare(model, inputs)
        prepared.position = position
        call = Call(model, prepared, choose, reference=reference)
        with borrowed(model):
            output = chosen.function(call, **call.resolved(options))
        layout, found, logits = call.layout(call.run), call.targets, call.run.logits
        given, stream = prepared.given, prepared.stream
    else:
        output, layout, found, logits = explain_streams(
            model,
            streams,
            chosen,
            options,
            choose,
            reference=reference,
            read=first_token != "keep",
        )
        given, stream = streams.everything, "streams"
    relevance = output.relevance
    if relevance is None:
        relevance = layout.patch_sums(output.pixels)
    if relevance.shape[1:] != (found.shape[1], layout.tokens):
        raise MethodNotApplicableError(
            f"{method!r} sees {relevance.shape[-1]} tokens where the model starts with "
            f"{layout.tokens}: it merges tokens on the way. {PIXEL_METHODS.capitalize()}."
        )
    relevance = finished(relevance, layout, reference, first_token)

    def public(x):
        x = None if x is None else x.detach()
        return x if targets is not None or x is None else x[0]

    against = found[..., 1]
    return Attribution(
        relevance=public(relevance),
        target=public(found[..., 0]),
        logits=logits.detach(),
        content=layout.content_of(found.shape[1], logits.device),
        method=method,
        options=options | ({"compat": compat} if compat else {}),
        layout=layout,
        inputs=given,
        pixels=public(output.pixels),
        class_names=names,
        stream=stream,
        against=public(against) if (against >= 0).any() else None,
    )


@contextmanager
def trace(model: nn.Module):
    """Record every attention site of the forward passes run inside the block.

    `with xai.trace(model) as t: logits = model(x)`; then t.sites[i].name, .probs (batch, heads,
    queries, keys), .value, .output. Nothing is hooked onto the model, and its parameters and mode
    are left alone, so gradients reach the probabilities wherever the caller's graph does.
    """
    with eager(), Trace(unwrap(model)) as active:
        yield active
