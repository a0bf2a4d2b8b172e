"""How a layer forms the features that decide: the model's head on the tokens of every layer."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from xai_lib.errors import MethodNotApplicableError
from xai_lib.explainers.mixing import positive_head_mean
from xai_lib.explainers.output import Output
from xai_lib.explainers.reading import check_start
from xai_lib.explainers.registry import explainer
from xai_lib.explainers.signs import POSITIVE_PART
from xai_lib.passes.call import Call


@explainer(
    "legrad",
    family="attention x gradient",
    cite="bousselham2025",
    sign=POSITIVE_PART,
    needs=("gradient", "a backward pass through one block per layer"),
)
def legrad(call: Call, *, start_layer: int = 0) -> Output:
    """LeGrad: R = mean over layers l, heads and queries of (∂s_l/∂A_l)⁺ (ICCV 2025, section 3).

    s_l is the logit that the model's own head gives to the tokens after layer l, and A_l that
    layer's attention (heads, queries, keys); queries that are padding ask nothing. Layers before
    start_layer do not count. The map is neither min-maxed nor cut to the patches.
    """
    run = call.forward(graph="sites", taped=True)
    call.require_token_sites(run)
    check_start(start_layer, len(run.sites))
    if any(site.queries != site.keys for site in run.sites):
        raise MethodNotApplicableError(
            "'legrad' puts the model's head on the tokens of every layer, and this model pools its "
            "tokens, or lets class tokens join, by an attention of its own."
        )
    # The last layer's tokens are those that the model gave its head.
    layers = list(zip(run.sites, [*run.states, None], strict=True))[start_layer:]
    asking = call.present

    def explain(target: Tensor) -> Tensor:
        total = torch.zeros((), device=run.logits.device)
        for site, tokens in layers:
            early = run if tokens is None else replace(run, logits=run.head(tokens))
            (grad,) = early.gradients([site.probs], call.seed(target, early.logits))
            total = total + _mean_of_queries(positive_head_mean(grad), asking)
        return total / len(layers)

    return Output(torch.stack([explain(target) for target in call.targets]))


def _mean_of_queries(maps: Tensor, asking: Tensor | None) -> Tensor:
    """Return the mean over the queries of (batch, queries, keys) that are no padding."""
    if asking is None:
        return maps.mean(1)
    weights = asking.to(maps.dtype)
    return torch.einsum("bq,bqk->bk", weights / weights.sum(1, keepdim=True), maps)
