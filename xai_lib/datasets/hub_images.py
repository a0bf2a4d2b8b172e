"""Image-classification sets of the Hugging Face hub: parquet files, read a row group at a time."""

from __future__ import annotations

import hashlib
import io
import re
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from xai_lib.datasets.base import ImageDataset, Sample
from xai_lib.datasets.hub_files import HubName, fetch_split
from xai_lib.errors import InputError
from xai_lib.models.images import read_image

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq


class HubImages(ImageDataset):
    """One split of a hub's data set; the row group that was read last is all that stays in memory.

    The image is the first column of the feature type Image, the label the first of ClassLabel (or
    an integer column named "label"); a label of -1 or null means None. A row group of the hub's
    own conversion is 100 images or about 100 MB.
    """

    def __init__(self, name: str, files: list[Path]):
        self.name = name
        self._files = tuple(files)
        schemas, rows, self._groups = [], [], []
        for file in files:
            footer = _footer(file)
            schemas.append(footer.schema.to_arrow_schema())
            for group in range(footer.num_row_groups):
                self._groups.append((file, group))
                rows.append(footer.row_group(group).num_rows)
            if not schemas[-1].equals(schemas[0]):
                raise InputError(
                    f"{str(file)!r} has other columns than {files[0].name!r}: the files of a split "
                    "must be alike."
                )
        # Rows before each group: bisection finds the group of a sample.
        self._ends = list(accumulate(rows))
        if not self._ends or not self._ends[-1]:
            raise InputError(f"{name!r} has no rows.")
        self._image, self._label, self.class_names = _columns(name, schemas[0])
        self.has_labels = self._label is not None
        self._held: tuple[int, pa.Table] | None = None

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        group = bisect_right(self._ends, index)
        start = self._ends[group - 1] if group else 0
        row = self._table(group).slice(index - start, 1).to_pylist()[0]
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
        digest, total = hashlib.sha256(), 0
        for file in self._files:
            size = file.stat().st_size
            with file.open("rb") as stream:
                stream.seek(size - 8)
                length = int.from_bytes(stream.read(4), "little")
                stream.seek(size - 8 - length)
                footer = stream.read(length)
            digest.update(f"{file.name}\0{size}\0".encode())
            digest.update(footer)
            total += size
        return {
            "dataset": self.name.partition("@")[0].partition("#")[0],
            "samples": len(self),
            "bytes": total,
            "digest": digest.hexdigest(),
        }

    def _table(self, group: int) -> pa.Table:
        import pyarrow as pa
        import pyarrow.parquet as pq

        held = self._held
        if held is None or held[0] != group:
            self._held = held = None  # let go of the old group before reading the new one
            file, inner = self._groups[group]
            wanted = [column for column in (self._image, self._label) if column is not None]
            try:
                with pq.ParquetFile(file) as parquet:
                    table = parquet.read_row_group(inner, columns=wanted, use_threads=False)
            except (pa.ArrowException, OSError) as error:
                raise InputError(
                    f"Rows {self._ends[group - 1] if group else 0} to {self._ends[group] - 1} of "
                    f"{self.name} cannot be read, {str(file)!r} is damaged ({_line(error)})."
                ) from error
            self._held = held = group, table
        return held[1]

    def __getstate__(self) -> dict:
        return vars(self) | {"_held": None}


def open_hub_images(text: str, path: Path | None = None, revision: str | None = None) -> HubImages:
    """Return the set of a name such as "hf:OWNER/NAME@REVISION#SPLIT", cached or from the hub.

    `path` is a local copy of the repository, used instead; `revision` the same as after "@". The
    split is by default the validation split, else the test split.
    """
    name = HubName.parse(text, revision)
    return HubImages(str(name), fetch_split(name, path))


def _footer(file: Path) -> pq.FileMetaData:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(file)
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{str(file)!r} is no parquet file, or it is truncated ({_line(error)}): fetch it "
            "again."
        ) from error


def _columns(name: str, schema: pa.Schema) -> tuple[str, str | None, tuple[str, ...] | None]:
    """Return the image column, the label column and the class names."""
    from datasets import ClassLabel, Features, Value
    from datasets import Image as ImageFeature

    try:
        features = Features.from_arrow_schema(schema)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"The columns' types that {name!r} states cannot be read ({_line(error)}): its files "
            "are damaged, or of a newer version of the library `datasets`."
        ) from error
    images = [key for key, feature in features.items() if isinstance(feature, ImageFeature)]
    # Files that other programs wrote lack the types: an image is then a struct with its bytes.
    images += [key for key, kind in features.items() if isinstance(kind, dict) and "bytes" in kind]
    if not images:
        raise InputError(f"{name!r} has no image column, only {', '.join(map(repr, features))}.")
    for key, feature in features.items():
        if isinstance(feature, ClassLabel):
            return images[0], key, tuple(feature.names)
    label = features.get("label")
    is_integer = isinstance(label, Value) and re.match(r"u?int", label.dtype)
    return images[0], "label" if is_integer else None, None


def _decode(data: bytes, place: str):
    try:
        with Image.open(io.BytesIO(data)) as image:
            return read_image(image)
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(
            f"{place} cannot be decoded, its image is damaged or truncated ({error})."
        ) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
