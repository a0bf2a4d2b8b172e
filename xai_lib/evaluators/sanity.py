"""Sanity: does an explanation change when what the model has learnt is taken away."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from xai_lib.evaluators.base import Evaluator, Row, Subject
from xai_lib.evaluators.batches import Batch
from xai_lib.evaluators.maps import MAPS, explained, min_max
from xai_lib.evaluators.randomisation import cascade_of
from xai_lib.evaluators.registry import evaluator
from xai_lib.evaluators.similarity import errors_with_constant, spearman, ssim
from xai_lib.evaluators.specs import MethodSpec
from xai_lib.statistics.metric import Metric

CURVES = ("rank_correlation", "rank_correlation_abs", "ssim")
COLUMNS = tuple(f"{curve}_{which}" for curve in CURVES for which in ("mean", "full"))
CONSTANT = "The relevance of {method!r} is the same everywhere in this sample, so it ranks nothing"


@evaluator("sanity")
@dataclass(frozen=True)
class Sanity(Evaluator):
    """Cascading parameter randomisation (Adebayo et al. 2018): how like the map stays.

    The model's stages turn random one after the other from the output to the input, each parameter
    with normal numbers of its own mean and standard deviation (`randomisation`). After each, the
    class that the original model predicts is explained again, and the map compared with the
    original one: Spearman's rank correlation, the same of absolute values, and SSIM of the two maps
    scaled to [0, 1]. Lower is better: what does not change cannot be about the model. Methods that
    know no class are measured too; they react to the stages below their attention maps.

    Columns beside the metrics: the three curves, an entry a depth, and `stages`, the name of the
    part that was randomised last. _mean: over the depths, _full: with everything random. A depth at
    which the random model's map is constant or not finite has no entry (None) for the correlations,
    and is left out of the mean; SSIM takes a constant map as 0. A constant original map is an error
    row. seed: of the random parameters. maps: see `maps.explained`.
    """

    seed: int = 0
    maps: str = "native"

    metrics = tuple(Metric(column, (column,), better="low") for column in COLUMNS)

    def __post_init__(self):
        self.check_choices(maps=MAPS)

    def rows(self, subject: Subject, batch: Batch, methods: Sequence[MethodSpec]) -> Iterator[Row]:
        found = {m.label: explained(subject, batch, m, maps=self.maps) for m in methods}
        errors = {
            label: errors_with_constant(maps.errors, maps.values, CONSTANT.format(method=label))
            for label, maps in found.items()
        }
        if all(None not in reasons for reasons in errors.values()):
            # Nothing to compare, and images that the model may refuse show no stages either.
            yield from self._rows(batch, methods, errors, {}, ())
            return
        cascade = cascade_of(subject.model, subject.normalize(batch.images[:1]), self.seed)
        curves = {(m.label, i): ([], [], []) for m in methods for i in range(len(batch))}
        for depth in range(1, len(cascade.stages) + 1):
            with cascade.randomised(depth) as model:
                random = replace(subject, model=model, keep=None)
                for spec in methods:
                    good = [i for i, error in enumerate(errors[spec.label]) if error is None]
                    if not good:
                        continue
                    target = found[spec.label].predicted[good]
                    new = explained(random, batch[good], spec, target, maps=self.maps, keep=False)
                    entries = likeness(found[spec.label].values[good], new.values)
                    for i, entry in zip(good, entries, strict=True):
                        for curve, value in zip(curves[spec.label, i], entry, strict=True):
                            curve.append(value)
        yield from self._rows(batch, methods, errors, curves, cascade.stages)

    @staticmethod
    def _rows(
        batch: Batch,
        methods: Sequence[MethodSpec],
        errors: dict[str, list[str | None]],
        curves: dict[tuple[str, int], tuple[list[float | None], ...]],
        stages: tuple[str, ...],
    ) -> Iterator[Row]:
        for spec in methods:
            for i, (index, key) in enumerate(zip(batch.index, batch.key, strict=True)):
                error = errors[spec.label][i]
                numbers = dict.fromkeys((*COLUMNS, *CURVES, "stages"))
                if error is None:
                    numbers |= _numbers(curves[spec.label, i]) | {"stages": list(stages)}
                row = {"index": index, "key": key, "method": spec.label}
                yield row | numbers | {"error": error}


def likeness(
    before: Float[Tensor, "b h w"], after: Float[Tensor, "b h w"]
) -> list[tuple[float | None, ...]]:
    """Return the values of `CURVES` for each pair of maps (b, H, W), None where undefined."""
    measured = (
        spearman(before, after),
        spearman(before.abs(), after.abs()),
        ssim(min_max(before), min_max(after)),
    )
    lines = torch.stack(measured, 1).tolist()
    return [tuple(v if math.isfinite(v) else None for v in line) for line in lines]


def _numbers(curves: tuple[list[float | None], ...]) -> dict[str, object]:
    numbers: dict[str, object] = {}
    for name, curve in zip(CURVES, curves, strict=True):
        known = [value for value in curve if value is not None]
        numbers[f"{name}_mean"] = sum(known) / len(known) if known else None
        numbers[f"{name}_full"] = curve[-1]
        numbers[name] = curve
    return numbers
