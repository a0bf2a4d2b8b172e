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
from xai_lib.evaluators.base import Evaluator, Row, Subject
from xai_lib.evaluators.batches import Batch
from xai_lib.evaluators.maps import MAPS, explained
from xai_lib.evaluators.registry import evaluator
from xai_lib.evaluators.specs import MethodSpec
from xai_lib.evaluators.truth import NUMBERS, agreement_with, classes_to_explain
from xai_lib.statistics.metric import Metric

EXPLAIN = ("label", "predicted")
COLUMNS = NUMBERS
NO_EVIDENCE = "The mask marks no pixel of this sample as foreground, so there is nothing to find"


@evaluator("localisation")
@dataclass
class Localisation(Evaluator):
    """Pointing game, relevance mass accuracy and relevance rank accuracy, against masks.

    With K pixels in the mask M, among the pixels that the mask does not ignore (`truth`):
    pointing_game: whether the most relevant pixel lies in M, or at most `tolerance` pixels from it
    (Zhang et al. 2016, section 4.1; their 15 pixels are for images of VOC's size); of several most
    relevant pixels, the share that does.
    relevance_mass: Σ_M R⁺ / Σ R⁺, R⁺ = max(R, 0). relevance_rank: the share of the K most relevant
    pixels that lies in M (both Arras et al. 2022).
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
        self.check_choices(maps=MAPS)
        if self.explain == "predicted":
            self.needs = frozenset({"masks"})

    def rows(self, subject: Subject, batch: Batch, methods: Sequence[MethodSpec]) -> Iterator[Row]:
        target = classes_to_explain(batch, self.explain, "Localisation", truth="masks")
        assert batch.masks is not None, "asked for above"
        empty = ~(batch.masks == FOREGROUND).flatten(1).any(1)
        for spec in methods:
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
                row: Row = {"index": index, "key": key, "method": spec.label}
                yield row | numbers | {"error": errors[i]}


def scores(
    values: Float[Tensor, "b h w"], masks: Int8[Tensor, "b h w"], tolerance: int = 0
) -> Float[Tensor, "b columns"]:
    """Return `COLUMNS` of every map, in float64; every mask has foreground."""
    inside = masks == FOREGROUND
    found = agreement_with(
        inside.flatten(1),
        values.flatten(1),
        counted=(masks != IGNORED).flatten(1),
        near=within(inside, tolerance).flatten(1),
    )
    return torch.stack([found[column] for column in COLUMNS], 1)


def within(mask: Bool[Tensor, "b h w"], distance: int) -> Bool[Tensor, "b h w"]:
    """Return the pixels whose centre is at most `distance` pixels from one of the mask."""
    if distance == 0:
        return mask
    steps = torch.arange(-distance, distance + 1, device=mask.device)
    disc = (steps[:, None] ** 2 + steps**2 <= distance**2).double()
    return F.conv2d(mask.double()[:, None], disc[None, None], padding=distance)[:, 0] > 0.5
