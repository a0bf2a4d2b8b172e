"""What every data set is: a lazy sequence of samples that knows its own name and identity."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from jaxtyping import Float, Int8
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
    def __getitem__(self, index: int) -> Sample | TextSample: ...

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
