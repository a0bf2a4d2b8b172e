"""One forward pass over one input: its logits, and what each head of each layer looks at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xai_lib.errors import MethodNotApplicableError
from xai_lib.explainers.reading import readout_rows
from xai_lib.passes.call import Call
from xai_lib.passes.loan import borrowed, unwrap
from xai_lib.streams.layouts import Layout
from xai_lib.streams.patches import TokenLayout
from xai_lib.streams.prepare import prepare
from xai_lib.streams.scales import SOFTMAX, Scale, scale_of
from xai_lib.streams.targets import resolve_all
from xai_lib.tracing import Site


@dataclass(frozen=True)
class Reading:
    """What one forward pass says of one input.

    logits: (classes,). layout: where the tokens of the only stream lie. heads: per layer, the
    attention to these tokens (heads, tokens) in the rows that the prediction reads, averaged over
    these rows. refusal: why `heads` is empty. several: whether there are several streams, for which
    raw attention is one of the methods, so that `heads` is empty too. scale: what the logits are.
    """

    logits: Tensor
    layout: Layout | None = None
    heads: tuple[Tensor, ...] = ()
    refusal: str = ""
    several: bool = False
    scale: Scale = SOFTMAX

    def attention(self, layer: int, head: int | None) -> Tensor:
        """Return one head's attention to the tokens, or the mean over heads: (tokens,)."""
        maps = self.heads[layer]
        return maps.mean(0) if head is None else maps[head]


@torch.inference_mode(False)
def read(model: nn.Module, inputs) -> Reading:
    """Read one input, as the processor returns it. Raises what `xai.explain` does, but refusals.

    Only the rows that the prediction reads are kept: layers·heads·tokens numbers, not tokens².
    """
    model = unwrap(model)
    prepared = prepare(model, inputs)

    def scores() -> Tensor:
        with torch.no_grad():
            return prepared.scores(model)

    def only(found: Tensor, **known) -> Reading:
        scale = scale_of(model, found.detach(), scores)
        return Reading(found[0].detach().float(), scale=scale, **known)

    call = Call(model, prepared, lambda logits: resolve_all(None, None, logits, None))
    maps: list[Tensor] = []
    with borrowed(model):
        if prepared.several:
            return only(scores(), several=True)
        try:
            run = call.forward(graph="readout", keep=False, on_site=lambda s: maps.append(_of(s)))
            call.require_token_sites(run)
            # The prediction reads the rows that its gradient reaches.
            seed = call.seed(call.targets[0], run.logits)
            rows = readout_rows(run.gradients([run.trace.readout], seed)[0], None)[0]
            layout = call.layout(run)
            heads = tuple(_on_tokens(layout, _rows(m, rows)) for m in maps)
        except MethodNotApplicableError as error:
            return only(scores(), refusal=str(error))
        return only(run.logits, layout=layout, heads=heads)


def _of(site: Site) -> Tensor:
    """Return a site's maps (heads, queries, keys)."""
    probs = site.probs.detach()[0].float()
    return probs if probs.dim() == 3 else probs[None]


def _rows(maps: Tensor, rows: Tensor) -> Tensor:
    """Return the mean of the rows that are read: (heads, keys).

    Where a site has other queries than the last one has rows (a layer before class tokens join, or
    the tokens below a pooling probe), all of its rows feed the prediction.
    """
    if maps.shape[1] == rows.shape[0]:
        maps = maps[:, rows]
    return maps.mean(1)


def _on_tokens(layout: Layout, maps: Tensor) -> Tensor:
    """Return maps (heads, keys) as (heads, tokens): what differs by the kind of a stream."""
    if layout.kind == "patches":
        return _on_patches(layout, maps)
    if maps.shape[-1] != layout.tokens:
        raise _other_tokens(layout)
    return maps


def _on_patches(layout: TokenLayout, maps: Tensor) -> Tensor:
    """Return maps (heads, keys) as (heads, tokens), 0 for tokens that a site has no key of.

    Patches stand last among its keys then: others join them in later layers (CaiT).
    """
    if layout.grid is None:
        raise MethodNotApplicableError("The model's patch grid could not be read.")
    if maps.shape[-1] == layout.tokens:
        return maps
    patches = layout.patches
    count = patches.stop - patches.start
    if maps.shape[-1] < count:
        raise _other_tokens(layout)
    return F.pad(maps[:, -count:], (patches.start, layout.tokens - patches.stop))


def _other_tokens(layout: Layout) -> MethodNotApplicableError:
    return MethodNotApplicableError(
        f"The model attends to other tokens than those of the {layout.stream}, such as pooled ones."
    )
