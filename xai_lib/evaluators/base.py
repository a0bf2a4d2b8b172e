"""What every evaluator is: a function from a model, a batch and methods to one row a sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from xai_lib.errors import unknown_name
from xai_lib.evaluators.batches import AnyBatch
from xai_lib.evaluators.specs import MethodSpec, parse_methods
from xai_lib.statistics.metric import Metric

Row = dict[str, Any]


@dataclass
class Subject:
    """The model under study and how images, texts or questions become its input.

    processor: one of `xai_lib.models`, of whatever kind, since evaluators only ask it. batch_size:
    samples per forward pass. keep: where a run stores maps, called with (method label, sample
    index, relevance of the patches or tokens) for each; of a sample's maps the first counts.
    prepared: what `Evaluator.prepare` returned for this model, None where it has not run.
    """

    model: nn.Module
    processor: Any
    batch_size: int = 8
    keep: Callable[[str, int, Tensor], None] | None = field(default=None, repr=False)
    prepared: Any = field(default=None, repr=False)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(p.dtype for p in self.model.parameters() if p.is_floating_point())

    def normalize(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Return (image - mean) / std in the model's dtype."""
        return self.processor.of(images).to(self.dtype)

    def inputs(
        self, batch: AnyBatch, **options: Any
    ) -> Float[Tensor, "b 3 h w"] | Mapping[str, Shaped[Tensor, "..."]]:
        """Return what `xai.explain` and the model take of a batch, on the device, in its dtype.

        options: of the processor's `of`. Raises InputError where a sample makes no input.
        """
        inputs = self.processor.of(batch.contents, **options)
        if isinstance(inputs, Tensor):
            return inputs.to(self.dtype)
        inputs = inputs.to(self.device)
        for name, values in inputs.items():
            if values.is_floating_point():
                inputs[name] = values.to(self.dtype)
        return inputs


class Evaluator(ABC):
    """A dataclass whose fields are its options (JSON values), and these class attributes.

    name: set by `@evaluator("name")`, which is all that it takes to be found; modality: "image",
    "text" or "question", what its batches hold (`Batch`, `TextBatch`, `QuestionBatch`), or several
    of them; needs: of "labels", "masks", "rationales", "answers" (a label, or scores of answers)
    and "evidence" (of a question); metrics; groups: the columns that, beside the sample, make a row
    its own (the first is always "method"). Options are checked in `__post_init__`.
    """

    name: ClassVar[str]
    modality: ClassVar[str | tuple[str, ...]] = "image"
    # Of a class, unless options change what an evaluator needs or what is better.
    needs: frozenset[str] = frozenset()
    metrics: tuple[Metric, ...]
    groups: ClassVar[tuple[str, ...]] = ("method",)

    @classmethod
    def modalities(cls) -> tuple[str, ...]:
        """Return what its batches may hold."""
        return (cls.modality,) if isinstance(cls.modality, str) else cls.modality

    @classmethod
    def parse_methods(cls, methods: str | Iterable[str]) -> list[MethodSpec]:
        """Return what is to be evaluated: explanation methods, where nothing else is said."""
        return parse_methods(methods)

    def check_choices(self, **known: Sequence[str | None]) -> None:
        """Raise an OptionError for an option, by name, that is none of its known values."""
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise unknown_name(name, str(getattr(self, name)), [v for v in values if v])

    def first_samples(self, count: int, evaluated: Sequence[int]) -> tuple[int, ...]:
        """Return which of the data set's `count` samples `prepare` has to see; most need none.

        evaluated: those of the run. Depends on nothing else, so that every process agrees.
        """
        return ()

    def prepare(
        self, subject: Subject, batches: Iterable[AnyBatch], methods: Sequence[MethodSpec]
    ) -> object:
        """Return what `rows` finds as `subject.prepared`, made of the samples asked for above."""
        return None

    @abstractmethod
    def rows(
        self, subject: Subject, batch: AnyBatch, methods: Sequence[MethodSpec]
    ) -> Iterator[Row]:
        """Yield the records of a batch.

        Each row holds `index` and `key` of its sample, the `groups` columns, every column that a
        metric reads (floats, or lists of floats for curves), and `error`: None, or one sentence
        that says why this row has no numbers (they are then None). A sample that cannot be scored
        is always such a row, never missing; a row may leave groups after the method None, and then
        stands for all of that method's. Deterministic given the evaluator's own seed and the
        sample's index, whatever the batch; the model comes back as it was.
        """
