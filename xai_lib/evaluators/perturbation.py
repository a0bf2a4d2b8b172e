"""Perturbation: accuracy while the most (or least) relevant pixels are blacked out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from xai_lib.errors import OptionError, TargetError, unknown_name
from xai_lib.evaluators.base import Batch, Evaluator, Row, Subject
from xai_lib.evaluators.maps import Maps, check_maps, explained, ranks
from xai_lib.evaluators.registry import evaluator
from xai_lib.evaluators.specs import MethodSpec
from xai_lib.evaluators.streaming import Edits, stream
from xai_lib.statistics.metric import Metric

STEPS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
EXPLAINED = ("predicted", "target")
FILLS = ("black", "mean")
ORDERS = ("positive", "negative")
BETTER = {"positive": "low", "negative": "high"}
CURVES = ("hits", "log_odds", "logit_change", "probability_change")
MEANS = ("auc_cvpr21", "auc_tmlr23", "mean_log_odds", "mean_probability_change")


@evaluator("perturbation")
@dataclass(frozen=True)
class Perturbation(Evaluator):
    """Chefer et al. (CVPR 2021, section 4) and Chen et al. (TMLR 2023): pixels made black.

    For every fraction f of `steps`, int(H·W·f) pixels of the clean image become 0 in all channels
    of the image in [0, 1], before normalisation (fill "black"), or after it (fill "mean", the
    model's mean colour, as published for CLIP by Chen et al.): the most relevant ones (order
    "positive", where a fast fall is good) or the least relevant ones ("negative", where a slow one
    is). Pixels of equal relevance go row by row. The map is the predicted class's or the label's
    ("target"); a method that knows no classes has the same row in both. maps: see `maps.explained`.

    Curves, one entry a step, the first two with the clean image in front: hits, whether the label
    is predicted; log_odds, log(p_label / p_second) with the second largest probability of all;
    logit_change and probability_change, the largest value after less the largest before, whichever
    class holds it.
    auc_cvpr21: trapezoid of the accuracy over f from 0 to the last step. auc_tmlr23: the same up to
    f = 1, where accuracy is set to 0. Both are linear in the samples: a row holds its own share.
    mean_log_odds, mean_probability_change: over the steps, clean image left out.
    """

    steps: list | tuple = STEPS
    maps: str = "native"
    fill: str = "black"

    needs = frozenset({"labels"})
    groups = ("method", "explained", "order")
    metrics = (
        Metric("auc_cvpr21", ("auc_cvpr21",), better=BETTER, scale=100),
        Metric("auc_tmlr23", ("auc_tmlr23",), better=BETTER, scale=100),
        Metric("mean_log_odds", ("mean_log_odds",), better=BETTER),
        Metric("mean_probability_change", ("mean_probability_change",), better=BETTER),
    )

    def __post_init__(self):
        object.__setattr__(self, "steps", check_steps(self.steps))
        check_maps(self.maps)
        if self.fill not in FILLS:
            raise unknown_name("fill", self.fill, FILLS)

    def rows(self, subject: Subject, batch: Batch, methods: Sequence[MethodSpec]) -> Iterator[Row]:
        if batch.labels is None:
            raise OptionError("Perturbation needs labels. `xai datasets` shows which sets have.")
        plan = _Plan(subject, batch, self.maps, self.steps, self.fill)
        clean, *perturbed = stream(subject, plan.edits(methods))
        clean, labels = clean[0].cpu(), batch.labels.cpu()
        check_labels(labels, clean.shape[1])
        tables = [
            scores(clean[samples], logits.cpu(), labels[samples], self.steps)
            for samples, logits in zip(plan.samples, perturbed, strict=True)
        ]
        for spec in methods:
            for of in EXPLAINED:
                sources = plan.sources[spec.label, of]
                for order, name in enumerate(ORDERS):
                    for i, (index, key) in enumerate(zip(batch.index, batch.key, strict=True)):
                        numbers, error = _numbers(tables, sources[i], order)
                        yield {
                            "index": index, "key": key, "method": spec.label,
                            "explained": of, "order": name, **numbers, "error": error,
                        }  # fmt: skip


@dataclass
class _Plan:
    """Which map scores which row, found out while the stream asks for the next edits.

    samples: of each element of the stream after the clean images, two (one an order) for each map.
    sources: per method and explained class, for every sample the number of its first element and
    its place in there, or why it has no map.
    """

    subject: Subject
    batch: Batch
    maps: str
    steps: tuple[float, ...]
    fill: str = "black"
    samples: list[list[int]] = field(default_factory=list)
    sources: dict[tuple[str, str], list[tuple[int, int] | str]] = field(default_factory=dict)

    def edits(self, methods: Sequence[MethodSpec]) -> Iterator[Edits]:
        clean = self.subject.normalize(self.batch.images)
        fill = torch.zeros_like(clean[:1, :, :1, :1])
        if self.fill == "black":
            fill = self.subject.normalize(torch.zeros_like(self.batch.images[:1, :, :1, :1]))
        counts = pixel_counts(clean.shape[-2:], self.steps)
        yield Edits.none(clean)
        for spec in methods:
            for samples, found in self._maps(spec):
                scored = [samples[i] for i in found.scored]
                for order in ORDERS:
                    self.samples.append(scored)
                    places = ranks(found.values[found.scored], least_first=order == "negative")
                    yield Edits(clean[scored], places, counts, fill)

    def _maps(self, spec: MethodSpec) -> Iterator[tuple[list[int], Maps]]:
        """Yield the maps that the method needs and the samples that they belong to."""
        labels = self.batch.labels
        found = explained(self.subject, self.batch, spec, maps=self.maps)
        sources = self._sources(found)
        self.sources[spec.label, "predicted"] = sources
        self.sources[spec.label, "target"] = sources.copy()
        yield [*range(len(self.batch))], found
        # Where the label is what the model predicts, one map serves both; where there is not even
        # a prediction, neither does another target help.
        other = (found.predicted >= 0) & (found.predicted != labels.to(found.predicted.device))
        wrong = other.nonzero().flatten().tolist()
        if not spec.class_specific or not wrong:
            return
        targets = labels[wrong]
        found = explained(
            self.subject, self.batch[wrong], spec, targets, maps=self.maps, keep=False
        )
        for i, source in zip(wrong, self._sources(found), strict=True):
            self.sources[spec.label, "target"][i] = source
        yield wrong, found

    def _sources(self, found: Maps) -> list[tuple[int, int] | str]:
        places = {i: place for place, i in enumerate(found.scored)}
        first = len(self.samples)
        return [
            (first, places[i]) if error is None else error for i, error in enumerate(found.errors)
        ]


def check_steps(steps: Sequence[float]) -> tuple[float, ...]:
    """Return `steps` as a tuple of rising fractions between 0 and 1, or raise an OptionError."""
    numbers = [s for s in steps if isinstance(s, int | float) and 0 < s < 1]
    if not numbers or len(numbers) < len(steps) or any(np.diff(numbers) <= 0):
        raise OptionError(
            f"steps is {list(steps)!r}; expected rising fractions between 0 and 1, both left out, "
            f"such as {list(STEPS)}."
        )
    return tuple(map(float, numbers))


def check_labels(labels: Int[Tensor, " b"], classes: int) -> None:
    """Raise a TargetError unless all labels are classes of the model, which has two at least."""
    if classes < 2:
        raise TargetError(
            f"The model has {classes} class; perturbation compares the label with the next class, "
            "so it needs two at least."
        )
    wrong = labels[(labels < 0) | (labels >= classes)].tolist()
    if wrong:
        raise TargetError(
            f"The data set has the label {wrong[0]}, but the model has the classes 0 to "
            f"{classes - 1}. Model and data set do not belong together, or labels count otherwise."
        )


def pixel_counts(size: Sequence[int], steps: Sequence[float]) -> tuple[int, ...]:
    """Return int(H·W·f) for each fraction f."""
    pixels = size[0] * size[1]
    return tuple(int(pixels * step) for step in steps)


def scores(
    clean: Float[Tensor, "b classes"],
    perturbed: Float[Tensor, "steps b classes"],
    labels: Int[Tensor, " b"],
    steps: Sequence[float],
) -> dict[str, np.ndarray]:
    """Return `CURVES` (b, steps, with or without the clean image) and `MEANS` (b,)."""
    logits = torch.cat([clean[None], perturbed]).double().transpose(0, 1)
    chosen = logits.gather(2, labels[:, None, None].expand(-1, logits.shape[1], 1)).squeeze(2)
    top = logits.topk(2, dim=2).values
    hits = (logits.argmax(2) == labels[:, None]).double()
    # The log of a ratio of probabilities is a difference of logits, which never is 0/0.
    log_odds = chosen - top[..., 1]
    logit_change = top[:, 1:, 0] - top[:, :1, 0]
    largest = logits.softmax(2).amax(2)
    probability_change = largest[:, 1:] - largest[:, :1]
    curves = (hits, log_odds, logit_change, probability_change)
    x = torch.tensor([0.0, *steps], dtype=torch.float64)
    ended = torch.cat([hits, torch.zeros_like(hits[:, :1])], 1)
    means = (
        torch.trapezoid(hits, x),
        torch.trapezoid(ended, torch.cat([x, x.new_ones(1)])),
        log_odds[:, 1:].mean(1),
        probability_change.mean(1),
    )
    named = dict(zip((*CURVES, *MEANS), (*curves, *means), strict=True))
    return {name: values.numpy() for name, values in named.items()}


def _numbers(
    tables: list[dict[str, np.ndarray]], source: tuple[int, int] | str, order: int
) -> tuple[Row, str | None]:
    """Return the columns of one row, and None or the reason why they are None."""
    error = source if isinstance(source, str) else None
    if error is None:
        first, place = source
        row = {name: values[place].tolist() for name, values in tables[first + order].items()}
        if np.isfinite(row["mean_log_odds"]) and np.isfinite(row["mean_probability_change"]):
            return row, None
        error = "The model's logits hold NaN or Inf for a perturbed image of this sample"
    return dict.fromkeys((*CURVES, *MEANS)), error
