"""Samples of a data set as evaluators take them: one class a modality, and how it is read."""

from __future__ import annotations

import dataclasses
import operator
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor

from xai_lib.datasets.base import QuestionSample, Sample, TextSample
from xai_lib.errors import InputError

Some = TypeVar("Some", bound="AnyBatch")
Spans = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class AnyBatch(ABC):
    """Samples of one kind; a slice or a list of places gives fewer of them.

    index: place in the data set; key: name; labels: (b,), or None. modality: what it holds, in the
    field `content`.
    """

    modality: ClassVar[str]
    content: ClassVar[str]
    index: tuple[int, ...]
    key: tuple[str, ...]

    @property
    @abstractmethod
    def labels(self) -> Int[Tensor, " b"] | None:
        """The classes of the samples, where they are known: a field of every kind."""

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self: Some, rows: slice | Sequence[int]) -> Some:
        chosen = torch.arange(len(self))[rows].reshape(-1)
        columns: dict[str, Any] = {n: _picked(v, chosen) for n, v in vars(self).items()}
        return type(self)(**columns)

    @property
    def contents(self) -> Sequence | Float[Tensor, "b 3 h w"]:
        """What the model's processor makes its input of: `processor.of(batch.contents)`."""
        return getattr(self, self.content)

    @classmethod
    @abstractmethod
    def read(cls, sample: Any, processor: Any) -> dict[str, object]:
        """Return the columns of one sample, checked, as they go from one process to another."""

    def arrived(self: Some, device: torch.device) -> Some:
        """Return the batch with its tensors on a device, as it came from another process."""
        moved: dict[str, Any] = {
            n: v.to(device) for n, v in vars(self).items() if isinstance(v, Tensor)
        }
        return dataclasses.replace(self, **moved)

    def credits(self) -> list[Mapping[int, float] | None]:
        """Return for each sample what a predicted class is worth in [0, 1]; None where unknown.

        1 for the label; of questions with scores of their answers these, in VQA min(people who said
        so / 3, 1) (Antol et al., ICCV 2015). Classes that are left out are worth 0.
        """
        if self.labels is None:
            return [None] * len(self)
        return [{label: 1.0} for label in self.labels.tolist()]


@dataclass(frozen=True)
class Batch(AnyBatch):
    """Images as the model's processor squashed them, still in [0, 1].

    images: (b, 3, H, W), not yet normalised, on the model's device. masks: (b, H, W) by nearest
    neighbour, or None.
    """

    images: Float[Tensor, "b 3 h w"]
    labels: Int[Tensor, " b"] | None = None
    masks: Int8[Tensor, "b h w"] | None = None

    modality, content = "image", "images"

    @classmethod
    def read(cls, sample: Sample, processor: Any) -> dict[str, object]:
        image = processor.squash(sample.image)
        if sample.mask is None:
            return {"images": image, "masks": None}
        given = sample.image
        size = given.shape[-2:] if isinstance(given, Tensor) else (given.height, given.width)
        if tuple(sample.mask.shape) != tuple(size):
            raise InputError(
                f"Its mask is {tuple(sample.mask.shape)}, its image {tuple(size)} (height, width): "
                "expected equal sizes."
            )
        return {"images": image, "masks": processor.squash_mask(sample.mask)}


@dataclass(frozen=True)
class TextBatch(AnyBatch):
    """Texts as they were read.

    texts: one or two strings a sample. rationales: per sample the (start, end) character spans of
    its first text, or None.
    """

    texts: tuple[tuple[str, ...], ...]
    labels: Int[Tensor, " b"] | None = None
    rationales: tuple[Spans, ...] | None = None

    modality, content = "text", "texts"

    @classmethod
    def read(cls, sample: TextSample, processor: Any) -> dict[str, object]:
        wrong = next((t for t in sample.texts if not isinstance(t, str)), None)
        if wrong is not None:
            raise InputError(f"Its text is {type(wrong).__name__}; expected a str.")
        return {"texts": sample.texts, "rationales": _spans(sample.rationale, sample.text)}


@dataclass(frozen=True)
class QuestionBatch(AnyBatch):
    """Questions on image regions as they were read, without their images.

    answers: per sample the score in [0, 1] of each right answer, by the model's class; None where
    nobody knows. An answer that is no class of the model is left out. labels: the class of the best
    answer, or None.
    """

    samples: tuple[QuestionSample, ...]
    answers: tuple[Mapping[int, float] | None, ...]
    labels: Int[Tensor, " b"] | None = None

    modality, content = "question", "samples"

    @classmethod
    def read(cls, sample: QuestionSample, processor: Any) -> dict[str, object]:
        if sample.features is None or sample.boxes is None:
            raise InputError(
                "It has no regions: open its data set with features and boxes of a detector."
            )
        regions, count = sample.regions, len(sample.features)
        if regions is not None and tuple(regions.shape) != (count,):
            raise InputError(
                f"It says which of {tuple(regions.shape)} regions decide, but has {count}."
            )
        # Regions differ in number, so they cannot be stacked where they are read, and a tensor that
        # goes from one process to another takes an open file; an array takes none.
        arrays = {n: None if v is None else torch.as_tensor(v).numpy() for n, v in _seen(sample)}
        rationale = _spans(sample.rationale, sample.question)
        sample = dataclasses.replace(sample, **arrays, rationale=rationale, image=None)
        return {"samples": sample}

    def arrived(self, device: torch.device) -> QuestionBatch:
        samples = tuple(
            dataclasses.replace(
                one, **{n: None if v is None else torch.from_numpy(v) for n, v in _seen(one)}
            )
            for one in self.samples
        )
        return super(QuestionBatch, dataclasses.replace(self, samples=samples)).arrived(device)

    def credits(self) -> list[Mapping[int, float] | None]:
        return list(self.answers)


BATCHES: dict[str, type[AnyBatch]] = {b.modality: b for b in (Batch, TextBatch, QuestionBatch)}


def stacked(
    modality: str, index: Sequence[int], key: Sequence[str], columns: Mapping[str, Sequence]
) -> AnyBatch:
    """Return samples as one batch: a column of tensors or labels as a tensor, others as tuples.

    A column in which a sample has nothing is None, unless the batch has no default for it.
    """
    kind = BATCHES[modality]
    needed = {f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING}
    made = {name: _column(values, name in needed) for name, values in columns.items()}
    return kind(index=tuple(index), key=tuple(key), **made)


def _column(values: Sequence, needed: bool):
    if not needed and any(value is None for value in values):
        return None
    if isinstance(values[0], Tensor | int):
        return torch.stack([torch.as_tensor(value) for value in values])
    return tuple(values)


def _picked(column, chosen: Tensor):
    if column is None or isinstance(column, Tensor):
        return None if column is None else column[chosen]
    return tuple(column[i] for i in chosen.tolist())


def _seen(sample: QuestionSample) -> list[tuple[str, object]]:
    return [(name, getattr(sample, name)) for name in ("features", "boxes", "regions")]


def _spans(spans, text: str) -> Spans | None:
    """Return the character spans of a text's rationale, checked."""
    if spans is None:
        return None
    spans = tuple((operator.index(start), operator.index(end)) for start, end in spans)
    for start, end in spans:
        if not 0 <= start < end <= len(text):
            raise InputError(
                f"Its rationale has the span ({start}, {end}), its text {len(text)} characters: "
                "expected 0 <= start < end <= that."
            )
    return spans
