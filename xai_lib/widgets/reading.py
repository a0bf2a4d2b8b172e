"""One forward pass over one input: its logits, and what each head of each layer looks at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xai_lib.errors import MethodNotApplicableError
from xai_lib.explainers.reading import readout_rows
from xai_lib.passes.call import Call, Run
from xai_lib.passes.loan import borrowed, unwrap
from xai_lib.streams.prepare import prepare
from xai_lib.streams.targets import resolve_all
from xai_lib.streams.texts import TextLayout
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
        chosen = _of_head(self.heads[layer], head)
        return F.interpolate(chosen[None, None], size=self.size, mode="bilinear")[0, 0]


@dataclass(frozen=True)
class TextReading:
    """What one forward pass says of one text: as `Reading`, heads (heads, tokens) a layer."""

    logits: Tensor
    layout: TextLayout | None = None
    heads: tuple[Tensor, ...] = ()
    refusal: str = ""

    def attention(self, layer: int, head: int | None) -> Tensor:
        """Return one head's attention to the tokens, or the mean over heads: (tokens,)."""
        return _of_head(self.heads[layer], head)


def read(model: nn.Module, pixels: Tensor) -> Reading:
    """Read one image (1, channels, H, W). Raises what `xai.explain` does, except refusals.

    Only the rows that the prediction reads are kept: layers·heads·tokens numbers, not tokens².
    """
    size = tuple(pixels.shape[-2:])

    def on_patches(call: Call, run: Run, maps: list[Tensor]) -> tuple[Tensor, ...]:
        grid = call.layout(run).grid
        if grid is None:
            raise MethodNotApplicableError("The model's patch grid could not be read.")
        patches = grid[0] * grid[1]
        return tuple(m[:, -patches:].unflatten(-1, grid) for m in maps)

    logits, heads, refusal = _read(model, {"pixel_values": pixels}, on_patches)
    return Reading(logits, size, heads or (), refusal)


def read_text(model: nn.Module, inputs) -> TextReading:
    """Read one text as the processor returns it. Raises what `xai.explain` does but refusals."""

    def on_tokens(call: Call, run: Run, maps: list[Tensor]) -> tuple[TextLayout, list[Tensor]]:
        layout = call.layout(run)
        if any(m.shape[-1] != layout.tokens for m in maps):
            raise MethodNotApplicableError(
                "The model attends to other tokens than those of the text, such as pooled ones."
            )
        return layout, maps

    logits, found, refusal = _read(model, inputs, on_tokens)
    layout, heads = found or (None, ())
    return TextReading(logits, layout, tuple(heads), refusal)


@torch.inference_mode(False)
def _read(model: nn.Module, inputs, finish) -> tuple[Tensor, object, str]:
    """Return logits (classes,), `finish(call, run, rows)` or None, and why it is None."""
    model = unwrap(model)
    prepared = prepare(model, inputs)
    call = Call(model, prepared, lambda logits: resolve_all(None, None, logits, None))
    maps: list[Tensor] = []
    with borrowed(model):
        try:
            run = call.forward(graph="readout", keep=False, on_site=lambda s: maps.append(_of(s)))
            call.require_token_sites(run)
            seed = call.seed(call.targets[0], run.logits)
            rows = readout_rows(run.gradients([run.trace.readout], seed)[0], None)[0]
            found = finish(call, run, [_rows(m, rows) for m in maps])
        except MethodNotApplicableError as error:
            with torch.no_grad():
                logits = prepared.scores(model)
            return logits[0].float(), None, str(error)
    return run.logits[0].detach().float(), found, ""


def _of_head(maps: Tensor, head: int | None) -> Tensor:
    return maps.mean(0) if head is None else maps[head]


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
