"""Downloads that go on where they broke off, checksums, and archives that cannot do harm."""

from __future__ import annotations

import http.client
import os
import shutil
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from xai_lib.errors import needs_extra
from xai_lib.files.writing import write_text

CHUNK = 1 << 20
TIMEOUT_S = 60.0
GIB = 1 << 30


class FetchError(Exception):
    """The file cannot be had, or is not what was expected; the message says what to do."""


def download(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    limit: int = 16 * GIB,
    attempts: int = 5,
    pause: float = 2.0,
) -> Path:
    """Fetch `url` to `path`, which appears only when it is whole and matches `sha256`, if given.

    Raises FetchError after `attempts` failures (what arrived is kept for the next time), for
    another checksum (nothing is kept), or for more than `limit` bytes.
    """
    if not url.startswith(("http://", "https://")):
        raise FetchError(f"{url!r} is no web address: expected http:// or https://.")
    needs_extra("data", "pooch")
    import pooch

    part = path.with_name(path.name + ".part")

    def resume(url: str, output_file: str, _pooch: object) -> None:
        _fetch(url, part, limit, attempts, pause)
        os.replace(part, output_file)

    pooch.get_logger().setLevel("WARNING")
    try:
        known = None if sha256 is None else f"sha256:{sha256}"
        pooch.retrieve(url, known, path.name, path.parent, downloader=resume)
    except ValueError as error:
        raise FetchError(
            f"{url} is damaged or another file ({error}) It was removed; try again, or get it "
            "elsewhere."
        ) from error
    return path


def _fetch(url: str, part: Path, limit: int, attempts: int, pause: float) -> None:
    """Fetch `url` to `part`, on from what an earlier attempt, also of another process, left there.

    This is what pooch cannot: its own downloader begins anew when a connection breaks.
    """
    mark = part.with_name(part.name + ".etag")
    for attempt in range(1, attempts + 1):
        try:
            _fetch_rest(url, part, mark, limit)
            mark.unlink(missing_ok=True)
            return
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500:
                raise FetchError(f"The server refuses {url} ({error}).") from error
            broken = f"broke off after {_size(part):,} bytes ({error})"
            if attempt == attempts:
                raise FetchError(
                    f"{url} {broken}, {attempts} times. Run the same command again: it goes on "
                    "from there."
                ) from error
            print(f"  {broken}; trying again", flush=True)
            time.sleep(pause)


def _fetch_rest(url: str, part: Path, mark: Path, limit: int) -> None:
    """Append what is missing of `part`, by an HTTP range; OSError if the connection ends too early.

    mark: says of which version (ETag or date) of the server's file the part is; of another one, or
    where the server knows no ranges, the part is begun anew.
    """
    have = _size(part)
    version = mark.read_text(encoding="utf-8") if mark.exists() else ""
    headers = {"User-Agent": "xai-lib data_scripts", "Accept-Encoding": "identity"}
    if have and version:
        headers |= {"Range": f"bytes={have}-", "If-Range": version}
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        # The part is as long as the file: it was whole, and only the rename was missing.
        if error.code == 416 and error.headers.get("Content-Range", "").endswith(f"*/{have}"):
            return
        raise
    with response:
        if response.status != 206:
            have = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise FetchError(f"{url}: the server answers with another range than was asked.")
        rest = response.headers.get("Content-Length")
        total = None if rest is None else have + int(rest)
        if total is not None and total > limit:
            raise FetchError(f"{url} has {total:,} bytes, more than the {limit:,} expected.")
        # A weak ETag does not promise equal bytes, so it cannot guard a range.
        etag = response.headers.get("ETag") or ""
        is_strong = etag and not etag.startswith("W/")
        write_text(mark, etag if is_strong else response.headers.get("Last-Modified") or "")
        with part.open("ab" if have else "wb") as file:
            while chunk := response.read(CHUNK):
                have += len(chunk)
                if have > limit:
                    raise FetchError(f"{url} sends more than the {limit:,} bytes expected.")
                file.write(chunk)
    if total is not None and have != total:
        raise ConnectionError(f"{have:,} of {total:,} bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def checksum(path: Path, algorithm: str) -> str:
    """Return the hexadecimal digest of a file."""
    needs_extra("data", "pooch")
    import pooch

    return pooch.file_hash(str(path), alg=algorithm)


def expect(path: Path, algorithm: str, digest: str) -> None:
    """Raise FetchError unless the file has this checksum."""
    if not path.is_file():
        raise FetchError(f"There is no file {str(path)!r}.")
    found = checksum(path, algorithm)
    if found != digest:
        raise FetchError(
            f"{str(path)!r} has the {algorithm} {found}, expected {digest}: it is truncated or "
            "another file. Download it again."
        )


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a folder beside `path` to fill: it becomes `path` on success, and is removed else."""
    if path.exists():
        raise FetchError(f"{str(path)!r} exists already: remove it, or choose another place.")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".part-{path.name}-", dir=path.parent))
    try:
        yield partial
        partial.chmod(0o755)
        os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def extract(
    archive: Path,
    folder: Path,
    place: Callable[[str], str | None],
    *,
    count: int,
    size: int,
) -> int:
    """Extract regular files of a tar archive into the `new_folder`; return how many.

    `place` gives a member's path below `folder`, or None to leave it out. Raises FetchError for
    what tarfile's data filter refuses (paths outside, devices), for links, two members at one
    place, more than `count` files or `size` bytes in one file, and for a damaged archive: the new
    folder is then removed, with what was extracted before.
    """
    taken: set[str] = set()
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                plain = tarfile.data_filter(member, str(folder))
                if plain.name != member.name or any(mark in member.name for mark in "\\:"):
                    raise FetchError(f"The archive has the unsafe path {member.name!r}; refused.")
                target = None if member.isdir() else place(member.name)
                if not (member.isdir() or member.isreg()):
                    raise FetchError(f"The archive has a link or device, {member.name!r}; refused.")
                if target is None:
                    continue
                if target in taken or len(taken) == count or member.size > size:
                    raise FetchError(
                        f"The archive's {member.name!r} is refused: expected at most {count:,} "
                        f"files, each once and of at most {size:,} bytes."
                    )
                taken.add(target)
                # Content alone: no owner, mode or time of the archive's is taken over.
                named = plain.replace(name=target, deep=False)
                tar.extract(named, folder, set_attrs=False, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise FetchError(f"{str(archive)!r} cannot be extracted ({error}).") from error
    return len(taken)
