"""Fused attention in its parts: softmax(QKᵀ·scale + mask) V, so that its inside can be seen."""

from __future__ import annotations

import inspect
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from xai_lib.errors import UnsupportedModelError


def expand_groups(q: Tensor, k: Tensor, v: Tensor, enable_gqa: bool) -> tuple[Tensor, Tensor]:
    """Repeat the key and value heads of grouped-query attention to the number of query heads."""
    if enable_gqa:
        k = k.repeat_interleave(q.size(-3) // k.size(-3), -3)
        v = v.repeat_interleave(q.size(-3) // v.size(-3), -3)
    return k, v


def score_mask(q: Tensor, k: Tensor, attn_mask: Tensor | None, is_causal: bool) -> Tensor | None:
    """Return the mask as boolean "may attend" or as an additive tensor, or None."""
    if is_causal:
        shape = q.size(-2), k.size(-2)
        return torch.ones(shape, dtype=torch.bool, device=q.device).tril()
    return attn_mask


def is_mask(x: Tensor) -> bool:
    """Whether x only switches scores off: zeros, and numbers that no softmax lets through."""
    return not x.requires_grad and bool(((x == 0) | (x <= -1e4)).all())


def default_scale(q: Tensor, scale: float | None) -> float:
    """Return 1/sqrt(head dimension) where no scale is given (Vaswani et al. 2017, Eq. 1)."""
    return 1 / math.sqrt(q.size(-1)) if scale is None else scale


def multi_head_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> Tensor:
    """The output of `F.multi_head_attention_forward` by its definition, (length, batch, dim).

    torch runs it as one opaque call; written out, its linear maps and attention can be intercepted.
    """
    if bias_k is not None or add_zero_attn or static_k is not None:
        raise UnsupportedModelError(
            "nn.MultiheadAttention with add_bias_kv, add_zero_attn or static keys is not "
            "explained: it attends to keys that are no tokens."
        )
    if use_separate_proj_weight:
        weights = q_proj_weight, k_proj_weight, v_proj_weight
    else:
        weights = in_proj_weight.chunk(3)
    biases = in_proj_bias.chunk(3) if in_proj_bias is not None else (None, None, None)

    def heads(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        length, batch, _ = x.shape
        return F.linear(x, weight, bias).view(length, batch, num_heads, -1).permute(1, 2, 0, 3)

    inputs = (query, key, value)
    q, k, v = (heads(*parts) for parts in zip(inputs, weights, biases, strict=True))
    mask = _merge_masks(attn_mask, key_padding_mask, q)
    mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout_p if training else 0.0)
    joined = mixed.permute(2, 0, 1, 3).flatten(2)
    return F.linear(joined, out_proj_weight, out_proj_bias)


def wants_weights(*args, **kwargs) -> str:
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
