"""Relevance between tokens of several sequences, through self- and cross-attention.

The bi-modal rules of Chefer et al. (ICCV 2021, section 3.2), for any number of sequences.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from xai_lib.errors import MethodNotApplicableError
from xai_lib.explainers.mixing import mean_of_rows, readout_rows
from xai_lib.passes.refusals import PIXEL_METHODS
from xai_lib.streams.layouts import StreamsLayout
from xai_lib.tracing import Chain, Site

# R of one chain: by the stream that relevance comes from, (batch, rows, tokens of that stream).
Relevance = dict[str, Tensor]


class StreamMixer:
    """R^{qs}: how much each token of stream s counts for each token of chain q, site by site.

    With C a site's map and R as it was when the site's queries and keys were computed:
      self-attention of q: R^{qs} += C R^{qs} for every stream s (Eq. 6, 7);
      q attends to k: R^{qq} += C R^{kq} (Eq. 11), R^{qk} += N(R^{qq})ᵀ C N(R^{kk}) (Eq. 10)
    where N(R) = (R - I) / Σ(R - I) + I by rows (Eq. 8, 9). Streams beyond those two follow the
    first form. A row that nothing has been added to yet stays what it is, I.

    normalize: apply N. self_in_cross: the products with R^{qq} and R^{kk} of Eq. 10; without them
    R^{qk} += C. aggregate: add to what was there; without it every R is replaced by what would be
    added, and as no R - I is a sum then, N is left out. carry: hand on what cross-attention
    brought; without it R^{qk} is what the last cross-attention of q gave, and R^{qq} sees
    self-attention alone: how ICCV 2021 compares with methods that know one sequence.

    normalize_rows: the flow of attention rollout (Abnar & Zuidema 2020) instead of Eq. 7-11,
    R^{qs} ← (R^{qs} + C R^{ks}) / (1 + ΣC) for every stream s, at self-attention (k = q) and
    cross-attention alike, so that rows over all streams keep their sum of 1. With carry=False it
    concerns self-attention alone.
    """

    def __init__(
        self,
        *,
        normalize: bool = True,
        self_in_cross: bool = True,
        aggregate: bool = True,
        carry: bool = True,
        normalize_rows: bool = False,
    ):
        self.normalize = normalize and aggregate and not normalize_rows
        self.self_in_cross, self.aggregate = self_in_cross, aggregate
        self.carry, self.normalize_rows = carry, normalize_rows
        self._history: dict[Chain, list[tuple[int, Relevance]]] = {}

    def relevance(self, chain: Chain, like: Tensor, version: int | None = None) -> Relevance:
        """Return R of `chain` after all sites before `version` (default: after all of them)."""
        if chain not in self._history:
            self._history[chain] = [(0, self._start(chain, like))]
        past = self._history[chain]
        if version is None:
            return past[-1][1]
        return next(R for made, R in reversed(past) if made <= version)

    def update(self, site: Site, C: Tensor) -> None:
        """Apply the map C (batch, queries, keys) of one site."""
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

    def _start(self, chain: Chain, like: Tensor) -> Relevance:
        batch = like.shape[0]
        if not chain.parts:
            eye = torch.eye(chain.tokens, dtype=like.dtype, device=like.device)
            return {chain.name: eye.repeat(batch, 1, 1)}
        rows, found = sum(count for _, _, count in chain.parts), {}
        start = 0
        for part, version, count in chain.parts:
            for name, R in (self.relevance(part, like, version) if part else {}).items():
                if R.shape[1] != count:
                    raise MethodNotApplicableError(
                        f"{count} of the {R.shape[1]} tokens of stream {part.name!r} join another "
                        "stream, or what they were pooled into, so that no map tells which token "
                        f"is which; {PIXEL_METHODS}."
                    )
                if name not in found:
                    found[name] = like.new_zeros(batch, rows, R.shape[2])
                found[name][:, start : start + count] = R
            start += count
        return found

    def _by_self(self, site: Site, C: Tensor, R: Relevance) -> Relevance:
        # What cross-attention brought from other streams is not carried on where carry=False.
        kept = {n: part for n, part in R.items() if self.carry or n in self._own(site.query[0])}
        if (site.residual is None and site.skip is None) or not self.aggregate:
            return R | {name: C @ part for name, part in kept.items()}
        if self.normalize_rows:
            return R | self._flow(C, kept, kept)
        return R | {name: part + C @ part for name, part in kept.items()}

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


def mix_streams(sites: Sequence[Site], maps: Iterable[Tensor], **options) -> StreamMixer:
    """Return the mixer after the maps C of `sites`, one by one."""
    mixer = StreamMixer(**options)
    for site, C in zip(sites, maps, strict=True):
        mixer.update(site, C)
    return mixer


def read_streams(
    mixer: StreamMixer, sites: Sequence[Site], at_outputs: Sequence[Tensor], layout: StreamsLayout
) -> Tensor:
    """Return the rows of R that the prediction reads, (batch, tokens of all streams).

    at_outputs: the gradient at each site's output. The head reads chains that nobody attends to
    after their last site with a gradient; of several, what they count adds up.
    """
    found: dict[str, Tensor] = {}
    for site, grad in heads_of(sites, at_outputs):
        rows = readout_rows(grad, None)
        for name, R in mixer.relevance(site.query[0], grad).items():
            part = mean_of_rows(R, rows)
            found[name] = found[name] + part if name in found else part
    some = next(iter(found.values()))
    for name, where in layout.slices().items():
        found.setdefault(name, some.new_zeros(len(some), where.stop - where.start))
    return torch.cat([found[name] for name in layout.slices()], -1)


def last_maps(
    sites: Sequence[Site],
    maps: Sequence[Tensor],
    at_outputs: Sequence[Tensor],
    layout: StreamsLayout,
) -> Tensor:
    """Return the last map from each chain that the head reads to each stream, in the rows it reads.

    For methods of one layer: the last self-attention gives that stream's own tokens, the last
    cross-attention the other stream's. Shape (batch, tokens of all streams).
    """
    result = maps[0].new_zeros(maps[0].shape[0], layout.tokens)
    for last, grad in heads_of(sites, at_outputs):
        rows, chain = readout_rows(grad, None), last.query[0]
        for name, where in layout.slices().items():
            chosen = [
                C[..., columns]
                for site, C in zip(sites, maps, strict=True)
                if site.query[0] is chain
                and (columns := _columns(site.key[0], name, site.keys)) is not None
            ]
            if chosen and chosen[-1].shape[-1] != where.stop - where.start:
                raise MethodNotApplicableError(
                    f"{chosen[-1].shape[-1]} of the {where.stop - where.start} tokens of stream "
                    f"{name!r} join another stream, so that no map tells which token is which; "
                    f"{PIXEL_METHODS}."
                )
            if chosen:
                result[:, where] += mean_of_rows(chosen[-1], rows)
    return result


def _columns(chain: Chain | None, name: str, tokens: int) -> slice | None:
    """Return where a stream is among the tokens of a chain, which may be joined of several."""
    if chain is None or chain.name == name:
        return None if chain is None else slice(0, tokens)
    start = 0
    for part, _, count in chain.parts:
        inner = _columns(part, name, count)
        if inner is not None:
            return slice(start + inner.start, start + inner.stop)
        start += count
    return None


def heads_of(sites: Sequence[Site], at_outputs: Sequence[Tensor]) -> list[tuple[Site, Tensor]]:
    """Return the last site with a gradient of each chain that the head reads, and the gradient."""
    last: dict[Chain, tuple[Site, Tensor]] = {}
    asked: dict[Chain, int] = {}
    for site, grad in zip(sites, at_outputs, strict=True):
        if not (grad != 0).any():
            continue
        last[site.query[0]] = site, grad
        if site.kind == "cross":
            # A stream that looks at itself besides others is read all the same.
            others = [c for c in _within(site.key[0]) if c is not site.query[0]]
            asked |= dict.fromkeys(others, site.index)
        for part, *_ in site.query[0].parts:
            asked |= dict.fromkeys(_within(part), site.index)
    found = [pair for chain, pair in last.items() if asked.get(chain, -1) < pair[0].index]
    if not found:
        raise MethodNotApplicableError(
            "The logits take nothing from the model's attention, so its maps explain nothing; "
            f"{PIXEL_METHODS}."
        )
    return found


def _within(chain: Chain | None) -> list[Chain]:
    """Return a chain and the chains that it was joined of."""
    if chain is None:
        return []
    return [chain, *(inner for part, *_ in chain.parts for inner in _within(part))]


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
            f"spans them; {PIXEL_METHODS}."
        )
