"""Region features in an LMDB database: numpy or safetensors bytes, no pickles."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from xai_lib.datasets.regions.features import RegionFeatures, Regions, checked_regions, regions_of
from xai_lib.datasets.regions.folders import (
    NPY,
    ZIP,
    is_pickle,
    load_array,
    load_arrays,
    pickled,
)
from xai_lib.errors import InputError, needs_extra

if TYPE_CHECKING:
    import lmdb

# MMF's list of all keys, pickled; the database knows its keys without it.
_LIST = b"keys"
_LONGEST_HEADER = 1 << 20
# LMDB refuses to open a file twice in one process.
_OPENING = threading.Lock()


class LmdbRegions(RegionFeatures):
    """A database of one value an image, under its number or name as the key.

    A value is the bytes of an .npz file or of a safetensors file, with the arrays of `regions_of`,
    or those of an .npy file, the features alone. MMF pickles its values: those are refused, and the
    error says how to convert them. Opening lists the keys and looks at the first value. The
    database is opened for each read, read-only and without a lock file. Needs the extra `lmdb`.
    LMDB maps the file into memory and trusts its pages: give it files from where you trust.
    """

    format = "lmdb"

    def __init__(self, path: Path):
        self.path, self._places = path, {}
        with self._reading() as transaction:
            for key in transaction.cursor().iternext(values=False):
                key = bytes(key)
                if key != _LIST:
                    name = key.decode("utf-8", "replace")
                    self._add(name, key, f"The database {str(path)!r}")
            if not self._places:
                raise InputError(f"The database {str(path)!r} has no images.")
            key, first = next(iter(self._places.items()))
            self._refuse_pickle(bytes(transaction.get(first)), key)

    def _where(self, key: str) -> str:
        return f"The value of image {key!r} in {str(self.path)!r}"

    def _refuse_pickle(self, data: bytes, key: str) -> None:
        # A safetensors file, which begins with a length, may look like one.
        if is_pickle(data) and not _is_safetensors(data):
            raise pickled(self._where(key), " Or store the bytes of such a file as the value.")

    def _read(self, key: str, place: bytes) -> Regions:
        with self._reading() as transaction:
            value = transaction.get(place)
            data = None if value is None else bytes(value)
        where = self._where(key)
        if data is None:
            raise InputError(f"{where} is gone: the database has changed since it was opened.")
        if _is_safetensors(data):
            return _from_safetensors(data, where)
        self._refuse_pickle(data, key)
        if data.startswith(NPY):
            return checked_regions(load_array(data, where), None, None, where)
        if data.startswith(ZIP):
            return load_arrays(data, where)
        raise InputError(
            f"{where} begins with {data[:6]!r}: expected the bytes of an .npz, .npy or "
            "safetensors file."
        )

    def _size(self, key: str, place: bytes) -> int:
        with self._reading() as transaction:
            return len(transaction.get(place) or b"")

    @contextmanager
    def _reading(self) -> Iterator[lmdb.Transaction]:
        needs_extra("regions", "lmdb")
        import lmdb

        folder = self.path.is_dir()
        file = self.path / "data.mdb" if folder else self.path
        options = {"subdir": folder, "readonly": True, "lock": False, "create": False}
        try:
            with (
                _OPENING,
                lmdb.open(str(self.path), readahead=False, meminit=False, **options) as environment,
            ):
                # Reading a page beyond the file's end would end the process.
                due = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
                if file.stat().st_size < due:
                    raise InputError(
                        f"{str(file)!r} has {file.stat().st_size:,} bytes and should have {due:,}: "
                        "the database is truncated. Copy it again."
                    )
                with environment.begin(buffers=True) as transaction:
                    yield transaction
        except (lmdb.Error, OSError) as error:
            raise InputError(
                f"{str(self.path)!r} cannot be read as an LMDB database ({error}): it is damaged, "
                "or something else."
            ) from error


def _is_safetensors(data: bytes) -> bool:
    length = int.from_bytes(data[:8], "little")
    return data[8:9] == b"{" and 2 <= length <= min(_LONGEST_HEADER, len(data) - 8)


def _from_safetensors(data: bytes, place: str) -> Regions:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{place} cannot be read as safetensors ({error}): it is damaged or truncated."
        ) from error
    return regions_of(arrays, place)
