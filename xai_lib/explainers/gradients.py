"""Explanations by the gradient at the input, once or along a path.

The input x is the pixels (batch, channels, H, W), summed over channels c, or the embeddings of a
text (batch, tokens, dim), summed over c = dim: one number a pixel or token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from xai_lib.errors import OptionError, unknown_name
from xai_lib.explainers.mixing import accumulation_dtype
from xai_lib.explainers.output import Output
from xai_lib.explainers.registry import explainer
from xai_lib.explainers.signs import DIRECTION, MAGNITUDE, non_negative, signed
from xai_lib.explainers.steps import step
from xai_lib.options import check_range
from xai_lib.passes.call import Call
from xai_lib.passes.refusals import no_influence

QUADRATURES = ("gauss_legendre", "trapezoid")

# So many steps as the sum needs, to be at most this share from what the score gained.
AUTO, CLOSED = "auto", 0.01
DOUBLED = (8, 16, 32, 64, 128, 256, 512)

Reduction = Callable[[Tensor, int], Tensor]

REDUCTIONS: dict[str, Reduction] = {
    "max_abs": lambda g, dim: g.abs().amax(dim),
    "sum": lambda g, dim: g.sum(dim),
    "l2": lambda g, dim: g.square().sum(dim).sqrt(),
}
PRODUCT_REDUCTIONS: dict[str, Reduction] = {
    "sum": lambda g, dim: g.sum(dim),
    "l2sq": lambda g, dim: g.square().sum(dim),
}


@explainer(
    "gradient",
    family="gradient",
    cite="simonyan2014",
    sign=MAGNITUDE.but(DIRECTION, reduce="sum"),
    needs=("gradient",),
    streams="apart",
)
def gradient(call: Call, *, reduce: str = "max_abs") -> Output:
    """Saliency: max_c |∂logit/∂x_c| (`reduce` over channels: "max_abs", "sum", "l2")."""
    reduction = _reduction(reduce, REDUCTIONS)
    grads, _ = _at_input(call)
    return Output.at_input(call, reduction(grads, call.channel))


@explainer(
    "gradient_x_input",
    family="gradient",
    cite="shrikumar2017",
    sign=signed(
        "the first-order contribution to the logit; a negative score lowers the logit of the class"
    ).but(
        non_negative(
            "the squared length of gradient times input; for or against the class is not told apart"
        ),
        reduce="l2sq",
    ),
    needs=("gradient",),
    streams="apart",
)
def gradient_x_input(call: Call, *, reduce: str = "sum", seed: str = "one") -> Output:
    """Gradient times input: Σ_c x_c · ∂logit/∂x_c.

    reduce="l2sq": Σ_c (x_c · ∂logit/∂x_c)², as Wu & Ong (2021) take it on BERT's embeddings; seed:
    "one", or as their code "logit", which weights the gradient by the logit itself.
    """
    reduction = _reduction(reduce, PRODUCT_REDUCTIONS)
    grads, x = _at_input(call, seed)
    return Output.at_input(call, reduction(grads * x.detach(), call.channel))


@explainer(
    "integrated_gradients",
    family="gradient",
    cite="sundararajan2017",
    sign=signed(
        "scores add up to the logit minus that of the baseline; a negative score lowers the logit "
        "of the class"
    ).but(
        signed(
            "the sum of the gradient's components, averaged on the way from the baseline and not "
            "times the input; a negative score alone says nothing of evidence against the class"
        ),
        compat="reference",
    ),
    needs=("gradient", "20 backward passes"),
    streams="apart",
)
def integrated_gradients(
    call: Call,
    *,
    steps: int | str = 20,
    baseline: float | Shaped[Tensor, "..."] = 0.0,
    quadrature: str = "gauss_legendre",
    chunk: int = 8,
) -> Output:
    """Integrated gradients: Σ_c (x - x')_c ∫₀¹ ∂logit/∂x_c (x' + α(x - x')) dα.

    Complete: the sum is logit(x) - logit(x') up to the quadrature ("gauss_legendre", "trapezoid");
    how far it is from that, as a share, is in `att.checks["completeness"]`. steps="auto" doubles
    the points of the integral until that is at most 1 % for every sample (or there are 512).
    A point without a score adds nothing: the zero vector of a CLIP without biases has no direction.
    baseline x': a number or a tensor that broadcasts to x; for images in normalised pixel units,
    where 0 is the mean colour of the training set, for texts in units of the embeddings.
    compat="reference" gives what Beyond Intuition's `generate_ig` does: mean_k α_k ∂logit(α_k x),
    not times the input.
    """
    counts = _counts(steps)
    check_range("chunk", chunk, 1, 100_000, "samples per forward pass.")
    if quadrature not in QUADRATURES:
        raise unknown_name("quadrature", quadrature, QUADRATURES)
    call.forward(graph="as_is", keep=False)
    x = call.features
    start = torch.as_tensor(baseline, dtype=x.dtype, device=x.device).detach()
    shapes = [(), x.shape[1:], x.shape]
    if not call.at_pixels:
        shapes.append(x.shape[2:])
    if start.shape not in shapes or not start.isfinite().all():
        raise OptionError(
            f"baseline has shape {tuple(start.shape)} or holds NaN or Inf; expected a finite "
            f"number, or finite numbers of shape {tuple(x.shape[1:])} or {tuple(x.shape)}."
        )
    path = x - start

    def integral(count: int) -> Tensor:
        alphas, weights = step(call, "integrated_gradients.nodes", nodes)(quadrature, count)

        def scaled() -> Iterator[tuple[Tensor, Tensor]]:
            for part in call.chunks(count, chunk):
                yield torch.cat([start + a * path for a in alphas[part]]), weights[part]

        mean = _weighted_gradients(call, scaled())
        times = step(call, "integrated_gradients.times", path)
        return (mean * times).sum(call.channel)

    # The published sum is not times the input, and complete to nothing.
    gained = None if call.reference else _gained(call, x, start)
    for count in counts:
        found = integral(count)
        apart = _incomplete(found, gained)
        if apart is not None:
            call.checks["completeness"] = apart
        if apart is None or apart <= CLOSED:
            break
    return Output.at_input(call, found)


@explainer(
    "smoothgrad",
    family="gradient",
    cite="smilkov2017",
    sign=MAGNITUDE.but(DIRECTION, reduce="sum"),
    needs=("gradient", "20 backward passes"),
    streams="apart",
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

    The noise's deviation is `noise` times each sample's range; every sample of a batch gets the
    same draws of `seed`, so that it does not matter which others are explained with it.
    """
    check_range("samples", samples, 1, 100_000, "noisy copies.")
    check_range("seed", seed, 0, 2**63 - 1, "where the draws start.")
    if not 0 <= noise < float("inf"):
        raise OptionError(f"noise is {noise!r}; expected a number of at least 0, such as 0.15.")
    check_range("chunk", chunk, 1, 100_000, "samples per forward pass.")
    reduction = _reduction(reduce, REDUCTIONS)
    call.forward(graph="as_is", keep=False)
    x = call.features
    spread = noise * _range(call, x)
    draws = _draws(call, x, samples, seed)

    def noisy() -> Iterator[tuple[Tensor, Tensor]]:
        weights = torch.full((samples,), 1 / samples, dtype=torch.float64)
        for part in call.chunks(samples, chunk):
            yield torch.cat([x + spread * draw for draw in draws[part]]), weights[part]

    mean = _weighted_gradients(call, noisy())
    return Output.at_input(call, reduction(mean, call.channel))


@explainer(
    "gradient_sensitivity",
    family="gradient",
    cite="wu2021",
    sign=MAGNITUDE,
    needs=("gradient",),
    streams="apart",
)
def gradient_sensitivity(call: Call, *, seed: str = "one") -> Output:
    """Gradient sensitivity: ‖∂logit/∂x‖², the squared norm over a token's (or pixel's) dimensions.

    seed: "one"; "logit" weights the gradient by the logit, as one half of the code of Wu & Ong
    (2021) does.
    """
    grads, _ = _at_input(call, seed)
    grads = grads.to(accumulation_dtype(grads))
    return Output.at_input(call, grads.square().sum(call.channel))


def _counts(steps: int | str) -> tuple[int, ...]:
    """Return the numbers of points to try, one after the other."""
    if steps == AUTO:
        return DOUBLED
    return (check_range("steps", steps, 2, 10_000, f"points of the integral, or {AUTO!r}."),)


def _gained(call: Call, x: Tensor, start: Tensor) -> Tensor:
    """Return score(x) - score(x') of each target, (targets, batch)."""
    with torch.no_grad():
        run = call.forward(start.expand_as(x).contiguous(), graph="as_is", keep=False)
    change = call.run.logits.detach() - run.logits.detach()
    return call.each_target(call.run, lambda seed: (change * seed).sum(1))


def _incomplete(found: Tensor, gained: Tensor | None) -> float | None:
    """Return how far sums are from what the score gained, as a share; None where none is known."""
    if gained is None or not gained.isfinite().all():
        return None
    apart = found.flatten(2).sum(2).to(gained) - gained
    return float((apart.abs() / gained.abs().clamp(min=1e-12)).max())


def _range(call: Call, x: Tensor) -> Tensor:
    """Return max - min of each sample, (batch, 1, ...); padding does not count."""
    absent = None if call.present is None else ~call.present.unsqueeze(-1)
    high = x if absent is None else x.masked_fill(absent, -torch.inf)
    low = x if absent is None else x.masked_fill(absent, torch.inf)
    dims = tuple(range(1, x.dim()))
    return high.amax(dims, keepdim=True) - low.amin(dims, keepdim=True)


def _draws(call: Call, x: Tensor, samples: int, seed: int) -> Tensor:
    """Return standard normal draws (samples, ...) that broadcast to x, equal for all samples.

    Those of a text go by the token's place in it, so that padding changes nothing.
    """
    generator = torch.Generator()

    def drawn(shape: tuple[int, ...], number: int) -> Tensor:
        generator.manual_seed(number)
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    if call.present is None:
        return drawn((samples, *x.shape[1:]), seed).to(x)
    place = call.present.long().cumsum(1).sub(1).clamp(min=0)
    # Far apart, so that neighbouring seeds share no draws.
    starts = [(seed * 1_000_003 + i) % 2**63 for i in range(int(place.max()) + 1)]
    by_place = [drawn((samples, x.shape[-1]), start) for start in starts]
    # Padding gets none: a convolution would carry it to the text.
    return torch.stack(by_place, 1).to(x)[:, place] * call.present.unsqueeze(-1)


def _at_input(call: Call, seed: str = "one") -> tuple[Tensor, Tensor]:
    """Return ∂logit/∂x per target, (targets, batch, ...), and x."""
    run = call.forward(at_input=True, graph="as_is", keep=False)
    grads = call.each_target(run, lambda s: run.gradients([run.taken], s)[0], seed)
    return grads, run.taken


def _weighted_gradients(call: Call, copies: Iterator[tuple[Tensor, Tensor]]) -> Tensor:
    """Return Σ_k w_k ∂logit/∂x at each of the copies: (targets, batch, ...)."""
    total: Tensor | None = None
    for batch, weights in copies:
        run = call.forward(batch.requires_grad_(), graph="as_is", keep=False)
        grads = call.each_target(run, lambda seed, run=run: run.gradients([run.taken], seed)[0])
        undefined = run.undefined.view(-1, *[1] * (run.taken.dim() - 1))
        grads = grads.masked_fill(undefined, 0).unflatten(1, (len(weights), -1))
        part = torch.einsum("k,tkb...->tb...", weights.to(grads), grads)
        total = part if total is None else total + part
    assert total is not None, "a path has at least one point"
    if not (total != 0).flatten(2).any(2).all():
        raise no_influence()
    return total


def nodes(quadrature: str, steps: int) -> tuple[Float[Tensor, " points"], Float[Tensor, " points"]]:
    """Return the points in [0, 1] and weights of a quadrature rule."""
    if quadrature == "gauss_legendre":
        x, w = np.polynomial.legendre.leggauss(steps)
        return torch.from_numpy((x + 1) / 2), torch.from_numpy(w / 2)
    even = torch.linspace(0, 1, steps, dtype=torch.float64)
    weights = torch.full((steps,), 1 / (steps - 1), dtype=torch.float64)
    weights[[0, -1]] /= 2
    return even, weights


def _reduction(name: str, known: dict[str, Reduction]) -> Reduction:
    if name not in known:
        raise unknown_name("reduce", name, known)
    return known[name]
