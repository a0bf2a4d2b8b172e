"""Layerwise attention tracing (Wu & Ong 2021): attention followed back from layer to layer."""

from __future__ import annotations

from torch import Tensor

from xai_lib.errors import MethodNotApplicableError, unknown_name
from xai_lib.explainers.mixing import accumulation_dtype
from xai_lib.explainers.output import Output
from xai_lib.explainers.reading import Reader, readout_rows
from xai_lib.explainers.registry import explainer
from xai_lib.explainers.signs import ATTENTION
from xai_lib.passes.call import Call
from xai_lib.tracing import Site

HEADS = ("separate", "all")


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

    def see(site: Site) -> None:
        probs = site.probs.detach()
        probs = probs.to(accumulation_dtype(probs))
        probs = probs if probs.dim() == 4 else probs.unsqueeze(1)
        maps.append(probs if heads == "separate" else probs.mean(1, keepdim=True))
        counts.append(site.heads)

    reader, (grad,) = Reader.watching(call, see)
    call.require_distributions(reader.run)
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
                "through."
            )
        trace = (trace.unsqueeze(-2) @ probs).squeeze(-2)
    return Output.agnostic(call, trace.sum(1))
