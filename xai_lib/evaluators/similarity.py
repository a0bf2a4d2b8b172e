"""How alike two relevance maps are: rank correlation and structural similarity, a number a map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from xai_lib.errors import InputError

WINDOW, K1, K2 = 7, 0.01, 0.03
# Enlarging a constant map leaves differences of this order, which are no ranking.
_ROUNDING = 1e-12


def is_constant(maps: Float[Tensor, "n ..."]) -> Bool[Tensor, " n"]:
    """Say of each map whether all its values are equal, up to float64 rounding; NaN is not."""
    flat = maps.flatten(1)
    return flat.amax(1) - flat.amin(1) <= _ROUNDING * flat.abs().amax(1)


def errors_with_constant(
    errors: Sequence[str | None], maps: Float[Tensor, "n ..."], reason: str
) -> list[str | None]:
    """Return the errors of maps, with `reason` where there was none and a map is constant."""
    same = is_constant(maps).tolist()
    return [e or (reason if flat else None) for e, flat in zip(errors, same, strict=True)]


def mean_ranks(maps: Float[Tensor, "n ..."]) -> Float[Tensor, "n d"]:
    """Return the rank of every value in its map, from 0; equal values share their mean rank."""
    flat = maps.flatten(1).contiguous()
    ordered = flat.sort(1).values
    below = torch.searchsorted(ordered, flat)
    not_above = torch.searchsorted(ordered, flat, right=True)
    return (below + not_above - 1).double() / 2


def correlation(a: Float[Tensor, "*n d"], b: Float[Tensor, "*n d"]) -> Float[Tensor, "*n"]:
    """Return Pearson's cov(a, b) / (σ_a σ_b) along the last dimension; NaN where σ is 0."""
    a, b = (x - x.mean(-1, keepdim=True) for x in (a, b))
    scale = (a.square().sum(-1) * b.square().sum(-1)).sqrt()
    return ((a * b).sum(-1) / scale).clamp(-1, 1)


def spearman(a: Float[Tensor, "n ..."], b: Float[Tensor, "n ..."]) -> Float[Tensor, " n"]:
    """Return Spearman's rank correlation of each map of `a` with its map of `b`, in float64.

    Pearson's correlation of the ranks, ties at their mean rank (Spearman 1904). A constant map has
    no ranking, and a map with NaN none either: NaN.
    """
    found = correlation(mean_ranks(a), mean_ranks(b))
    no_ranking = [is_constant(x) | x.isnan().flatten(1).any(1) for x in (a, b)]
    return found.masked_fill(no_ranking[0] | no_ranking[1], torch.nan)


def ssim(a: Float[Tensor, "n h w"], b: Float[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """Return the mean structural similarity of maps with values in [0, 1], in float64.

    SSIM = (2 μ_a μ_b + C1)(2 σ_ab + C2) / ((μ_a² + μ_b² + C1)(σ_a² + σ_b² + C2)) in every full
    window of 7 x 7 equal weights, C1 = 0.01², C2 = 0.03², variances by N - 1 (Wang et al. 2004,
    eq. 13, with scikit-image's default window). Raises InputError for maps below 7 x 7.
    """
    if min(a.shape[-2:]) < WINDOW:
        raise InputError(
            f"Maps of {a.shape[-2]} x {a.shape[-1]} are smaller than SSIM's window of "
            f"{WINDOW} x {WINDOW}; expected maps of the image's size."
        )
    a, b = a.double(), b.double()
    stacked = torch.stack((a, b, a * a, b * b, a * b), 1)
    mean_a, mean_b, *squares = F.avg_pool2d(stacked, WINDOW, stride=1).unbind(1)
    unbiased = WINDOW**2 / (WINDOW**2 - 1)
    products = (mean_a * mean_a, mean_b * mean_b, mean_a * mean_b)
    var_a, var_b, cov = (unbiased * (s - p) for s, p in zip(squares, products, strict=True))
    c1, c2 = K1**2, K2**2
    structure = (2 * cov + c2) / (var_a + var_b + c2)
    luminance = (2 * products[2] + c1) / (products[0] + products[1] + c1)
    return (luminance * structure).mean((-2, -1))
