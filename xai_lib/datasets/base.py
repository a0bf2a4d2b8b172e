"""What every data set is: a lazy sequence of samples that knows its own name and identity."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from jaxtyping import Bool, Float, Int8
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

# Mask values: what decides the label, everything else, and pixels that no score counts.
FOREGROUND, BACKGROUND, IGNORED = 1, 0, -1


@dataclass(frozen=True)
class Sample:
    """One image and what is known about it.

    key: a name that stays the same, such as the file's. image: RGB, at its own size. label: class
    index, or None. mask: FOREGROUND, BACKGROUND or IGNORED per pixel of the image, or None.
    """

    key: str
    image: Image | Float[Tensor, "3 h w"]
    label: int | None = None
    mask: Int8[Tensor, "h w"] | None = None


@dataclass(frozen=True)
class TextSample:
    """One text and what is known about it.

    key: a name that stays the same, such as the file's. text: as it was read. pair: the second text
    of a task on two (a question and its answer), or None. label: class index, or None. rationale:
    the characters that decide the label, as (start, end) spans of `text`, end exclusive, in order
    and without overlap; () for a text that has none, None where nobody knows.
    """

    key: str
    text: str
    pair: str | None = None
    label: int | None = None
    rationale: tuple[tuple[int, int], ...] | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """The one or two texts."""
        return (self.text,) if self.pair is None else (self.text, self.pair)


@dataclass(frozen=True)
class QuestionSample:
    """One question on one image and what is known about both.

    key: a name that stays the same, such as the question's number. question: as it was read.
    features (regions, dim) and boxes (regions, 4): what a detector saw, each box as x0, y0, x1, y1
    in parts of the image's width and height; None where the set brings no regions. image: RGB, or
    None where only its regions are known. answers: the score in [0, 1] of each accepted answer
    (VQA: min(people who said so / 3, 1)); empty where none is accepted, so that any is wrong; None
    where nobody knows. label: the index of the best answer among the class names, or None. regions:
    bool (regions,), those that decide the answer, and rationale: the characters of the question
    that do, as spans; None where nobody knows.
    """

    key: str
    question: str
    features: Float[Tensor, "r d"] | None = None
    boxes: Float[Tensor, "r 4"] | None = None
    image: Image | Float[Tensor, "3 h w"] | None = None
    answers: Mapping[str, float] | None = None
    label: int | None = None
    regions: Bool[Tensor, " r"] | None = None
    rationale: tuple[tuple[int, int], ...] | None = None


class Dataset(ABC):
    """A sequence of samples, read when they are asked for.

    Opening one checks what can be checked without reading every sample; `data[i]` raises InputError
    for one that is damaged. Instances pickle (open files are not kept across processes), since
    worker processes decode. name: what `open_dataset` takes. class_names: of the labels, or None.
    """

    modality: ClassVar[str]
    name: str
    class_names: tuple[str, ...] | None = None
    has_labels: bool = True

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample | TextSample | QuestionSample: ...

    @abstractmethod
    def fingerprint(self) -> dict[str, str | int]:
        """Return what tells this set from any other, from sizes and names, in seconds at most.

        Two openings of the same data give equal fingerprints, wherever the data lies.
        """


class ImageDataset(Dataset):
    """A data set of images; has_masks: whether its samples say which pixels decide the label."""

    modality = "image"
    has_masks: bool = False

    @abstractmethod
    def __getitem__(self, index: int) -> Sample: ...


class TextDataset(Dataset):
    """A data set of texts; has_rationales: whether its samples say which words decide the label."""

    modality = "text"
    has_rationales: bool = False

    @abstractmethod
    def __getitem__(self, index: int) -> TextSample: ...


class QuestionDataset(Dataset):
    """A data set of questions on images; its class names are the answers a model chooses from.

    has_evidence: whether its samples say which regions and words decide the answer.
    """

    modality = "question"
    has_evidence: bool = False

    @abstractmethod
    def __getitem__(self, index: int) -> QuestionSample: ...
