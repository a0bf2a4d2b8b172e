"""The code of Chen et al. (TMLR 2023, 'Beyond Intuition'): where it departs from the paper."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from xai_lib.errors import MethodNotApplicableError
from xai_lib.explainers.mixing import head_mean
from xai_lib.explainers.perception import joined_heads, weighted_by
from xai_lib.explainers.published.transformer_explainability import min_max
from xai_lib.explainers.reading import check_start
from xai_lib.explainers.steps import departs
from xai_lib.passes.call import Call
from xai_lib.rules import gemm
from xai_lib.tracing import Site


def of_clip(call: Call) -> bool:
    """Whether an image is compared with texts: the code for CLIP is not the code for ViT."""
    return bool(call.inputs.fixed)


def of_clip_image(call: Call) -> bool:
    """Whether it is the image that is explained there."""
    return of_clip(call) and call.at_pixels


def of_clip_text(call: Call) -> bool:
    """Whether it is the texts that are explained there."""
    return of_clip(call) and call.embedded


@departs(
    "bi_head.kept",
    methods="`bi_head` on texts",
    default="heads weigh by the tokens alone",
    reference="padding counts as well, so a text depends on its batch",
)
def all_tokens(call: Call) -> None:
    """Padding is averaged over as well."""


@departs(
    "bi.start",
    methods="`bi_head`, `bi_token`",
    default="`start_layer` beyond the depth is an `OptionError`",
    reference="no layer counts: zero for every patch",
)
def start_or_none(start_layer: int, depth: int) -> int:
    """Past the depth the published code returns zeros, silently."""
    return depth if start_layer >= depth else check_start(start_layer, depth)


departs(
    "bi_head.normalised_over",
    when=of_clip_image,
    methods="`bi_head` on CLIP",
    default="I is normalised over the heads of each image",
    reference="over heads and images together; along a text's path its words are scaled and its "
    "positions are not",
)((0, 1))


@departs("bi.still", when=of_clip_text)
def positions(
    call: Call, x: Float[Tensor, "batch tokens dim"]
) -> Float[Tensor, "batch tokens dim"]:
    """Return what the embeddings x of a text hold beside its words, which alone are scaled."""
    words = {len(m.weight): m for m in call.model.modules() if isinstance(m, nn.Embedding)}
    size = getattr(getattr(call.model.config, "text_config", None), "vocab_size", None)
    if size not in words or words[size].weight.shape[1] != x.shape[-1]:
        raise MethodNotApplicableError(
            "compat='reference' of bi_head and bi_token follows code written for CLIP, and this "
            "model has no embedding of its text_config.vocab_size words; leave compat out."
        )
    return x - words[size](call.inputs.only.data).detach().to(x.dtype)


@departs(
    "bi_token.map",
    when=of_clip,
    methods="`bi_token` on CLIP",
    default="token weights from the values that attention mixes",
    reference="values of the stream after the attention residual",
)
def by_later_value_norm(call: Call, site: Site) -> Float[Tensor, "batch queries keys"]:
    """E_h[A] diag(‖W_o v(z')_j‖ / ‖z_j‖), z' the stream after attention, not before: as published.

    That is what their code computes on CLIP, where it reads values off a stream that the attention
    was added to in place; its modules are found by their names in transformers.
    """
    layer, _, own = site.name.rpartition(".")
    try:
        values = call.model.get_submodule(f"{site.name}.v_proj")
        weight = call.model.get_parameter(f"{site.name}.out_proj.weight")
        output = call.model.get_submodule(f"{site.name}.out_proj")
        norm = call.model.get_submodule(f"{layer}.layer_norm1")
    except AttributeError as error:
        raise MethodNotApplicableError(
            "compat='reference' of bi_token follows code written for CLIP, and this model's "
            f"{own!r} has no v_proj, out_proj and layer_norm1 of CLIPModel; leave compat out."
        ) from error
    with torch.no_grad():
        z = site.residual
        assert z is not None, "CLIP adds its attention to a stream"
        moved = values(norm(z + output(joined_heads(site.output))))
        return weighted_by(head_mean(site), gemm.linear(moved, weight), z)


@departs(
    "attn_gradcam.targets",
    when=of_clip_image,
    methods="`attn_gradcam`, `raw_attention` on CLIP",
    default="as elsewhere",
    reference="Grad-CAM min-maxed over all texts and images together; raw attention as it is",
)
def min_max_together(
    call: Call, found: Float[Tensor, "targets batch tokens"]
) -> Float[Tensor, "targets batch tokens"]:
    """Min-max the patches over all targets and images at once.

    One target of one image is then as it is for a ViT.
    """
    patches = call.patches(call.run)
    found[..., patches] = min_max(found[..., patches].flatten()).view_as(found[..., patches])
    return found


@departs(
    "integrated_gradients.nodes",
    methods="`integrated_gradients`",
    default="(x - x') · ∫ gradient, Gauss-Legendre nodes; complete",
    reference="mean of α · gradient(αx) at evenly spaced α, both ends in, not times the input",
)
def even_nodes(
    quadrature: str, steps: int
) -> tuple[Float[Tensor, " points"], Float[Tensor, " points"]]:
    """Return evenly spaced points, both ends in, each weighted by itself."""
    even = torch.linspace(0, 1, steps, dtype=torch.float64)
    return even, even / steps


departs("integrated_gradients.times")(1.0)
