"""LRP by the alpha-beta rule with alpha + beta = 1, as Wu & Ong (arXiv 2101.00196) take it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from xai_lib.errors import OptionError, unknown_name
from xai_lib.explainers.lrp import to_input
from xai_lib.explainers.output import Output
from xai_lib.explainers.registry import explainer
from xai_lib.explainers.signs import non_negative, signed
from xai_lib.explainers.steps import step
from xai_lib.passes.call import SEEDS, Call
from xai_lib.rules.alpha_beta import AlphaBeta
from xai_lib.rules.gate import Switch

VARIANTS = ("quick", "jacobian")
Size = Callable[[Tensor], Tensor]
REDUCTIONS: dict[str, Size] = {"abs_sum": torch.abs, "sum": lambda R: R}


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
    constants.
    compat="reference" is the code of Wu & Ong, which differs (`published.wu_ong`), for BERT's
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
    return step(call, "lrp_alpha_beta", _by_rule)(call, alpha, seed, REDUCTIONS[reduce], variant)


def _by_rule(call: Call, alpha: float, seed: str, size: Size, variant: str) -> Output:
    run = call.forward(at_input=True, rules=AlphaBeta(Switch(), alpha=float(alpha)))
    start = SEEDS[seed](run.logits.detach())
    return to_input(call, run, lambda at, one: [size(R) for R in run.relevances(at, one * start)])
