"""Relevance between tokens, through self- and cross-attention: one sequence of them, or several.

One sequence follows R ← R + C R (Chefer et al., CVPR 2021; ICCV 2021, Eq. 5-6), several the
bi-modal rules of ICCV 2021 (section 3.2), which are the same where a sequence looks at itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from xai_lib.errors import MethodNotApplicableError
from xai_lib.passes.loan import HALF
from xai_lib.tracing import Chain, Site

# R of one chain: by the stream that relevance comes from, (batch, rows, tokens of that stream).
Relevance = dict[str, Float[Tensor, "_ _ _"]]


class Mixer:
    """R^{qs}: how much each token of stream s counts for each token of chain q, site by site.

    R starts as the identity. With C a site's map and R as it was when the site's queries and keys
    were computed:
      self-attention of q: R^{qs} ← (C + I) R^{qs} for every stream s (Eq. 6, 7);
      q attends to k: R^{qq} += C R^{kq} (Eq. 11), R^{qk} += N(R^{qq})ᵀ C N(R^{kk}) (Eq. 10)
    where N(R) = (R - I) / Σ(R - I) + I by rows (Eq. 8, 9). Streams beyond those two follow the
    first form. A row that nothing has been added to yet stays what it is, I.

    normalize: apply N. self_in_cross: the products with R^{qq} and R^{kk} of Eq. 10; without them
    R^{qk} += C. aggregate: add to what was there; without it every R is replaced by what would be
    added, and as no R - I is a sum then, N is left out. carry: hand on what cross-attention
    brought; without it R^{qk} is what the last cross-attention of q gave, and R^{qq} sees
    self-attention alone: how ICCV 2021 compares with methods that know one sequence.

    normalize_rows: the flow of attention rollout (Abnar & Zuidema 2020) instead of Eq. 5-11, the
    rows of C + I divided by their sums; between chains R^{qs} ← (R^{qs} + C R^{ks}) / (1 + ΣC), so
    that rows over all streams keep their sum of 1. With carry=False it concerns self-attention
    alone.

    chains: whether the sites of a pass lie between chains; else all belong to one sequence, and
    three kinds of site occur in it:
      queries = keys: self-attention over all tokens, with its residual connection;
      keys = rows + queries, with a residual: class tokens that join late and attend to themselves
        and the patches (CaiT): R grows by identity rows in front, which alone are updated, here and
        at the next sites of this shape;
      keys = rows, fewer queries: a probe that pools the tokens. Its query is no token, so that
        what a residual would carry of it is nobody's: R ← C R.
    """

    def __init__(
        self,
        *,
        chains: bool = False,
        normalize: bool = True,
        self_in_cross: bool = True,
        aggregate: bool = True,
        carry: bool = True,
        normalize_rows: bool = False,
    ):
        self.chains = chains
        self.normalize = normalize and aggregate and not normalize_rows
        self.self_in_cross, self.aggregate = self_in_cross, aggregate
        self.carry, self.normalize_rows = carry, normalize_rows
        self._history: dict[Chain, list[tuple[int, Relevance]]] = {}
        self.only: Tensor | None = None
        self._rows = self._joined = 0

    def mix(
        self, sites: Sequence[Site], maps: Iterable[Float[Tensor, "batch queries keys"]]
    ) -> Mixer:
        """Apply the maps C of `sites` one by one, and return this mixer."""
        for site, C in zip(sites, maps, strict=True):
            self.update(site, C)
        return self

    def update(self, site: Site, C: Float[Tensor, "batch queries keys"]) -> None:
        """Apply the map C (batch, queries, keys) of one site."""
        if not self.chains:
            self.advance(C, site.residual is not None)
            return
        assert site.query is not None and site.key is not None, "this trace follows no chains"
        (q, asked), (k, read) = site.query, site.key
        Rq, Rk = self.relevance(q, C, asked), self.relevance(k, C, read)
        _check_rows(site, C, Rq, Rk)
        if q is k:
            new = self._by_self(site, C, Rq)
        elif self.carry and self.normalize_rows:
            new = self._flow(C, Rq, Rk)
        else:
            new = self._by_cross(C, Rq, Rk, q, k)
        self._history[q].append((site.index + 1, new))

    def skip(self, site: Site) -> None:
        """Pass a site that does not count, noting only which tokens there are after it."""
        if not self.chains:
            self._arrange(site.queries, site.keys, site.residual is not None)

    @property
    def sequence(self) -> Float[Tensor, "batch rows tokens"]:
        """R of the only sequence, once a map has been mixed."""
        assert self.only is not None, "no map has been mixed"
        return self.only

    def relevance(
        self, chain: Chain, like: Float[Tensor, "batch ..."], version: int | None = None
    ) -> Relevance:
        """Return R of `chain` after all sites before `version` (default: after all of them)."""
        if chain not in self._history:
            self._history[chain] = [(0, self._start(chain, like))]
        past = self._history[chain]
        if version is None:
            return past[-1][1]
        return next(R for made, R in reversed(past) if made <= version)

    # -- a sequence that looks at itself ---------------------------------------------------------

    def _step(self, C: Tensor, passes: bool) -> Tensor:
        """Return C + I, or C where no residual connection passes, its rows normalised if wished."""
        if passes:
            C = C + torch.eye(*C.shape[1:], dtype=C.dtype, device=C.device)
        return C / C.sum(-1, keepdim=True) if self.normalize_rows else C

    def _by_self(self, site: Site, C: Tensor, R: Relevance) -> Relevance:
        passes = self.aggregate and not (site.residual is None and site.skip is None)
        step = self._step(C, passes)
        # What cross-attention brought from other streams is not carried on where carry=False.
        own = self._own(site.looking)
        return R | {name: step @ part for name, part in R.items() if self.carry or name in own}

    def advance(self, C: Float[Tensor, "batch queries keys"], residual: bool = True) -> None:
        """Apply a map to the only sequence; residual: whether a connection passes its site."""
        batch, queries, keys = C.shape
        joins, R = self._arrange(queries, keys, residual), self.only
        if R is None:
            R = torch.eye(keys, dtype=C.dtype, device=C.device).repeat(batch, 1, 1)
        elif joins:
            R = _prepended(R, queries)
        # Class tokens are the first rows, also at the second site that updates them alone.
        late = queries < keys and queries == self._joined
        updated = self._step(C, late or queries == keys) @ R
        self.only = torch.cat([updated, R[:, queries:]], 1) if late else updated
        self._rows = self.only.shape[1]

    def _arrange(self, queries: int, keys: int, residual: bool) -> bool:
        """Check that a site attends to the tokens at hand; return whether class tokens join."""
        joins = queries < keys and keys == self._rows + queries and residual
        if joins:
            self._joined = queries
        elif self._rows not in (0, keys):
            raise MethodNotApplicableError(
                f"A site attends to {keys} tokens after one of {self._rows}, so the model pools or "
                "merges tokens and no single map spans them."
            )
        self._rows = keys
        return joins

    # -- chains that look at each other ----------------------------------------------------------

    def _start(self, chain: Chain, like: Tensor) -> Relevance:
        batch = like.shape[0]
        if not chain.parts:
            eye = torch.eye(chain.tokens, dtype=like.dtype, device=like.device)
            return {chain.name: eye.repeat(batch, 1, 1)}
        rows, found = sum(count for _, _, count in chain.parts), {}
        start = 0
        for part, version, count in chain.parts:
            if part is None:
                start += count
                continue
            for name, R in self.relevance(part, like, version).items():
                if R.shape[1] != count:
                    raise MethodNotApplicableError(
                        f"{count} of the {R.shape[1]} tokens of stream {part.name!r} join another "
                        "stream, or what they were pooled into, so that no map tells which token "
                        "is which."
                    )
                if name not in found:
                    found[name] = like.new_zeros(batch, rows, R.shape[2])
                found[name][:, start : start + count] = R
            start += count
        return found

    def _own(self, chain: Chain) -> Relevance:
        """Return R of a chain as it began: of itself, or of the streams it was joined of."""
        return self._history[chain][0][1]

    def _flow(self, C: Tensor, Rq: Relevance, Rk: Relevance) -> Relevance:
        """Return (R^{qs} + C R^{ks}) / (1 + ΣC) for every stream s."""
        total = C.sum(-1, keepdim=True) + 1
        found = {name: part / total for name, part in Rq.items()}
        for name, part in Rk.items():
            added = C @ part / total
            found[name] = found[name] + added if name in found else added
        return found

    def _by_cross(self, C: Tensor, Rq: Relevance, Rk: Relevance, q: Chain, k: Chain) -> Relevance:
        # Without aggregation nothing is left of what k knows nothing of.
        new = dict(Rq) if self.aggregate else {n: torch.zeros_like(part) for n, part in Rq.items()}
        for name, part in Rk.items():
            if not self.carry and name not in self._own(k):
                continue
            both = name == k.name and q.name in Rq
            added = self._across(C, Rq[q.name], part) if both else C @ part
            summed = self.aggregate and self.carry and name in new
            new[name] = new[name] + added if summed else added
        return new

    def _across(self, C: Tensor, Rqq: Tensor, Rkk: Tensor) -> Tensor:
        if not self.self_in_cross:
            return C
        if self.normalize:
            Rqq, Rkk = _normalised(Rqq), _normalised(Rkk)
        return Rqq.transpose(-1, -2) @ C @ Rkk


def accumulation_dtype(x: Float[Tensor, "..."]) -> torch.dtype:
    """Return float32 for half precision, else x's own dtype."""
    return torch.float32 if x.dtype in HALF else x.dtype


def head_mean(site: Site) -> Float[Tensor, "batch queries keys"]:
    """Return the attention of a site averaged over its heads, (batch, queries, keys)."""
    probs = site.probs.detach()
    return probs.to(accumulation_dtype(probs)).mean(1) if probs.dim() == 4 else probs


def positive_head_mean(
    x: Float[Tensor, "batch *heads queries keys"], clamp_after_mean: bool = False
) -> Float[Tensor, "batch queries keys"]:
    """Return E_h[x⁺] (batch, queries, keys), or (E_h[x])⁺ where the mean comes first."""
    x = x.to(accumulation_dtype(x))
    if x.dim() == 3:
        return x.clamp(min=0)
    return x.mean(1).clamp_(min=0) if clamp_after_mean else x.clamp(min=0).mean(1)


def _prepended(R: Tensor, count: int) -> Tensor:
    """Return R with identity rows of `count` tokens more in front."""
    batch, rows, tokens = R.shape
    grown = R.new_zeros(batch, rows + count, tokens + count)
    grown[:, range(count), range(count)] = 1
    grown[:, count:, count:] = R
    return grown


def _normalised(R: Tensor) -> Tensor:
    """N(R) of Eq. 8-9; rows without relevance of others stay those of the identity."""
    eye = torch.eye(R.shape[-1], dtype=R.dtype, device=R.device)
    added = R - eye
    total = added.sum(-1, keepdim=True)
    return added / total.masked_fill(total == 0, 1) + eye


def _check_rows(site: Site, C: Tensor, Rq: Relevance, Rk: Relevance) -> None:
    rows = next(iter(Rq.values())).shape[1], next(iter(Rk.values())).shape[1]
    if tuple(C.shape[1:]) != rows:
        raise MethodNotApplicableError(
            f"{site.name!r} lets {C.shape[1]} tokens attend to {C.shape[2]} after sites of "
            f"{rows[0]} and {rows[1]}: this model pools or merges tokens on the way, so no map "
            "spans them."
        )
