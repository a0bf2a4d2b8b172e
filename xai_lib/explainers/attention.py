"""Explanations from attention maps, alone or weighted by their gradient."""

from __future__ import annotations

import torch

from xai_lib.explainers.mixing import (
    TokenMixer,
    check_start,
    head_mean,
    mean_of_rows,
    min_max,
    positive_head_mean,
    readout_rows,
)
from xai_lib.explainers.output import Output
from xai_lib.explainers.reading import Reader
from xai_lib.explainers.registry import explainer
from xai_lib.explainers.signs import ATTENTION, POSITIVE_PART
from xai_lib.options import check_range
from xai_lib.passes.call import Call, Run
from xai_lib.tracing import Chain, HeadMask, Site


def _attention_only(call: Call, visit) -> tuple[Run, torch.Tensor]:
    """Run forward without a graph, visiting each site; return the run and the rows it reads."""
    run = call.forward(graph="readout", keep=False, on_site=visit)
    call.require_token_sites(run)
    readout = run.trace.readout
    (grad,) = run.gradients([readout], call.first_seed(run))
    return run, grad


@explainer(
    "raw_attention",
    family="attention",
    cite="vaswani2017",
    sign=ATTENTION,
    class_specific=False,
    streams="together",
)
def raw_attention(call: Call, *, layer: int = -1, readout: int | None = None) -> Output:
    """Attention of one layer, averaged over heads: E_h[A], in the rows the prediction reads.

    Where two streams attend to each other, the last map from what the head reads to each of them.
    """
    if call.coupled:
        run = call.forward(graph="sites")
        reader = Reader(call, run, layer=layer, readout=readout)
        _, at_outputs = reader.split(run.gradients(reader.tensors, call.first_seed(run)))
        return Output.agnostic(call, reader.last(map(head_mean, run.sites), at_outputs))
    maps: list[torch.Tensor] = []
    mixed: list[bool] = []

    def visit(site: Site) -> None:
        maps.append(head_mean(site))
        mixed.append(site.mixes_heads)

    run, grad = _attention_only(call, visit)
    rows = readout_rows(grad, readout)
    number = _layer_number(layer, len(maps))
    if mixed[number]:
        call.require_distributions(run)
    chosen = maps[number]
    relevance = mean_of_rows(chosen, rows)
    if call.reference and call.inputs.stream == "image" and not call.inputs.fixed:
        patches = call.layout(run).patches
        relevance = chosen[..., patches].mean(-1) if _pooled(rows, patches) else relevance
        relevance = _min_max_patches(relevance, patches)
    return Output.agnostic(call, relevance)


@explainer(
    "rollout",
    family="attention",
    cite="abnar2020",
    sign=ATTENTION,
    class_specific=False,
    streams="together",
)
def rollout(
    call: Call, *, start_layer: int = 0, normalize_rows: bool = True, readout: int | None = None
) -> Output:
    """Attention rollout: R = Π_l (E_h[A_l] + I), each factor's rows normalised to sum to 1.

    Where two streams attend to each other, R of the tokens that look takes the same share of R of
    those they look at, R^q ← (R^q + A R^k) / 2. compat="reference": each stream's rollout over its
    self-attention, joined by the last cross-attention, (R^qq)ᵀ A R^kk, as ICCV 2021 compares with.
    """
    if call.coupled:
        run = call.forward(graph="sites", first_site=start_layer)
        published = {"carry": False, "normalize": False} if call.reference else None
        reader = Reader(call, run, start_layer, normalize_rows, readout, published)
        _, at_outputs = reader.split(run.gradients(reader.tensors, call.first_seed(run)))
        return Output.agnostic(call, reader.read(map(head_mean, reader.sites), at_outputs))
    mixer = TokenMixer(normalize_rows)

    def visit(site: Site) -> None:
        if site.index >= start_layer:
            mixer.update(head_mean(site), site.residual is not None)
        else:
            mixer.skip(site)

    run, grad = _attention_only(call, visit)
    call.require_distributions(run)
    check_start(start_layer, len(run.trace.shapes))
    return Output.agnostic(call, mean_of_rows(mixer.R, readout_rows(grad, readout)))


@explainer(
    "attn_gradcam",
    family="attention x gradient",
    cite="selvaraju2017",
    sign=POSITIVE_PART,
    needs=("gradient",),
    streams="together",
)
def attn_gradcam(call: Call, *, readout: int | None = None) -> Output:
    """Grad-CAM on the last attention: (E_h[w_h A_h])⁺, w_h the row's mean gradient over content.

    Of Chefer et al. (CVPR 2021, section 4). Content is the patches, or the tokens of the text.
    compat="reference" min-maxes the map as they do; on texts it averages over the whole map first.
    """
    if call.coupled:
        return _coupled_gradcam(call, readout)
    run = call.forward(graph="last")
    call.require_token_sites(run)
    site, content = run.sites[-1], call.content(run)

    def explain(seed):
        grad, at_output = run.gradients([site.probs, site.output], seed)
        rows = readout_rows(at_output, readout)
        if call.reference:
            return _published_gradcam(call, run, grad, rows)
        kept = content[:, : site.keys].to(grad.dtype)[:, None, None]
        weight = (grad * kept).sum(-1, keepdim=True) / kept.sum(-1, keepdim=True)
        return mean_of_rows((weight * site.probs).mean(1), rows).clamp(min=0)

    found = call.each_target(run, explain).detach()
    return Output(_min_max_together(call, run, found) if call.reference else found)


def _coupled_gradcam(call: Call, readout: int | None) -> Output:
    """Grad-CAM where streams attend to each other: w_h is the mean gradient over the whole map.

    Padding does not count, as it would make a sample depend on its batch.
    """
    run = call.forward(graph="sites")
    reader = Reader(call, run, readout=readout)
    kept = [_present(call, site, run.logits) for site in run.sites]

    def explain(seed):
        grads, at_outputs = reader.split(run.gradients(reader.tensors, seed))
        cams = []
        for site, grad, k in zip(run.sites, grads, kept, strict=True):
            weight = (grad * k).sum((-1, -2), keepdim=True) / k.sum((-1, -2), keepdim=True)
            cams.append((weight * site.probs.detach()).mean(1).clamp(min=0))
        return reader.last(cams, at_outputs)

    return Output(call.each_target(run, explain))


def _present(call: Call, site: Site, like: torch.Tensor) -> torch.Tensor:
    """Return 1 where no padding attends or is attended to, (batch, 1, queries, keys)."""
    layout = call.inputs.streams

    def tokens(chain: Chain | None, count: int) -> torch.Tensor:
        if chain is not None and chain.parts:
            return torch.cat([tokens(part, n) for part, _, n in chain.parts], 1)
        known = chain is not None and chain.name in layout.slices()
        present = getattr(layout.layout(chain.name), "present", None) if known else None
        if present is None or present.shape[1] != count:
            present = like.new_ones(call.inputs.batch, count)
        return present.to(like.dtype)

    queries, keys = tokens(site.query[0], site.queries), tokens(site.key[0], site.keys)
    return queries[:, None, :, None] * keys[:, None, None, :]


def _min_max_together(call: Call, run: Run, found: torch.Tensor) -> torch.Tensor:
    """Min-max the patches over all targets and images at once, as the published code does on CLIP.

    One target of one image is then as it is for a ViT.
    """
    if not call.inputs.fixed or call.inputs.stream != "image":
        return found
    patches = call.layout(run).patches
    found[..., patches] = min_max(found[..., patches].flatten()).view_as(found[..., patches])
    return found


def _published_gradcam(call: Call, run: Run, grad, rows) -> torch.Tensor:
    """Grad-CAM as the published code min-maxes it: over the patches, or over a text's whole map."""
    probs = run.sites[-1].probs
    if call.inputs.stream == "text":
        cam = (grad.mean((-1, -2), keepdim=True) * probs).mean(1).clamp(min=0)
        return mean_of_rows(min_max(cam.flatten(1)).view_as(cam), rows)
    patches = call.layout(run).patches
    if _pooled(rows, patches):
        weight = grad[..., patches].mean((1, 3), keepdim=True)
        cam = (weight * probs)[..., patches].mean(1).clamp(min=0)
        return _min_max_patches(cam.mean(-1), patches)
    weight = grad[..., patches].mean(-1, keepdim=True)
    relevance = mean_of_rows((weight * probs).mean(1), rows).clamp(min=0)
    return relevance if call.inputs.fixed else _min_max_patches(relevance, patches)


@explainer(
    "generic_attention",
    family="attention x gradient",
    cite="chefer2021iccv",
    sign=POSITIVE_PART,
    needs=("gradient",),
    streams="together",
)
def generic_attention(
    call: Call,
    *,
    start_layer: int = 0,
    normalize_rows: bool = False,
    clamp_after_mean: bool = False,
    readout: int | None = None,
    bimodal: dict | None = None,
    head_mask: HeadMask | None = None,
) -> Output:
    """Generic attention explainability: R ← R + C R with C = E_h[(∇A ⊙ A)⁺] (ICCV 2021, Eq. 5-6).

    clamp_after_mean: (E_h[∇A ⊙ A])⁺, as the code of Beyond Intuition compares against. Where two
    streams attend to each other, the bi-modal rules (Eq. 8-11); bimodal: ablations of these, see
    `explainers.stream_mixer.StreamMixer`, e.g. {"normalize": False}. head_mask: heads left out of
    E_h, which still divides by all of them, while the model is whole (the published pruned
    visualisations of LXMERT and VisualBERT; `xai.prune_heads` explains the pruned model instead).
    """
    run = call.forward(graph="sites", first_site=start_layer)
    reader = Reader(call, run, start_layer, normalize_rows, readout, bimodal)

    def explain(seed):
        grads, at_outputs = reader.split(run.gradients(reader.tensors, seed))
        maps = (
            positive_head_mean(kept(site, grad * site.probs.detach()), clamp_after_mean)
            for site, grad in zip(reader.sites, grads, strict=True)
        )
        return reader.read(maps, at_outputs)

    def kept(site: Site, x: torch.Tensor) -> torch.Tensor:
        return x if head_mask is None else head_mask.apply(site.call, x)

    return Output(call.each_target(run, explain))


def _pooled(rows: torch.Tensor, patches: slice) -> bool:
    """Whether the head reads all patches, where the published code averages over keys instead."""
    return bool(rows[:, patches].all())


def _min_max_patches(relevance: torch.Tensor, patches: slice) -> torch.Tensor:
    """Min-max the patch part of a map, as the published code does before returning it."""
    scaled = relevance.clone()
    scaled[:, patches] = min_max(relevance[:, patches])
    return scaled


def _layer_number(layer: int, depth: int) -> int:
    return check_range("layer", layer, -depth, depth - 1, "a layer, or -1 for the last.") % depth
