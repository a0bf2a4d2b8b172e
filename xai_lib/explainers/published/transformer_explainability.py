"""The code of Chefer et al. (CVPR 2021) for ViT and BERT: where it departs from the paper."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from xai_lib.explainers.reading import AtOutputs, Reader, mean_of_rows, readout_rows
from xai_lib.explainers.steps import departs
from xai_lib.passes.call import Call

departs(
    "zplus.whole_batch",
    methods='every LRP method with `rules="zplus"`',
    default="the sum rule normalises per sample: a batch equals its samples",
    reference="it normalises over the whole batch, so samples leak into each other (batches of "
    "one agree)",
)(True)

departs(
    "zplus.masks",
    methods="every `zplus` method on texts",
    default="an attention mask takes no share; stabilisers as below",
    reference="masks are added by the sum rule, chosen rows and nested clones stabilised as "
    "published: visible in float64 alone",
)(True)


def of_image(call: Call) -> bool:
    """Whether the code explains one image by itself (what it does on CLIP is another's)."""
    return call.at_pixels and not call.inputs.fixed


def of_text(call: Call) -> bool:
    """Whether the code explains a text, or a text and an image in one sequence."""
    return call.embedded


@departs(
    "attn_gradcam",
    when=of_text,
    methods="`attn_gradcam` on texts",
    default="as on images: the row's mean gradient over the words' tokens",
    reference="one weight a head over the whole map, padding included, min-maxed over the whole "
    "map",
)
def gradcam_of_text(
    reader: Reader, grads: Sequence[Float[Tensor, "..."]], at_outputs: AtOutputs
) -> Float[Tensor, "batch tokens"]:
    """Grad-CAM as published for BERT, min-maxed over the whole map."""
    (grad,), (site,) = grads, reader.sites
    cam = (grad.mean((-1, -2), keepdim=True) * site.probs.detach()).mean(1).clamp(min=0)
    scaled = min_max(cam.flatten(1)).view_as(cam)
    return mean_of_rows(scaled, readout_rows(at_outputs[-1], reader.readout))


@departs(
    "attn_gradcam",
    when=lambda call: call.at_pixels,
    methods="`attn_gradcam`",
    default="the clamped map; zero where nothing is positive",
    reference="its patches min-maxed; NaN where the map is constant (0/0)",
)
def gradcam_of_image(
    reader: Reader, grads: Sequence[Float[Tensor, "..."]], at_outputs: AtOutputs
) -> Float[Tensor, "batch tokens"]:
    """Grad-CAM as published for ViT: of mean-pooled models over keys, one weight a sample."""
    (grad,), (site,) = grads, reader.sites
    patches, probs = reader.call.patches(reader.run), site.probs.detach()
    rows = readout_rows(at_outputs[-1], reader.readout)
    if _pooled(rows, patches):
        weight = grad[..., patches].mean((1, 3), keepdim=True)
        cam = (weight * probs)[..., patches].mean(1).clamp(min=0)
        return min_max_patches(cam.mean(-1), patches)
    weight = grad[..., patches].mean(-1, keepdim=True)
    relevance = mean_of_rows((weight * probs).mean(1), rows).clamp(min=0)
    return min_max_patches(relevance, patches) if of_image(reader.call) else relevance


@departs(
    "raw_attention",
    when=of_image,
    methods="`raw_attention`",
    default="mean attention, rows sum to 1 with the prefix tokens",
    reference="its patches min-maxed",
)
def raw_attention(
    reader: Reader,
    maps: Sequence[Float[Tensor, "batch queries keys"]],
    at_outputs: AtOutputs,
    layer: int,
) -> Float[Tensor, "batch tokens"]:
    """Raw attention as published, its patches min-maxed; of mean-pooled models over keys."""
    relevance = reader.last(maps, at_outputs, layer)
    patches = reader.call.patches(reader.run)
    if _pooled(readout_rows(at_outputs[-1], reader.readout), patches):
        relevance = maps[layer][..., patches].mean(-1)
    return min_max_patches(relevance, patches)


departs(
    "pooled",
    methods="`raw_attention`, `attn_gradcam` on mean-pooled models",
    default="mean over the query rows that the head reads",
    reference="mean over keys, one value per query; the Grad-CAM weight is one per sample, over "
    "heads and keys too",
)(True)


def _pooled(rows: Tensor, patches: slice) -> bool:
    """Whether the head reads all patches, where the published code averages over keys instead."""
    return bool(rows[:, patches].all())


def min_max(x: Float[Tensor, "*rows n"]) -> Float[Tensor, "*rows n"]:
    """Return x scaled to [0, 1] per row; 0/0 where a row is constant, as published (NaN)."""
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    return (x - low) / (high - low)


def min_max_patches(
    relevance: Float[Tensor, "batch tokens"], patches: slice
) -> Float[Tensor, "batch tokens"]:
    """Min-max the patch part of a map, as the published code does before returning it."""
    scaled = relevance.clone()
    scaled[:, patches] = min_max(relevance[:, patches])
    return scaled
