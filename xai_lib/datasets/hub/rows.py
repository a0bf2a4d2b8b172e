"""Rows of parquet files, as `datasets.load_dataset` gives them; which columns they have."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from xai_lib.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset as Rows
    from datasets import Features

# The library maps its files into memory, and pages that were read once stay: after so many bytes
# of rows the map is made anew.
_MAPPED = 32 * 2**20


class HubRows:
    """The rows of the files of one split.

    name: of the data set, for errors. The library converts the files once, into its own cache
    (HF_DATASETS_CACHE). Raises InputError for files that are damaged, differ in their columns or
    have no rows.
    """

    def __init__(self, name: str, files: list[Path]):
        self.name, self.files = name, tuple(files)
        rows = _load(name, files)
        self.features, self._length = rows.features, len(rows)
        self._converted = [file["filename"] for file in rows.cache_files]
        self._rows: Rows | None = None
        self._read = 0

    def __len__(self) -> int:
        return self._length

    def row(self, index: int, columns: tuple[str, ...]) -> dict:
        """Return a row's values of the columns."""
        table = self._mapped()[index].select(list(columns))
        self._read += table.nbytes
        return table.to_pylist()[0]

    def distinct(self, *columns: str) -> list[tuple]:
        """Return the different rows of these columns, without a null, sorted."""
        table = self._mapped().select_columns(list(columns))[:]
        found = set(zip(*(table[column].to_pylist() for column in columns), strict=True))
        return sorted(row for row in found if None not in row)

    def fingerprint(self) -> dict[str, str | int]:
        """Return number, total size and the digest of all names and parquet footers."""
        digest, total = hashlib.sha256(), 0
        for file in self.files:
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

    def _mapped(self) -> Rows:
        from datasets import Dataset, concatenate_datasets

        if self._rows is None or self._read > _MAPPED:
            self._rows, self._read = None, 0  # let go of the old map before making the new one
            parts = [Dataset.from_file(file) for file in self._converted]
            self._rows = concatenate_datasets(parts).with_format("arrow")
        return self._rows

    def __getstate__(self) -> dict:
        return vars(self) | {"_rows": None}


def label_column(features: Features) -> tuple[str | None, tuple[str, ...] | None]:
    """Return the label's column and class names: the first ClassLabel, else an integer "label"."""
    from datasets import ClassLabel

    for key, feature in features.items():
        if isinstance(feature, ClassLabel):
            return key, tuple(feature.names)
    return ("label" if is_value(features.get("label"), "int", "uint") else None), None


def is_value(feature: object, *kinds: str) -> bool:
    """Say whether a column holds plain values of one of the kinds, such as "int" or "string"."""
    from datasets import Value

    return isinstance(feature, Value) and feature.dtype.startswith(kinds)


def _load(name: str, files: list[Path]) -> Rows:
    """Return the rows as the library reads them; raise InputError where it cannot."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError

    try:
        return load_dataset("parquet", data_files={"rows": [*map(str, files)]}, split="rows")
    except (DatasetGenerationError, OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{name} cannot be read, {_damage(files)} ({_line(error.__cause__ or error)})."
        ) from error


def _damage(files: list[Path]) -> str:
    """Return which rows of which file cannot be read, in words, or what else is wrong."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    total = 0
    for file in files:
        place = "as a whole"
        try:
            with pq.ParquetFile(file) as parquet:
                start = 0
                for group in range(parquet.num_row_groups):
                    end = start + parquet.metadata.row_group(group).num_rows
                    place = f"in its rows {start} to {end - 1}"
                    parquet.read_row_group(group)
                    start = end
                total += start
        except (pa.ArrowException, OSError):
            return f"{str(file)!r} is damaged or truncated {place}: fetch it again"
    if not total:
        return "it has no rows"
    return (
        "the columns' types that it states are damaged, differ between its files, or are of a "
        "newer version of the library `datasets`"
    )


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
