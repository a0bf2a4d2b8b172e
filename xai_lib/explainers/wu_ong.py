"""The methods of Wu & Ong (2021, arXiv 2101.00196), on texts and images alike.

Their fourth, the squared norm of gradient x input, is `gradient_x_input` with reduce="l2sq".
"""

from __future__ import annotations

import torch
from torch import Tensor

from xai_lib.errors import MethodNotApplicableError, OptionError, unknown_name
from xai_lib.explainers.lrp import to_input
from xai_lib.explainers.mixing import accumulation_dtype, readout_rows
from xai_lib.explainers.output import Output
from xai_lib.explainers.published.wu_ong import VARIANTS, PublishedLRP
from xai_lib.explainers.registry import explainer
from xai_lib.explainers.signs import ATTENTION, MAGNITUDE, non_negative, signed
from xai_lib.passes.call import SEEDS, Call
from xai_lib.rules.alpha_beta import AlphaBeta
from xai_lib.rules.gate import Switch
from xai_lib.rules.recorded import Recorder
from xai_lib.tracing import Site

HEADS = ("separate", "all")
REDUCTIONS = {"abs_sum": torch.abs, "sum": lambda R: R}


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

    seed: "one"; "logit" weights the gradient by the logit, as one half of their code does.
    """
    run = call.forward(at_input=True, graph="as_is", keep=False)
    grads = call.each_target(run, lambda s: run.gradients([run.features], s)[0], seed)
    grads = grads.to(accumulation_dtype(grads))
    return Output.at_input(call, grads.square().sum(call.inputs.channel))


@explainer(
    "lrp_alpha_beta",
    family="LRP",
    cite="wu2021",
    sign=non_negative(
        "the summed size of the relevance of a token's embedding; for or against the class is not "
        "told apart"
    ).but(
        signed(
            "the token's share of what relevance starts from, by default the logit, whose sign all "
            "scores have for an alpha from 0 to 1: a negative score is not evidence against the "
            "class but a share of a negative logit"
        ),
        reduce="sum",
    ),
    needs=("relevance",),
    streams="apart",
)
def lrp_alpha_beta(
    call: Call,
    *,
    alpha: float = 0.5,
    seed: str = "logit",
    reduce: str = "abs_sum",
    variant: str = "quick",
) -> Output:
    """LRP by the alpha-beta rule with alpha + beta = 1: Σ_dim |R| per token (`rules.AlphaBeta`).

    Shares follow positive and negative contributions, weighted alpha and 1 - alpha; with alpha from
    0 to 1 all relevance has the sign of what it starts from: `seed` "logit", "prob" or "one".
    reduce: "abs_sum", or "sum", which keeps that sign and adds up to the seed, less the share of
    constants (a bias on attention scores, as in MPNet and T5).
    compat="reference" is the code of Wu & Ong, which differs (`published_wu_ong`), for BERT's
    layout; there alone `variant` "quick" or "jacobian" says how attention is passed.
    """
    if not 0 <= alpha < float("inf"):
        raise OptionError(f"alpha is {alpha!r}; expected a number of at least 0 (beta: 1 - alpha).")
    if seed not in SEEDS:
        raise unknown_name("seed", seed, SEEDS)
    if reduce not in REDUCTIONS:
        raise unknown_name("reduce", reduce, REDUCTIONS)
    if variant not in VARIANTS:
        raise unknown_name("variant", variant, VARIANTS)
    size = REDUCTIONS[reduce]
    if call.reference:
        return _published(call, alpha, seed, size, variant)
    run = call.forward(at_input=True, rules=AlphaBeta(Switch(), alpha=float(alpha)))
    start = SEEDS[seed](run.logits.detach())
    return to_input(call, run, lambda at, one: [size(R) for R in run.relevances(at, one * start)])


def _published(call: Call, alpha: float, seed: str, size, variant: str) -> Output:
    recorder = Recorder(Switch())
    run = call.forward(at_input=True, rules=recorder)
    call.require_token_sites(run)
    lrp = PublishedLRP(run, recorder, float(alpha), variant)
    return Output(call.each_target(run, lambda s: size(lrp.relevance(s)).sum(-1), seed))


@explainer("lat", family="attention", cite="wu2021", sign=ATTENTION, class_specific=False)
def lat(call: Call, *, heads: str = "separate", readout: int | None = None) -> Output:
    """Layerwise attention tracing: Σ_h e A_L^h ... A_1^h, e being 1 at the row the head reads.

    Every attention head traces back on its own ("separate"); heads="all" lets them mix between
    layers, Π_l E_h[A_l]. No residual connections; the scores add up to the last layer's number of
    heads in either case.
    """
    if heads not in HEADS:
        raise unknown_name("heads", heads, HEADS)
    maps: list[Tensor] = []
    counts: list[int] = []

    def visit(site: Site) -> None:
        probs = site.probs.detach()
        probs = probs.to(accumulation_dtype(probs))
        probs = probs if probs.dim() == 4 else probs.unsqueeze(1)
        maps.append(probs if heads == "separate" else probs.mean(1, keepdim=True))
        counts.append(site.heads)

    run = call.forward(graph="readout", keep=False, on_site=visit)
    call.require_token_sites(run)
    call.require_distributions(run)
    (grad,) = run.gradients([run.trace.readout], call.first_seed(run))
    if heads == "separate" and len(set(counts)) > 1:
        raise MethodNotApplicableError(
            f"The layers of this model have different numbers of heads ({sorted(set(counts))}), so "
            "that no head can be traced through all of them; heads='all' mixes them between layers."
        )
    rows = readout_rows(grad, readout).to(maps[-1])
    trace = (rows / rows.sum(1, keepdim=True).clamp(min=1)).unsqueeze(1)
    trace = trace.expand(-1, maps[-1].shape[1], -1) * (counts[-1] / maps[-1].shape[1])
    for probs in reversed(maps):
        if probs.shape[-2] != trace.shape[-1]:
            raise MethodNotApplicableError(
                f"A layer makes {probs.shape[-2]} tokens where the next attends to "
                f"{trace.shape[-1]}: tokens join or merge on the way, so none can be traced "
                "through; 'rollout' and 'generic_attention' follow class tokens that join late."
            )
        trace = (trace.unsqueeze(-2) @ probs).squeeze(-2)
    return Output.agnostic(call, trace.sum(1))
