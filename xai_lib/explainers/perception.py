"""Beyond Intuition: attention perception times reasoning feedback (Chen et al., TMLR 2023)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from xai_lib.errors import MethodNotApplicableError, unknown_name
from xai_lib.explainers.mixing import Mixer, accumulation_dtype, head_mean
from xai_lib.explainers.output import Output
from xai_lib.explainers.reading import check_start, mean_of_rows, readout_rows
from xai_lib.explainers.registry import explainer
from xai_lib.explainers.signs import POSITIVE_PART
from xai_lib.explainers.steps import step
from xai_lib.options import check_range
from xai_lib.passes.call import Call
from xai_lib.rules import gemm
from xai_lib.tracing import Site

FEEDBACK = ("ig", "gradient", "none")


@explainer(
    "bi_head",
    family="attention x gradient",
    cite="chen2023",
    sign=POSITIVE_PART,
    needs=("gradient", "20 forward passes"),
)
def bi_head(
    call: Call,
    *,
    steps: int = 20,
    start_layer: int | None = None,
    feedback: str = "ig",
    readout: int | None = None,
    chunk: int = 8,
) -> Output:
    """Head-wise Beyond Intuition: R ← R + (Σ_h I_h A_h) R, then W ⊙ R (Ours-H).

    I_h = mean|A_hᵀ∇A_h|, normalised to Σ_h I_h = 1. W = E_h[(mean_α ∇A(αx))⁺] over the last layer
    is the integrated gradient with `steps` points from 0 to 1 that scale the pixels, or a text's
    embeddings. start_layer defaults to the published one: for images a quarter of the depth (the
    fourth of twelve layers), for texts the last layer.
    """
    _check_options(steps, feedback, chunk)
    last_alone = start_layer is None and call.embedded
    if last_alone:
        run = call.forward(graph="last")
    else:
        run = call.forward(graph="sites", first_site=start_layer or 0)
    call.require_token_sites(run)
    call.require_distributions(run)
    depth = len(run.sites)
    if last_alone:
        start = depth - 1
    else:
        start = _start(call, depth // 4 if start_layer is None else start_layer, depth)
    sites, kept = run.sites[start:], step(call, "bi_head.kept", _present)(call)
    over = step(call, "bi_head.normalised_over", 1)
    if not sites:
        return Output(run.logits.new_zeros(*call.targets.shape[:2], call.layout(run).tokens))

    def explain(seed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        *grads, at_output = run.gradients([*(s.probs for s in sites), sites[-1].output], seed)
        mixer = Mixer()
        for site in run.sites[:start]:
            mixer.skip(site)
        maps = (_by_head_importance(s, g, kept, over) for s, g in zip(sites, grads, strict=True))
        R = mixer.mix(sites, maps).sequence
        return R, grads[-1], readout_rows(at_output, readout)

    found = [explain(call.seed(target, run.logits)) for target in call.targets]
    return _with_feedback(call, found, steps, feedback, chunk)


@explainer(
    "bi_token",
    family="attention x gradient",
    cite="chen2023",
    sign=POSITIVE_PART,
    needs=("gradient", "20 forward passes"),
)
def bi_token(
    call: Call,
    *,
    steps: int = 20,
    start_layer: int | None = None,
    feedback: str = "ig",
    readout: int | None = None,
    chunk: int = 8,
) -> Output:
    """Token-wise Beyond Intuition: R ← R + E_h[A] diag(‖W_o v_j‖/‖z_j‖) R, then W ⊙ R (Ours-T).

    v_j are token j's values, heads joined, W_o the output projection (with LayerScale, without
    bias) and z_j the block's input. start_layer defaults to the published one: for images the sixth
    of twelve layers, for texts the last four layers.
    """
    _check_options(steps, feedback, chunk)
    seen: list[Tensor] = []
    weighted_map = step(call, "bi_token.map", _by_value_norm)
    run = call.forward(graph="last", on_site=lambda site: seen.append(weighted_map(call, site)))
    call.require_token_sites(run)
    depth = len(seen)
    published = max(depth - 4, 0) if call.embedded else round(depth * 5 / 12)
    start = _start(call, published if start_layer is None else start_layer, depth)
    mixer = Mixer()
    mixer.advance(torch.zeros_like(seen[0]))
    for weighted in seen[start:]:
        mixer.advance(weighted)
    last = run.sites[-1]

    def explain(seed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        grad, at_output = run.gradients([last.probs, last.output], seed)
        return mixer.sequence, grad, readout_rows(at_output, readout)

    found = [explain(call.seed(target, run.logits)) for target in call.targets]
    return _with_feedback(call, found, steps, feedback, chunk)


def _present(call: Call) -> Tensor | None:
    """Return 1 for tokens, 0 for padding, (batch, 1, 1, keys); None where nothing is left out."""
    present = call.present if call.embedded else None
    return None if present is None else present[:, None, None]


def _by_head_importance(site: Site, grad: Tensor, kept: Tensor | None, over) -> Tensor:
    """Return Σ_h I_h A_h (batch, queries, keys), I normalised over the dimensions `over`."""
    A, G = (x.detach().to(accumulation_dtype(x)) for x in (site.probs, grad))
    G = G if kept is None else G * kept
    importance = (A.transpose(-1, -2) @ G).abs().mean((-2, -1))
    total = importance.sum(over, keepdim=True)
    # Where no head matters, none does: 0/0 would make the whole map NaN.
    importance = importance / total.masked_fill(total == 0, 1)
    return torch.einsum("bh,bhqk->bqk", importance, A)


def _by_value_norm(call: Call, site: Site) -> Tensor:
    """Return E_h[A] diag(‖W_o v_j‖ / ‖z_j‖) (batch, queries, keys)."""
    value, residual = site.value.detach(), site.residual
    if site.projection is None or residual is None or site.queries != site.keys:
        raise MethodNotApplicableError(
            "bi_token needs each site's output projection and a residual connection over the same "
            f"tokens, which {site.name!r} lacks."
        )
    residual = residual.transpose(0, 1) if site.sequence_first else residual
    moved = gemm.linear(joined_heads(value), site.projection.detach().to(value.dtype))
    if site.branch_scale is not None:
        moved = moved * site.branch_scale
    return weighted_by(head_mean(site), moved, residual.detach())


def joined_heads(
    x: Float[Tensor, "batch heads tokens width"],
) -> Float[Tensor, "batch tokens dim"]:
    """Return (batch, tokens, dim) of (batch, heads, tokens, width)."""
    return x.detach().transpose(1, 2).flatten(2)


def weighted_by(
    A: Float[Tensor, "batch queries keys"],
    moved: Float[Tensor, "batch keys _"],
    z: Float[Tensor, "batch keys _"],
) -> Float[Tensor, "batch queries keys"]:
    """Return A diag(‖moved_j‖ / ‖z_j‖)."""
    size = z.norm(dim=-1)
    # DeBERTa makes the embeddings of padding zero: no token, no share.
    ratio = (moved.norm(dim=-1) / size).masked_fill(size == 0, 0)
    return A * ratio.to(A.dtype).unsqueeze(1)


def _with_feedback(call: Call, found, steps: int, feedback: str, chunk: int) -> Output:
    """Multiply each target's perception R by its reasoning feedback W, in the readout rows."""
    if feedback == "none":
        return Output(torch.stack([mean_of_rows(R, rows) for R, _, rows in found]))
    sums = [grad for _, grad, _ in found]
    if feedback == "ig":
        # The unscaled input is the last of the steps and is known already.
        alphas = torch.linspace(0, 1, steps, dtype=torch.float64)[:-1].tolist()
        for part in call.chunks(len(alphas), chunk):
            for number, grad in enumerate(_scaled_gradients(call, alphas[part])):
                sums[number] = sums[number] + grad
        sums = [total / steps for total in sums]
    relevances = []
    for (R, _, rows), mean_grad in zip(found, sums, strict=True):
        W = mean_grad.to(accumulation_dtype(mean_grad)).clamp(min=0).mean(1)
        width = W.shape[1]
        relevances.append(mean_of_rows(W * R[:, :width], rows))
    return Output(torch.stack(relevances))


def _nothing(call: Call, x: Tensor) -> float:
    """Return what of the features x is not scaled."""
    return 0.0


def _scaled_gradients(call: Call, alphas: list[float]) -> Iterator[Tensor]:
    """Yield, per target, Σ_α ∂logit/∂A at αx of the last site: (batch, heads, queries, keys).

    Where the score is undefined, as it can be at α = 0, it counts as without a gradient.
    """
    x = call.features
    still = step(call, "bi.still", _nothing)(call, x)
    scaled = torch.cat([still + (x - still) * alpha for alpha in alphas])
    run = call.forward(scaled, graph="last", fused=len(call.run.trace.shapes) - 1)
    probs = run.sites[-1].probs
    undefined = run.undefined.view(-1, *[1] * (probs.dim() - 1))
    for target in call.targets:
        (grad,) = run.gradients([probs], call.seed(target, run.logits))
        grad = grad.masked_fill(undefined, 0)
        yield grad.unflatten(0, (len(alphas), -1)).sum(0)


def _start(call: Call, start_layer: int, depth: int) -> int:
    return step(call, "bi.start", check_start)(start_layer, depth)


def _check_options(steps: int, feedback: str, chunk: int) -> None:
    check_range("steps", steps, 2, 10_000, "points of the integral, both ends included.")
    check_range("chunk", chunk, 1, 100_000, "samples per forward pass.")
    if feedback not in FEEDBACK:
        raise unknown_name("feedback", feedback, FEEDBACK)
