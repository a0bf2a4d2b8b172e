"""The alpha-beta rule as the code of Wu & Ong (2021) has it, which differs from the published one.

Inputs are not split by their sign, so that denominators may cancel; biases take a share; and the
result's magnitude is rescaled per token, so that signs are lost. Kept to reproduce their numbers:
`xai_lib.rules.alpha_beta` is the published rule. All functions take (..., tokens, dim) tensors.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

STABILISER = 1e-7


def rescale(
    target: Float[Tensor, "*n outputs"], share: Float[Tensor, "*n inputs"]
) -> Float[Tensor, "*n inputs"]:
    """Return |share| with the sum over the last dimension that `target` has (signed), per row."""
    size = share.abs()
    wanted = target.sum(-1, keepdim=True) + STABILISER
    return size * (wanted / (size.sum(-1, keepdim=True) + STABILISER))


def linear_map(
    relevance: Float[Tensor, "*n tokens outputs"],
    x: Float[Tensor, "*n tokens inputs"],
    weight: Float[Tensor, "*#n outputs inputs"],
    bias: Float[Tensor, " outputs"] | None = None,
    alpha: float = 0.5,
    below: float = -STABILISER,
) -> Float[Tensor, "*n tokens inputs"]:
    """Return x · (α W⁺ᵀ(R/z⁺) + β W⁻ᵀ(R/z⁻)), rescaled; z⁺ = W⁺x + b⁺ + 1e-7, z⁻ likewise + below.

    weight: (..., out, in). For maps that differ from row to row the code adds 1e-7 to z⁻ as well.
    """
    bias = x.new_zeros(()) if bias is None else bias
    up, down = weight.clamp(min=0), weight.clamp(max=0)
    first = relevance / (x @ up.mT + bias.clamp(min=0) + STABILISER)
    second = relevance / (x @ down.mT + bias.clamp(max=0) + below)
    return rescale(relevance, x * (alpha * (first @ up) + (1 - alpha) * (second @ down)))


def attention(
    relevance: Float[Tensor, "*n tokens dim"],
    q: Float[Tensor, "*n tokens dim"],
    k: Float[Tensor, "*n tokens dim"],
    v: Float[Tensor, "*n tokens dim"],
    mask: Bool[Tensor, "*#n #tokens tokens"],
    alpha: float = 0.5,
) -> tuple[
    Float[Tensor, "*n tokens dim"], Float[Tensor, "*n tokens dim"], Float[Tensor, "*n tokens dim"]
]:
    """Return the relevance of q, k and v of heads softmax(qkᵀ/√d)v, each (..., tokens, d).

    The code linearises a head by its Jacobian J and gives each input i the share
    Σ_o R_o (α (J_oi x_i)⁺/Σ_o' (J_o'i x_i)⁺ + β (J_oi x_i)⁻/Σ_o' (J_o'i x_i)⁻): normalised over the
    outputs, not over the inputs as the rule has it. Then Σ|R| of a head is kept. J is never built:
    with A the attention and o the output, J_v = A, and J_k, J_q follow from A_ij (v_jd - o_id).
    mask (..., 1 or tokens, tokens): True where a key may be attended to. Its additive form is taken
    for one of zeros and ones there, so that -1e9 is added to all that is kept.
    """
    root = q.shape[-1] ** 0.5
    scores = (q @ k.mT) / root - 1e9
    a = scores.masked_fill(~mask, float("-inf")).softmax(-1)
    # (..., query, key, d): how much the output moves with a score, ∂o_id/∂s_ij.
    slope = a.unsqueeze(-1) * (v.unsqueeze(-3) - (a @ v).unsqueeze(-2)) / root

    def over_outputs(z: Tensor, r: Tensor, dim: int | tuple[int, ...]) -> Tensor:
        """Σ_o of r times the share of each z among its sign, over the output dimensions."""
        up, down = z.clamp(min=0), z.clamp(max=0)
        first = (up * r).sum(dim) / (up.sum(dim) + STABILISER)
        return alpha * first + (1 - alpha) * (down * r).sum(dim) / (down.sum(dim) - STABILISER)

    # Axes of z: (query, key, d) for v, (query, d, e) for q; sums run over the outputs' axes.
    of_v = over_outputs(a.unsqueeze(-1) * v.unsqueeze(-3), relevance.unsqueeze(-2), -3)
    by_query = slope.mT @ k.unsqueeze(-3)
    of_q = over_outputs(by_query * q.unsqueeze(-2), relevance.unsqueeze(-1), -2)
    # For k both query and d are outputs, and z = slope · q_e k_e: signs of both factors decide.
    of_k = _of_keys(relevance, slope, q, k, alpha)
    total = sum(x.abs().sum((-1, -2), keepdim=True) for x in (of_q, of_k, of_v)) + STABILISER
    kept = relevance.abs().sum((-1, -2), keepdim=True) / total
    return of_q * kept, of_k * kept, of_v * kept


def _of_keys(relevance: Tensor, slope: Tensor, q: Tensor, k: Tensor, alpha: float) -> Tensor:
    """The keys' share in `attention`: Σ over queries i and d of slope_ijd q_ie k_je by its sign."""
    up, down = slope.clamp(min=0), slope.clamp(max=0)
    r = relevance.unsqueeze(-2)
    # Sums over d first, (query, key); then over queries by the sign of q.
    slopes = [(up.sum(-1), (up * r).sum(-1)), (down.sum(-1), (down * r).sum(-1))]
    queries = [q.clamp(min=0), q.clamp(max=0)]
    (same, same_r), (other, other_r) = (
        [
            slopes[0][part].mT @ queries[first] + slopes[1][part].mT @ queries[1 - first]
            for part in (0, 1)
        ]
        for first in (0, 1)
    )
    # `same`: slope · q > 0; the key's own sign tells which of both is the positive part.
    swap = k < 0
    up, up_r = torch.where(swap, other, same) * k, torch.where(swap, other_r, same_r) * k
    down, down_r = torch.where(swap, same, other) * k, torch.where(swap, same_r, other_r) * k
    return alpha * up_r / (up + STABILISER) + (1 - alpha) * down_r / (down - STABILISER)
