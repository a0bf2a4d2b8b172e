"""Rows of parquet files, read a row group at a time; which columns they have, and of which type."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from xai_lib.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Features


class ParquetRows:
    """The rows of the files of one split; the row group that was read last is all that is held.

    name: of the data set, for errors. Raises InputError for files that are damaged, differ in
    their columns or have no rows. A row group of the hub's own conversion is about 100 MB at most.
    """

    def __init__(self, name: str, files: list[Path]):
        self.name = name
        self.files = tuple(files)
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
        self.features = _features(name, schemas[0])
        self._held: tuple[int, tuple[str, ...], pa.Table] | None = None

    def __len__(self) -> int:
        return self._ends[-1]

    def row(self, index: int, columns: tuple[str, ...]) -> dict:
        """Return a row's values of the columns; raise InputError where its file is damaged."""
        group = bisect_right(self._ends, index)
        start = self._ends[group - 1] if group else 0
        return self._table(group, columns).slice(index - start, 1).to_pylist()[0]

    def distinct(self, *columns: str) -> list[tuple]:
        """Return the different rows of these columns, without a null, sorted."""
        found = set()
        for group in range(len(self._groups)):
            table = self._table(group, columns)
            found |= set(zip(*(table[column].to_pylist() for column in columns), strict=True))
        self._held = None
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

    def _table(self, group: int, columns: tuple[str, ...]) -> pa.Table:
        import pyarrow as pa
        import pyarrow.parquet as pq

        held = self._held
        if held is None or held[:2] != (group, columns):
            self._held = held = None  # let go of the old group before reading the new one
            file, inner = self._groups[group]
            try:
                with pq.ParquetFile(file) as parquet:
                    table = parquet.read_row_group(inner, columns=list(columns), use_threads=False)
            except (pa.ArrowException, OSError) as error:
                raise InputError(
                    f"Rows {self._ends[group - 1] if group else 0} to {self._ends[group] - 1} of "
                    f"{self.name} cannot be read, {str(file)!r} is damaged ({_line(error)})."
                ) from error
            self._held = held = group, columns, table
        return held[2]

    def __getstate__(self) -> dict:
        return vars(self) | {"_held": None}


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


def _features(name: str, schema: pa.Schema) -> Features:
    from datasets import Features

    try:
        return Features.from_arrow_schema(schema)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"The columns' types that {name!r} states cannot be read ({_line(error)}): its files "
            "are damaged, or of a newer version of the library `datasets`."
        ) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
