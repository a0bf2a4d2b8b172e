"""What every evaluator is: a function from a model, a batch and methods to one row a sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor, nn

from xai_lib.evaluators.specs import MethodSpec, parse_methods
from xai_lib.models.processors.image import Processor
from xai_lib.models.processors.question import QuestionProcessor
from xai_lib.models.processors.text import TextProcessor
from xai_lib.statistics.metric import Metric

if TYPE_CHECKING:
    from xai_lib.datasets.base import QuestionSample

Row = dict[str, object]


@dataclass(frozen=True)
class Batch:
    """Samples as the model's processor squashed them, still in [0, 1].

    index: place in the data set; key: name. images: (b, 3, H, W), not yet normalised, on the
    model's device. labels: (b,), or None. masks: (b, H, W) by nearest neighbour, or None.
    """

    index: tuple[int, ...]
    key: tuple[str, ...]
    images: Float[Tensor, "b 3 h w"]
    labels: Int[Tensor, " b"] | None = None
    masks: Int8[Tensor, "b h w"] | None = None

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: slice | Sequence[int]) -> Batch:
        chosen = torch.arange(len(self))[rows].reshape(-1)
        picked = chosen.tolist()
        return Batch(
            tuple(self.index[i] for i in picked),
            tuple(self.key[i] for i in picked),
            *(None if v is None else v[chosen] for v in (self.images, self.labels, self.masks)),
        )


@dataclass(frozen=True)
class TextBatch:
    """Texts as they were read.

    index, key: as in `Batch`. texts: one or two strings a sample. labels: (b,), or None.
    rationales: per sample the (start, end) character spans of its first text, or None.
    """

    index: tuple[int, ...]
    key: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]
    labels: Int[Tensor, " b"] | None = None
    rationales: tuple[tuple[tuple[int, int], ...], ...] | None = None

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: slice | Sequence[int]) -> TextBatch:
        picked = torch.arange(len(self))[rows].reshape(-1).tolist()

        def of(values):
            return None if values is None else tuple(values[i] for i in picked)

        labels = None if self.labels is None else self.labels[picked]
        return TextBatch(of(self.index), of(self.key), of(self.texts), labels, of(self.rationales))


@dataclass(frozen=True)
class QuestionBatch:
    """Questions on image regions as they were read, without their images.

    index, key: as in `Batch`. answers: per sample the score in [0, 1] of each right answer, by the
    model's class; None where nobody knows. An answer that is no class of the model is left out.
    labels: the class of the best answer, (b,), or None.
    """

    index: tuple[int, ...]
    key: tuple[str, ...]
    samples: tuple[QuestionSample, ...]
    answers: tuple[Mapping[int, float] | None, ...]
    labels: Int[Tensor, " b"] | None = None

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: slice | Sequence[int]) -> QuestionBatch:
        picked = torch.arange(len(self))[rows].reshape(-1).tolist()
        columns = (self.index, self.key, self.samples, self.answers)
        labels = None if self.labels is None else self.labels[picked]
        return QuestionBatch(*(tuple(values[i] for i in picked) for values in columns), labels)


AnyBatch = Batch | TextBatch | QuestionBatch


@dataclass
class Subject:
    """The model under study and how images, texts or questions become its input.

    batch_size: samples per forward pass. keep: where a run stores maps, called with (method label,
    sample index, relevance of the patches or tokens) for each; of a sample's maps the first counts.
    prepared: what `Evaluator.prepare` returned for this model, None where it has not run.
    """

    model: nn.Module
    processor: Processor | TextProcessor | QuestionProcessor
    batch_size: int = 8
    keep: Callable[[str, int, Tensor], None] | None = field(default=None, repr=False)
    prepared: object = field(default=None, repr=False)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(p.dtype for p in self.model.parameters() if p.is_floating_point())

    def normalize(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Return (image - mean) / std in the model's dtype."""
        mean, std = (
            images.new_tensor(v).view(-1, 1, 1) for v in (self.processor.mean, self.processor.std)
        )
        return ((images - mean) / std).to(self.dtype)


class Evaluator(ABC):
    """A frozen dataclass whose fields are its options (JSON values), and these class attributes.

    name: set by `@evaluator("name")`, which is all that it takes to be found; modality: "image",
    "text" or "question", what its batches hold (`Batch`, `TextBatch`, `QuestionBatch`), or several
    of them; needs: of "labels", "masks", "rationales", "answers" (a label, or scores of answers)
    and "evidence" (of a question); metrics; groups: the columns that, beside the sample, make a row
    its own (the first is always "method"). Options are checked in
    `__post_init__`.
    """

    name: ClassVar[str]
    modality: ClassVar[str | tuple[str, ...]] = "image"
    needs: ClassVar[frozenset[str]] = frozenset()
    metrics: ClassVar[tuple[Metric, ...]]
    groups: ClassVar[tuple[str, ...]] = ("method",)

    @classmethod
    def modalities(cls) -> tuple[str, ...]:
        """Return what its batches may hold."""
        return (cls.modality,) if isinstance(cls.modality, str) else cls.modality

    @classmethod
    def parse_methods(cls, methods: str | Iterable[str]) -> list[MethodSpec]:
        """Return what is to be evaluated: explanation methods, where nothing else is said."""
        return parse_methods(methods)

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
