"""Stability: how much a map changes when the image changes and what it shows does not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from xai_lib.errors import OptionError
from xai_lib.evaluators.base import Evaluator, Row, Subject
from xai_lib.evaluators.batches import Batch
from xai_lib.evaluators.maps import MAPS, Maps, explained
from xai_lib.evaluators.randomisation import generator
from xai_lib.evaluators.registry import evaluator
from xai_lib.evaluators.similarity import spearman
from xai_lib.evaluators.specs import MethodSpec
from xai_lib.statistics.metric import Metric

COLUMNS = ("rank_correlation", "relative_change", "kept")
CONSTANT = (
    "The relevance of {method!r} is the same everywhere in this sample or after its change, so it "
    "ranks nothing"
)


@evaluator("stability")
@dataclass(frozen=True)
class Stability(Evaluator):
    """Change of the map under small noise and under a shift, for the clean image's prediction.

    noise: x' = clip(x + noise · ε, 0, 1) in the image's [0, 1], ε normal, seeded by (seed, sample).
    shift: the image moves `shift` whole patches down and right, its edge repeated behind it, so
    that patches keep their content. Compared is the part that both images show, m in the clean map
    and m' in the other, at the same content: Spearman's rank correlation, the relative change
    ‖m' - m‖ / ‖m‖, and `kept`, whether the model predicts the class that it did. The class that is
    explained is always that of the clean image.

    A map that is constant there, before or after, ranks nothing: an error row. maps: see
    `maps.explained`.
    """

    noise: float = 0.02
    shift: int = 1
    seed: int = 0
    maps: str = "native"

    groups = ("method", "change")
    metrics = (
        Metric("rank_correlation", ("rank_correlation",)),
        Metric("relative_change", ("relative_change",), better="low"),
        Metric("prediction_kept", ("kept",), better=None, scale=100),
    )

    def __post_init__(self):
        if not (math.isfinite(self.noise) and self.noise > 0):
            raise OptionError(f"noise is {self.noise}; expected a standard deviation above 0.")
        if self.shift < 1:
            raise OptionError(f"shift is {self.shift}; expected 1 or more patches.")
        self.check_choices(maps=MAPS)

    def rows(self, subject: Subject, batch: Batch, methods: Sequence[MethodSpec]) -> Iterator[Row]:
        noisy = replace(batch, images=with_noise(batch, self.noise, self.seed))
        for spec in methods:
            clean = explained(subject, batch, spec, maps=self.maps)
            step = self._step(clean)
            moved = replace(batch, images=shifted(batch.images, step))
            for change, changed, offset in (("noise", noisy, (0, 0)), ("shift", moved, step)):
                lines, errors = self._compared(subject, changed, spec, clean, offset)
                for i, (index, key) in enumerate(zip(batch.index, batch.key, strict=True)):
                    yield {
                        "index": index, "key": key, "method": spec.label, "change": change,
                        **dict(zip(COLUMNS, lines.get(i, [None] * len(COLUMNS)), strict=True)),
                        "error": errors[i],
                    }  # fmt: skip

    def _step(self, clean: Maps) -> tuple[int, int]:
        """Return the shift in pixels, down and right."""
        height, width = clean.values.shape[-2:]
        rows, columns = clean.patches.shape[-2:]
        if self.shift >= min(rows, columns) > 0:
            raise OptionError(
                f"shift is {self.shift}, but the model sees {rows} x {columns} patches; expected "
                "fewer than that, so that something of the image is left."
            )
        # Without any map there is no patch grid, and nothing to compare either.
        return (self.shift * (height // max(rows, 1)), self.shift * (width // max(columns, 1)))

    def _compared(
        self,
        subject: Subject,
        changed: Batch,
        spec: MethodSpec,
        clean: Maps,
        offset: tuple[int, int],
    ) -> tuple[dict[int, list[float]], list[str | None]]:
        """Return the numbers of the samples that have some, and why the others have none."""
        errors, good = list(clean.errors), clean.scored
        if not good:
            return {}, errors
        target = clean.predicted[good]
        found = explained(subject, changed[good], spec, target, maps=self.maps, keep=False)
        down, right = offset
        height, width = found.values.shape[-2:]
        before = clean.values[good][:, : height - down, : width - right]
        after = found.values[:, down:, right:]
        kept = (found.predicted == target).double()
        table = torch.stack((spearman(before, after), relative_change(before, after), kept), 1)
        lines = {}
        for place, line, error in zip(good, table.tolist(), found.errors, strict=True):
            if error is None and not math.isnan(line[0]):
                lines[place] = line
            else:
                errors[place] = error or CONSTANT.format(method=spec.label)
        return lines, errors


def with_noise(batch: Batch, noise: float, seed: int = 0) -> Float[Tensor, "b 3 h w"]:
    """Return clip(images + noise · ε, 0, 1), ε drawn on the CPU for each (seed, sample) alone."""
    shape = batch.images.shape[1:]
    drawn = [torch.randn(shape, generator=generator(seed, index)) for index in batch.index]
    return (batch.images + noise * torch.stack(drawn).to(batch.images)).clamp(0, 1)


def shifted(images: Float[Tensor, "b c h w"], step: tuple[int, int]) -> Float[Tensor, "b c h w"]:
    """Return images moved down and right by `step` pixels, their first row and column repeated."""
    height, width = images.shape[-2:]
    padded = F.pad(images, (step[1], 0, step[0], 0), mode="replicate")
    return padded[..., :height, :width]


def relative_change(
    before: Float[Tensor, "b h w"], after: Float[Tensor, "b h w"]
) -> Float[Tensor, " b"]:
    """Return ‖after - before‖ / ‖before‖ of each pair of maps."""
    return (after - before).flatten(1).norm(dim=1) / before.flatten(1).norm(dim=1)
