"""How relevance mixes from layer to layer, and which of its rows the prediction reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from xai_lib.errors import MethodNotApplicableError, OptionError
from xai_lib.options import check_range
from xai_lib.passes.loan import HALF
from xai_lib.passes.refusals import PIXEL_METHODS
from xai_lib.tracing import Site


def accumulation_dtype(x: Tensor) -> torch.dtype:
    """Return float32 for half precision, else x's own dtype."""
    return torch.float32 if x.dtype in HALF else x.dtype


class TokenMixer:
    """The token-to-token relevance R, updated site by site: R ← R + C R (Chefer et al. 2021).

    R is (batch, rows, tokens): row i holds how much each input token counts for token i at the
    current depth; it starts as the identity. With normalize_rows the update is R ← (C+I)R/Σ(C+I)
    (Abnar & Zuidema 2020). Three kinds of site occur:
      queries = keys: self-attention over all tokens, with its residual connection;
      keys = rows + queries, with a residual: class tokens that join late and attend to themselves
        and the patches (CaiT): R grows by identity rows in front, which alone are updated, here and
        at the next sites of this shape;
      keys = rows, fewer queries: a probe that pools the tokens. Its query is no token, so that
        what a residual would carry of it is nobody's: R ← C R.
    """

    def __init__(self, normalize_rows: bool = False, skipped: Iterable[Site] = ()):
        """Start at the identity over the tokens that there are after the sites `skipped`."""
        self.normalize_rows = normalize_rows
        self.R: Tensor | None = None
        self._rows = self._joined = 0
        for site in skipped:
            self.skip(site)

    def skip(self, site: Site) -> None:
        """Pass a site that does not count, noting only which tokens there are after it."""
        self._arrange(site.queries, site.keys, site.residual is not None)

    def update(self, C: Tensor, residual: bool = True) -> None:
        """Apply one site's map C (batch, queries, keys); residual: whether one passes the site."""
        batch, queries, keys = C.shape
        joins = self._arrange(queries, keys, residual)
        if self.R is None:
            self.R = torch.eye(keys, dtype=C.dtype, device=C.device).repeat(batch, 1, 1)
        elif joins:
            self._prepend(queries)
        # Class tokens are the first rows, also at the second site that updates them alone.
        late = queries < keys and queries == self._joined
        if late or queries == keys:
            C = C + torch.eye(queries, keys, dtype=C.dtype, device=C.device)
        if self.normalize_rows:
            C = C / C.sum(-1, keepdim=True)
        updated = C @ self.R
        self.R = torch.cat([updated, self.R[:, queries:]], 1) if late else updated
        self._rows = self.R.shape[1]

    def _arrange(self, queries: int, keys: int, residual: bool) -> bool:
        """Check that a site attends to the tokens at hand; return whether class tokens join."""
        joins = queries < keys and keys == self._rows + queries and residual
        if joins:
            self._joined = queries
        elif self._rows not in (0, keys):
            raise MethodNotApplicableError(
                f"A site attends to {keys} tokens after one of {self._rows}, so the model pools or "
                f"merges tokens and no single map spans them; {PIXEL_METHODS}."
            )
        self._rows = keys
        return joins

    def _prepend(self, count: int) -> None:
        batch, rows, tokens = self.R.shape
        grown = self.R.new_zeros(batch, rows + count, tokens + count)
        grown[:, range(count), range(count)] = 1
        grown[:, count:, count:] = self.R
        self.R = grown


def mix(
    sites: Sequence[Site],
    maps: Iterable[Tensor],
    skipped: Iterable[Site] = (),
    normalize_rows: bool = False,
) -> Tensor:
    """Return R after the maps C of `sites`, one by one (`TokenMixer`); `skipped` came before."""
    mixer = TokenMixer(normalize_rows, skipped)
    for site, C in zip(sites, maps, strict=True):
        mixer.update(C, site.residual is not None)
    return mixer.R


def mean_of_rows(matrix: Tensor, rows: Tensor) -> Tensor:
    """Return the mean of the chosen rows of (batch, rows, tokens): (batch, tokens)."""
    weights = rows.to(matrix.dtype)
    weights = weights / weights.sum(1, keepdim=True).clamp(min=1)
    return torch.einsum("br,brt->bt", weights, matrix[:, : rows.shape[1]])


def readout_rows(grad: Tensor, readout: int | None) -> Tensor:
    """Return which tokens the prediction reads: bool (batch, rows).

    grad: the gradient (or relevance) at the last site's output, (batch, ..., rows, dim): a row that
    the head does not read has exactly none. `readout` asks for one row by number instead.
    """
    if grad.dim() == 4:
        grad = grad.transpose(1, 2).flatten(2)
    rows = (grad != 0).any(-1)
    if readout is None:
        if not rows.any():
            raise MethodNotApplicableError(
                "The logits take nothing from the model's last attention, so it explains nothing; "
                "'integrated_gradients', 'gradient_x_input', 'lrp' and 'attnlrp' need no map."
            )
        return rows
    chosen = torch.zeros_like(rows)
    count = int(rows.any(0).sum())
    if not isinstance(readout, int) or not 0 <= readout < rows.shape[1]:
        raise OptionError(
            f"readout is {readout!r}; expected a token number from 0 to {rows.shape[1] - 1}, or "
            f"None for the {count} token(s) that this model's head reads."
        )
    chosen[:, readout] = True
    return chosen


def check_start(start_layer: int, depth: int) -> int:
    """Return start_layer if it names one of `depth` layers (counted from 0)."""
    return check_range("start_layer", start_layer, 0, depth - 1, "the first layer that counts.")


def head_mean(site: Site) -> Tensor:
    """Return the attention of a site averaged over its heads, (batch, queries, keys)."""
    probs = site.probs.detach()
    return probs.to(accumulation_dtype(probs)).mean(1) if probs.dim() == 4 else probs


def positive_head_mean(x: Tensor, clamp_after_mean: bool = False) -> Tensor:
    """Return E_h[x⁺] (batch, queries, keys), or (E_h[x])⁺ where the mean comes first."""
    x = x.to(accumulation_dtype(x))
    if x.dim() == 3:
        return x.clamp(min=0)
    return x.mean(1).clamp_(min=0) if clamp_after_mean else x.clamp(min=0).mean(1)


def min_max(x: Tensor) -> Tensor:
    """Return x scaled to [0, 1] per row; 0/0 where a row is constant, as published (NaN)."""
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    return (x - low) / (high - low)
