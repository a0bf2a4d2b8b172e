"""One forward pass over an image: its logits, and what each head of each layer looks at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xai_lib.borrowing import borrowed
from xai_lib.errors import MethodNotApplicableError
from xai_lib.explainers.mixing import readout_rows
from xai_lib.inputs import logits_of, prepare, unwrap
from xai_lib.passes import Call
from xai_lib.tracing import Site


@dataclass(frozen=True)
class Reading:
    """What one forward pass says of one image.

    logits: (classes,). heads: per layer, the attention to the patches (heads, rows, columns) in the
    token rows that the prediction reads, averaged over these rows. refusal: why `heads` is empty.
    """

    logits: Tensor
    size: tuple[int, int]
    heads: tuple[Tensor, ...] = ()
    refusal: str = ""

    def attention(self, layer: int, head: int | None) -> Tensor:
        """Return one head's map, or the mean over heads, enlarged to the image: (H, W)."""
        maps = self.heads[layer]
        chosen = maps.mean(0) if head is None else maps[head]
        return F.interpolate(chosen[None, None], size=self.size, mode="bilinear")[0, 0]


@torch.inference_mode(False)
def read(model: nn.Module, pixels: Tensor) -> Reading:
    """Read one image (1, channels, H, W). Raises what `xai.explain` does, except refusals.

    Only the rows that the prediction reads are kept: layers·heads·tokens numbers, not tokens².
    """
    model = unwrap(model)
    prepared = prepare(model, {"pixel_values": pixels})
    size = tuple(pixels.shape[-2:])
    call = Call(model, prepared, lambda logits: logits.argmax(-1)[None])
    maps: list[Tensor] = []
    with borrowed(model):
        try:
            run = call.forward(graph="readout", keep=False, on_site=lambda s: maps.append(_of(s)))
            call.require_token_sites(run)
            seed = call.seed(call.targets[0], run.logits)
            rows = readout_rows(run.gradients([run.trace.readout], seed)[0], None)[0]
            grid = call.layout(run).grid
            if grid is None:
                raise MethodNotApplicableError("The model's patch grid could not be read.")
        except MethodNotApplicableError as error:
            with torch.no_grad():
                logits = logits_of(prepared.call(model, prepared.pixels))
            return Reading(logits[0].float(), size, refusal=str(error))
    patches = grid[0] * grid[1]
    heads = tuple(_rows(m, rows)[:, -patches:].unflatten(-1, grid) for m in maps)
    return Reading(run.logits[0].detach().float(), size, heads)


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
