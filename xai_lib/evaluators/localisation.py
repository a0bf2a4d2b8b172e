"""Localisation: does the relevance of a class lie on the pixels that are known to decide it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int8
from torch import Tensor

from xai_lib.datasets.base import FOREGROUND, IGNORED
from xai_lib.errors import OptionError, unknown_name
from xai_lib.evaluators.base import Batch, Evaluator, Row, Subject
from xai_lib.evaluators.maps import check_maps, explained
from xai_lib.evaluators.registry import evaluator
from xai_lib.evaluators.specs import MethodSpec
from xai_lib.statistics.metric import Metric

EXPLAIN = ("label", "predicted")
COLUMNS = ("pointing", "mass", "rank", "chance")
NO_EVIDENCE = "The mask marks no pixel of this sample as foreground, so there is nothing to find"


@evaluator("localisation")
@dataclass(frozen=True)
class Localisation(Evaluator):
    """Pointing game, relevance mass accuracy and relevance rank accuracy, against masks.

    With K pixels in the mask M, among the pixels that the mask does not ignore:
    pointing_game: whether the most relevant pixel lies in M, or at most `tolerance` pixels from it
    (Zhang et al. 2016, section 4.1; their 15 pixels are for images of VOC's size); of several most
    relevant pixels, the share that does.
    relevance_mass: Σ_M R⁺ / Σ R⁺, R⁺ = max(R, 0). relevance_rank: the share of the K most relevant
    pixels that lies in M; pixels tied at the K-th place count by the share of them in M, which is
    the mean over all ways to break the tie (both Arras et al. 2022).
    chance: the share of M, which a constant positive map scores in all three (at tolerance 0).

    A map without positive relevance has no mass (left out of that metric's n). A mask without
    foreground gives an error row. explain: the label's class, which the mask belongs to, or the
    predicted one. maps: see `maps.explained`.
    """

    explain: str = "label"
    tolerance: int = 0
    maps: str = "native"

    needs = frozenset({"labels", "masks"})
    metrics = (
        Metric("pointing_game", ("pointing",), scale=100),
        Metric("relevance_mass", ("mass",), scale=100),
        Metric("relevance_rank", ("rank",), scale=100),
        Metric("chance", ("chance",), better=None, scale=100),
    )

    def __post_init__(self):
        if self.explain not in EXPLAIN:
            raise unknown_name("explain", self.explain, EXPLAIN)
        if self.tolerance < 0:
            raise OptionError(f"tolerance is {self.tolerance}; expected 0 or more pixels.")
        check_maps(self.maps)
        if self.explain == "predicted":
            object.__setattr__(self, "needs", frozenset({"masks"}))

    def rows(self, subject: Subject, batch: Batch, methods: Sequence[MethodSpec]) -> Iterator[Row]:
        label = self.explain == "label"
        if batch.masks is None or (label and batch.labels is None):
            raise OptionError(
                "Localisation needs masks, and labels too with explain='label'. Use a data set "
                "that has them (`xai datasets`), or explain='predicted'."
            )
        empty = ~(batch.masks == FOREGROUND).flatten(1).any(1)
        for spec in methods:
            target = batch.labels if label else None
            found = explained(subject, batch, spec, target, maps=self.maps)
            errors = [
                error or (NO_EVIDENCE if nothing else None)
                for error, nothing in zip(found.errors, empty.tolist(), strict=True)
            ]
            good = [i for i, error in enumerate(errors) if error is None]
            masks = batch.masks.to(found.values.device)
            table = scores(found.values[good], masks[good], self.tolerance).tolist()
            places = dict(zip(good, table, strict=True))
            for i, (index, key) in enumerate(zip(batch.index, batch.key, strict=True)):
                # NaN is the mass of a map without positive relevance.
                line = [n if n == n else None for n in places.get(i, [torch.nan] * len(COLUMNS))]
                numbers = dict(zip(COLUMNS, line, strict=True))
                row = {"index": index, "key": key, "method": spec.label}
                yield row | numbers | {"error": errors[i]}


def scores(
    values: Float[Tensor, "b h w"], masks: Int8[Tensor, "b h w"], tolerance: int = 0
) -> Float[Tensor, "b columns"]:
    """Return `COLUMNS` of every map, in float64; every mask has foreground."""
    near = within(masks == FOREGROUND, tolerance).flatten(1)
    values, masks = values.double().flatten(1), masks.flatten(1)
    counted, inside = masks != IGNORED, masks == FOREGROUND
    ranked = values.masked_fill(~counted, -torch.inf)
    top = counted & (ranked == ranked.amax(1, keepdim=True))
    positive = values.clamp(min=0) * counted
    return torch.stack(
        (
            _share(top, near),
            (positive * inside).sum(1) / positive.sum(1),
            _rank_accuracy(ranked, inside, counted),
            _share(counted, inside),
        ),
        1,
    )


def within(mask: Bool[Tensor, "b h w"], distance: int) -> Bool[Tensor, "b h w"]:
    """Return the pixels whose centre is at most `distance` pixels from one of the mask."""
    if distance == 0:
        return mask
    steps = torch.arange(-distance, distance + 1, device=mask.device)
    disc = (steps[:, None] ** 2 + steps**2 <= distance**2).double()
    return F.conv2d(mask.double()[:, None], disc[None, None], padding=distance)[:, 0] > 0.5


def _rank_accuracy(
    ranked: Float[Tensor, "b n"], inside: Bool[Tensor, "b n"], counted: Bool[Tensor, "b n"]
) -> Float[Tensor, " b"]:
    size = inside.sum(1, keepdim=True)
    last = ranked.sort(1, descending=True).values.gather(1, size - 1)
    above, tied = ranked > last, counted & (ranked == last)
    hits = (above & inside).sum(1) + (size[:, 0] - above.sum(1)) * _share(tied, inside)
    return hits / size[:, 0]


def _share(of: Bool[Tensor, "b n"], inside: Bool[Tensor, "b n"]) -> Float[Tensor, " b"]:
    return (of & inside).sum(1).double() / of.sum(1)
