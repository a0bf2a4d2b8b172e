"""Scores of attention heads or layers, and what they rank: masks that prune a fraction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from xai_lib.errors import InputError, OptionError, unknown_name
from xai_lib.tracing import HeadMask

if TYPE_CHECKING:
    import pandas

LEVELS = ("head", "layer")
ORDERS = ("positive", "negative")
# How many of `total` stay, by the two published codes; products of floats, cut off. LXMERT's keeps
# a rounded-down number, so that 60 heads at 0.9 leave 5; VisualBERT's prunes one, and leaves 6.
COUNTS: dict[str, Callable[[float, int], int]] = {
    "floor_kept": lambda fraction, total: int((1 - fraction) * total),
    "floor_pruned": lambda fraction, total: total - int(fraction * total),
}


@dataclass(frozen=True)
class ScoredSite:
    """One attention call: its number in the pass, the module that makes it and its stream.

    stream: that of the query side. layer: the how-manieth site of its stream, from 0. reached:
    whether the prediction depends on it; sites that it does not depend on are never pruned.
    """

    call: int
    name: str
    stream: str
    layer: int
    kind: str
    heads: int
    reached: bool = True


@dataclass(frozen=True)
class HeadScores:
    """How much each head counts: `values` (samples, heads of all sites in execution order).

    At level="layer" there is one value for each site. target: class numbers as given to the
    passes; logits: (samples, classes) of the model that was scored. pairwise: samples are images
    and classes texts (CLIP).
    """

    sites: tuple[ScoredSite, ...]
    values: Float[Tensor, "samples heads"]
    method: str
    level: str
    target: Int[Tensor, "samples 2"]
    logits: Float[Tensor, "samples classes"]
    pairwise: bool = False

    @property
    def widths(self) -> list[int]:
        """Number of values of each site."""
        return [1 if self.level == "layer" else site.heads for site in self.sites]

    @property
    def candidates(self) -> Bool[Tensor, " heads"]:
        """Which values may be pruned: bool (heads,)."""
        reached = torch.tensor([site.reached for site in self.sites])
        return reached.repeat_interleave(torch.tensor(self.widths))

    @property
    def table(self) -> pandas.DataFrame:
        """One row a head in execution order; score is the mean over the samples."""
        import pandas as pd

        rows = []
        columns = ("site", "call", "stream", "layer", "kind", "head", "score")
        means = iter(self.values.mean(0).tolist())
        for site, width in zip(self.sites, self.widths, strict=True):
            for head in range(width):
                place = (site.name, site.call, site.stream, site.layer, site.kind)
                rows.append((*place, head, next(means)))
        frame = pd.DataFrame(rows, columns=list(columns))
        return frame.drop(columns="head") if self.level == "layer" else frame

    def grid(
        self, stream: str, unreached: bool = False
    ) -> Float[Tensor, "samples layers heads_of_site"]:
        """Return the scores of one stream, (samples, layers, heads), or (samples, layers, 1).

        Sites that the prediction does not depend on are left out, as published: the last layer of
        LXMERT's image stream; unreached=True has them, with zeros.
        """
        parts = self.values.split(self.widths, 1)
        chosen = [
            part
            for site, part in zip(self.sites, parts, strict=True)
            if site.stream == stream and (site.reached or unreached)
        ]
        if not chosen:
            raise unknown_name("stream", stream, {site.stream for site in self.sites})
        if len({part.shape[1] for part in chosen}) > 1:
            raise InputError(f"The sites of stream {stream!r} have different numbers of heads.")
        return torch.stack(chosen, 1)

    def mask(
        self,
        fraction: float | Sequence[float],
        order: str = "positive",
        *,
        counts: str = "floor_pruned",
        per_sample: bool = False,
        tied: bool = False,
        per_layer: bool = False,
    ) -> HeadMask:
        """Return the mask that prunes a fraction of all heads (or layers), ranked by score.

        order: "positive" prunes the largest scores first, "negative" the smallest. All streams are
        ranked together. counts: how a fraction becomes a number: "floor_pruned" prunes
        ⌊fraction·N⌋ (published for VisualBERT), "floor_kept" keeps ⌊(1-fraction)·N⌋ (LXMERT).
        per_sample: rank each sample by its own scores (as published), else by the mean (as one
        deploys). tied: rank and prune the calls of one module together, by their mean score: they
        share their weights (LXMERT's cross-attention), so only this can be made permanent.
        per_layer: rank the heads of each site by themselves, so that as many go everywhere.
        Several fractions give one row for each (and sample, the samples running fastest), for a
        batch that holds the samples once for every fraction.
        Raises OptionError for a fraction outside [0, 1] or one that leaves nothing.
        """
        options = {"counts": counts, "per_sample": per_sample, "tied": tied, "per_layer": per_layer}
        kept = self.kept(fraction, order, **options)
        kept = kept[0] if kept.shape[0] == 1 and not per_sample else kept
        parts = kept.to(self.logits.dtype).split(self.widths, -1)
        calls: Counter[str] = Counter()
        places = {}
        for site in self.sites:
            places[site.call] = site.name, calls[site.name]
            calls[site.name] += 1
        return HeadMask({s.call: x for s, x in zip(self.sites, parts, strict=True)}, places)

    def kept(
        self,
        fraction: float | Sequence[float],
        order: str = "positive",
        *,
        counts: str = "floor_pruned",
        per_sample: bool = False,
        tied: bool = False,
        per_layer: bool = False,
    ) -> Bool[Tensor, "rows heads"]:
        """Return which heads a mask keeps, bool (rows, heads): see `mask`."""
        if order not in ORDERS:
            raise unknown_name("order", order, ORDERS)
        if counts not in COUNTS:
            raise unknown_name("counts", counts, COUNTS)
        fractions = [fraction] if isinstance(fraction, int | float) else list(fraction)
        if per_sample and self.pairwise:
            self._check_pairs()
        groups = self._groups(tied).to(self.values.device)
        scores = self.values if per_sample else self.values.mean(0, keepdim=True)
        total = int(groups.max()) + 1
        # Groups of one where nothing is tied; -1 is what cannot be pruned.
        weights = nn.functional.one_hot(groups + 1, total + 1)[:, 1:].to(scores)
        weights = weights * self.candidates.to(weights)[:, None]
        ranked = scores @ (weights / weights.sum(0))
        ranked = ranked if order == "negative" else -ranked
        together = self._layers(groups) if per_layer else [torch.arange(total)]
        rows = []
        for one in fractions:
            keep = ranked.new_ones(len(ranked), total + 1, dtype=torch.bool)
            for columns in together:
                # The place of each among those it competes with, the first to keep being 0.
                order_of = ranked[:, columns].sort(dim=1, descending=True, stable=True).indices
                keep[:, columns] = order_of.argsort(1) < _count(one, len(columns), counts)
            rows.append(keep[:, groups])
        return torch.cat(rows)

    def _check_pairs(self) -> None:
        one, against = self.target[:, 0], self.target[:, 1]
        own = torch.equal(one, torch.arange(len(one), device=one.device)) and (against < 0).all()
        if self.logits.shape[0] != self.logits.shape[1] or not own:
            raise OptionError(
                "per_sample=True: sample i of these scores is image i with the text of its target, "
                "and a mask's row i is for image i and text i; expected as many texts as images "
                "and the target i for image i. Score the pairs one by one, or leave per_sample out."
            )

    def _layers(self, groups: Tensor) -> list[Tensor]:
        """Return the groups of each site that may be pruned, each group once."""
        found, met = [], set()
        for part in groups.split(self.widths):
            new = [group for group in part.tolist() if group >= 0 and group not in met]
            met.update(new)
            found += [torch.tensor(new)] if new else []
        return found

    def _groups(self, tied: bool) -> Tensor:
        """Return for each value the number of what is kept or pruned together, -1 for never."""
        known: dict[tuple, int] = {}
        keys = [
            (site.name if tied else site.call, head)
            for site, width in zip(self.sites, self.widths, strict=True)
            for head in range(width)
        ]
        for key, counts in zip(keys, self.candidates.tolist(), strict=True):
            if counts:
                known.setdefault(key, len(known))
        return torch.tensor([known.get(key, -1) for key in keys])

    def normalised(self) -> HeadScores:
        """Return the scores divided by the L2 norm of their layer's means (Michel et al. 2019)."""
        parts = self.values.split(self.widths, 1)
        norms = [part.mean(0).norm() for part in parts]
        scaled = [part / n if n else part for part, n in zip(parts, norms, strict=True)]
        return replace(self, values=torch.cat(scaled, 1))

    @classmethod
    def joined(cls, parts: Sequence[HeadScores]) -> HeadScores:
        """Return the scores of several batches as those of one."""
        if not parts:
            raise InputError("There are no scores to join.")
        first = parts[0]
        sites = []
        for same in zip(*(part.sites for part in parts), strict=True):
            if len({replace(site, reached=True) for site in same}) > 1:
                raise InputError("Scores of different models, or of different passes of one.")
            sites.append(replace(same[0], reached=any(site.reached for site in same)))
        if len({(part.method, part.level) for part in parts}) > 1:
            raise InputError("Scores of different methods or levels cannot be joined.")
        return replace(
            first,
            sites=tuple(sites),
            values=torch.cat([part.values for part in parts]),
            target=torch.cat([part.target for part in parts]),
            logits=torch.cat([part.logits for part in parts]),
        )


def _count(fraction: float, total: int, counts: str) -> int:
    usable = isinstance(fraction, int | float) and not isinstance(fraction, bool)
    if not usable or not 0 <= fraction <= 1:
        raise OptionError(f"fraction is {fraction!r}; expected a number from 0 to 1.")
    kept = COUNTS[counts](fraction, total)
    if not kept:
        raise OptionError(
            f"fraction is {fraction!r}, which prunes all {total} of them, so that no token sees "
            "another. Leave at least one: take a smaller fraction."
        )
    return kept
