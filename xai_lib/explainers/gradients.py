"""Explanations by the gradient at the pixels, once or along a path."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from xai_lib.errors import OptionError, unknown_name
from xai_lib.explainers.output import Output
from xai_lib.passes import Call
from xai_lib.registry import check_range, explainer

QUADRATURES = ("gauss_legendre", "trapezoid")

REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "max_abs": lambda g: g.abs().amax(-3),
    "sum": lambda g: g.sum(-3),
    "l2": lambda g: g.square().sum(-3).sqrt(),
}


@explainer("gradient", family="gradient", cite="simonyan2014", needs=("gradient",))
def gradient(call: Call, *, reduce: str = "max_abs") -> Output:
    """Saliency: max_c |∂logit/∂x_c| per pixel (`reduce` over channels: "max_abs", "sum", "l2")."""
    return Output(pixels=_reduction(reduce)(_at_pixels(call)))


@explainer("gradient_x_input", family="gradient", cite="shrikumar2017", needs=("gradient",))
def gradient_x_input(call: Call) -> Output:
    """Gradient times input: Σ_c x_c · ∂logit/∂x_c per pixel."""
    return Output(pixels=(_at_pixels(call) * call.inputs.pixels).sum(-3))


@explainer(
    "integrated_gradients",
    family="gradient",
    cite="sundararajan2017",
    needs=("gradient", "20 backward passes"),
)
def integrated_gradients(
    call: Call,
    *,
    steps: int = 20,
    baseline: float | Tensor = 0.0,
    quadrature: str = "gauss_legendre",
    chunk: int = 8,
) -> Output:
    """Integrated gradients: Σ_c (x - x')_c ∫₀¹ ∂logit/∂x_c (x' + α(x - x')) dα per pixel.

    Complete: the sum is logit(x) - logit(x') up to the quadrature ("gauss_legendre", "trapezoid").
    baseline x', a number, (channels, H, W) or (batch, channels, H, W), is in normalised pixel
    units, where 0 is the mean colour of the training set.
    compat="reference" gives what Beyond Intuition's `generate_ig` does: mean_k α_k ∂logit(α_k x),
    not times the input.
    """
    check_range("steps", steps, 2, 10_000, "points of the integral.")
    check_range("chunk", chunk, 1, 100_000, "images per forward pass.")
    if quadrature not in QUADRATURES:
        raise unknown_name("quadrature", quadrature, QUADRATURES)
    alphas, weights = _nodes("reference" if call.reference else quadrature, steps)
    pixels = call.inputs.pixels
    start = torch.as_tensor(baseline, dtype=pixels.dtype, device=pixels.device).detach()
    if start.shape not in ((), pixels.shape[1:], pixels.shape) or not torch.isfinite(start).all():
        raise OptionError(
            f"baseline has shape {tuple(start.shape)} or holds NaN or Inf; expected a finite "
            f"number, or finite numbers of shape {tuple(pixels.shape[1:])} or "
            f"{tuple(pixels.shape)}."
        )
    path = pixels - start
    call.forward(graph="as_is", keep=False)

    def scaled() -> Iterator[tuple[Tensor, Tensor]]:
        for part in call.chunks(steps, chunk):
            yield torch.cat([start + a * path for a in alphas[part]]), weights[part]

    mean = _weighted_gradients(call, scaled())
    return Output(pixels=(mean if call.reference else mean * path).sum(-3))


@explainer(
    "smoothgrad", family="gradient", cite="smilkov2017", needs=("gradient", "20 backward passes")
)
def smoothgrad(
    call: Call,
    *,
    samples: int = 20,
    noise: float = 0.15,
    seed: int = 0,
    reduce: str = "max_abs",
    chunk: int = 8,
) -> Output:
    """SmoothGrad: the gradient averaged over `samples` copies with Gaussian noise, then reduced.

    The noise's deviation is `noise` times each image's range; every image of a batch gets the same
    draws of `seed`, so that it does not matter which others are explained with it.
    """
    check_range("samples", samples, 1, 100_000, "noisy copies.")
    check_range("seed", seed, 0, 2**63 - 1, "where the draws start.")
    if not 0 <= noise < float("inf"):
        raise OptionError(f"noise is {noise!r}; expected a number of at least 0, such as 0.15.")
    check_range("chunk", chunk, 1, 100_000, "images per forward pass.")
    pixels = call.inputs.pixels
    spread = noise * (pixels.amax((1, 2, 3)) - pixels.amin((1, 2, 3))).reshape(-1, 1, 1, 1)
    generator = torch.Generator().manual_seed(seed)
    shape = (samples, *pixels.shape[1:])
    draws = torch.randn(shape, generator=generator, dtype=torch.float64).to(pixels)
    call.forward(graph="as_is", keep=False)

    def noisy() -> Iterator[tuple[Tensor, Tensor]]:
        weights = torch.full((samples,), 1 / samples, dtype=torch.float64)
        for part in call.chunks(samples, chunk):
            yield torch.cat([pixels + spread * draw for draw in draws[part]]), weights[part]

    return Output(pixels=_reduction(reduce)(_weighted_gradients(call, noisy())))


def _at_pixels(call: Call) -> Tensor:
    """Return ∂logit/∂x per target: (targets, batch, channels, H, W)."""
    run = call.forward(call.inputs.pixels.detach().requires_grad_(), graph="as_is", keep=False)
    return call.each_target(run, lambda seed: run.gradients([run.pixels], seed)[0])


def _weighted_gradients(call: Call, copies: Iterator[tuple[Tensor, Tensor]]) -> Tensor:
    """Return Σ_k w_k ∂logit/∂x at each of the copies: (targets, batch, channels, H, W)."""
    total: Tensor | float = 0.0
    for batch, weights in copies:
        run = call.forward(batch.requires_grad_(), graph="as_is", keep=False)
        grads = call.each_target(run, lambda seed, run=run: run.gradients([run.pixels], seed)[0])
        grads = grads.unflatten(1, (len(weights), -1))
        total = total + torch.einsum("k,tkb...->tb...", weights.to(grads), grads)
    return total


def _nodes(quadrature: str, steps: int) -> tuple[Tensor, Tensor]:
    """Return the points in [0, 1] and weights of a quadrature rule."""
    if quadrature == "gauss_legendre":
        x, w = np.polynomial.legendre.leggauss(steps)
        return torch.from_numpy((x + 1) / 2), torch.from_numpy(w / 2)
    even = torch.linspace(0, 1, steps, dtype=torch.float64)
    if quadrature == "reference":
        return even, even / steps
    weights = torch.full((steps,), 1 / (steps - 1), dtype=torch.float64)
    weights[[0, -1]] /= 2
    return even, weights


def _reduction(name: str) -> Callable[[Tensor], Tensor]:
    if name not in REDUCTIONS:
        raise unknown_name("reduce", name, REDUCTIONS)
    return REDUCTIONS[name]
