"""What every image data set is: a lazy sequence of samples that knows its own name and identity."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

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


class ImageDataset(ABC):
    """A sequence of samples, read when they are asked for.

    Opening one checks what can be checked without reading every sample; `data[i]` raises InputError
    for one that is damaged. Instances pickle (open files are not kept across processes), since
    worker processes decode. name: what `open_dataset` takes. class_names: of the labels, or None.
    """

    name: str
    class_names: tuple[str, ...] | None = None
    has_labels: bool = True
    has_masks: bool = False

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample: ...

    @abstractmethod
    def fingerprint(self) -> dict[str, str | int]:
        """Return what tells this set from any other, from sizes and names, in seconds at most.

        Two openings of the same data give equal fingerprints, wherever the data lies.
        """
