"""Image-classification sets of the Hugging Face hub."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image

from xai_lib.datasets.base import ImageDataset, Sample
from xai_lib.datasets.hub.rows import HubRows, label_column
from xai_lib.errors import InputError
from xai_lib.files.images import read_image

if TYPE_CHECKING:
    from datasets import Features


class HubImages(ImageDataset):
    """The images of parquet files, of one split.

    The image is the first column of the feature type Image, the label the first of ClassLabel (or
    an integer column named "label"); a label of -1 or null means None.
    """

    def __init__(self, name: str, rows: HubRows):
        self.name, self._rows = name, rows
        self._image = image_columns(rows.features)[0]
        self._label, self.class_names = label_column(rows.features)
        self.has_labels = self._label is not None

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        columns = (self._image,) if self._label is None else (self._image, self._label)
        row = self._rows.row(index, columns)
        label = row[self._label] if self._label is not None else None
        if label is not None and label < 0:
            label = None
        stored = row[self._image] or {}
        if not stored.get("bytes"):
            raise InputError(f"Sample {index} of {self.name} has no image stored in the file.")
        image = _decode(stored["bytes"], f"Sample {index} of {self.name}")
        return Sample(f"{index:06d}", image, label)

    def fingerprint(self) -> dict[str, str | int]:
        """Return number, total size and the digest of all names and parquet footers."""
        return self._rows.fingerprint()


def image_columns(features: Features) -> list[str]:
    """Return the columns that hold images."""
    from datasets import Image as ImageFeature

    images = [key for key, feature in features.items() if isinstance(feature, ImageFeature)]
    # Files that other programs wrote lack the types: an image is then a struct with its bytes.
    return images + [
        k for k, kind in features.items() if isinstance(kind, dict) and "bytes" in kind
    ]


def _decode(data: bytes, place: str):
    try:
        with Image.open(io.BytesIO(data)) as image:
            return read_image(image)
    except InputError as error:
        raise InputError(f"{place} cannot be decoded: {error}") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(
            f"{place} cannot be decoded, its image is damaged or truncated ({error})."
        ) from error
