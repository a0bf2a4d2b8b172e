"""Fused attention in its parts: softmax(QKᵀ·scale + mask) V, so that its inside can be seen."""

from __future__ import annotations

import inspect
import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from xai_lib.errors import UnsupportedModelError


def expand_groups(
    q: Float[Tensor, "*n queries dim"],
    k: Float[Tensor, "*groups keys dim"],
    v: Float[Tensor, "*groups keys value_dim"],
    enable_gqa: bool,
) -> tuple[Float[Tensor, "*heads keys dim"], Float[Tensor, "*heads keys value_dim"]]:
    """Repeat the key and value heads of grouped-query attention to the number of query heads."""
    if enable_gqa:
        k = k.repeat_interleave(q.size(-3) // k.size(-3), -3)
        v = v.repeat_interleave(q.size(-3) // v.size(-3), -3)
    return k, v


def score_mask(
    q: Float[Tensor, "*n queries dim"],
    k: Float[Tensor, "*heads keys dim"],
    attn_mask: Shaped[Tensor, "... #queries #keys"] | None,
    is_causal: bool,
) -> Shaped[Tensor, "... #queries #keys"] | None:
    """Return the mask as boolean "may attend" or as an additive tensor, or None."""
    if is_causal:
        shape = q.size(-2), k.size(-2)
        return torch.ones(shape, dtype=torch.bool, device=q.device).tril()
    return attn_mask


def default_scale(q: Float[Tensor, "... dim"], scale: float | None) -> float:
    """Return 1/sqrt(head dimension) where no scale is given (Vaswani et al. 2017, Eq. 1)."""
    return 1 / math.sqrt(q.size(-1)) if scale is None else scale


def multi_head_attention(
    query: Float[Tensor, "queries batch dim"],
    key: Float[Tensor, "keys batch key_dim"],
    value: Float[Tensor, "keys batch value_dim"],
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Float[Tensor, "three_dims dim"] | None,
    in_proj_bias: Float[Tensor, " three_dims"] | None,
    bias_k: Float[Tensor, "1 1 dim"] | None,
    bias_v: Float[Tensor, "1 1 dim"] | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Float[Tensor, "dim dim"],
    out_proj_bias: Float[Tensor, " dim"] | None,
    training: bool = True,
    key_padding_mask: Shaped[Tensor, "batch keys"] | None = None,
    need_weights: bool = True,
    attn_mask: Shaped[Tensor, "... queries keys"] | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Float[Tensor, "dim dim"] | None = None,
    k_proj_weight: Float[Tensor, "dim key_dim"] | None = None,
    v_proj_weight: Float[Tensor, "dim value_dim"] | None = None,
    static_k: Float[Tensor, "batch_heads keys head_dim"] | None = None,
    static_v: Float[Tensor, "batch_heads keys head_dim"] | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> Float[Tensor, "queries batch dim"]:
    """The output of `F.multi_head_attention_forward` by its definition, (length, batch, dim).

    torch runs it as one opaque call; written out, its linear maps and attention can be intercepted.
    """
    if bias_k is not None or add_zero_attn or static_k is not None:
        raise UnsupportedModelError(
            "nn.MultiheadAttention with add_bias_kv, add_zero_attn or static keys is not "
            "explained: it attends to keys that are no tokens."
        )
    if in_proj_weight is None or use_separate_proj_weight:
        weights = q_proj_weight, k_proj_weight, v_proj_weight
    else:
        weights = in_proj_weight.chunk(3)
    biases = in_proj_bias.chunk(3) if in_proj_bias is not None else (None, None, None)

    def heads(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        assert weight is not None, "torch demands three weights where they are separate"
        length, batch, _ = x.shape
        return F.linear(x, weight, bias).view(length, batch, num_heads, -1).permute(1, 2, 0, 3)

    inputs = (query, key, value)
    q, k, v = (heads(*parts) for parts in zip(inputs, weights, biases, strict=True))
    mask = _merge_masks(attn_mask, key_padding_mask, q)
    mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout_p if training else 0.0)
    joined = mixed.permute(2, 0, 1, 3).flatten(2)
    return F.linear(joined, out_proj_weight, out_proj_bias)


def wants_weights(*args: object, **kwargs: object) -> str:
    """Return "average", "heads" or "" for the attention weights that such a call asks for."""
    bound = inspect.signature(multi_head_attention).bind(*args, **kwargs)
    bound.apply_defaults()
    if not bound.arguments["need_weights"]:
        return ""
    return "average" if bound.arguments["average_attn_weights"] else "heads"


def _merge_masks(attn_mask: Tensor | None, padding: Tensor | None, q: Tensor) -> Tensor | None:
    """Return both masks as one additive mask; True means "may not attend" in this interface."""
    merged = None
    if attn_mask is not None:
        merged = _additive(attn_mask, q)
        if merged.dim() == 3:
            merged = merged.view(q.size(0), -1, *merged.shape[1:])
    if padding is not None:
        blocked = _additive(padding, q)[:, None, None, :]
        merged = blocked if merged is None else merged + blocked
    return merged


def _additive(mask: Tensor, q: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(q.dtype)
    return torch.zeros_like(mask, dtype=q.dtype).masked_fill(mask, float("-inf"))
