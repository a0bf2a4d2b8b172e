"""Downloads that go on where they broke off, checksums, and archives that cannot do harm."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from xai_lib.files.writing import write_text, written

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

    What arrives is kept in `path` + ".part"; a later attempt, also of another process, asks for the
    rest by an HTTP range, provided the server's file is still the same (ETag or date). Raises
    FetchError after `attempts` failures, for another checksum (the part is then removed), or for
    more than `limit` bytes.
    """
    if not url.startswith(("http://", "https://")):
        raise FetchError(f"{url!r} is no web address: expected http:// or https://.")
    part, mark = (path.with_name(path.name + suffix) for suffix in (".part", ".part.etag"))
    path.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, attempts + 1):
        try:
            _fetch_rest(url, part, mark, limit)
            break
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500:
                raise FetchError(f"The server refuses {url} ({error}).") from error
            have = part.stat().st_size if part.exists() else 0
            if attempt == attempts:
                raise FetchError(
                    f"{url} broke off after {have:,} bytes ({error}), {attempts} times. Run the "
                    "same command again: it goes on from there."
                ) from error
            print(f"  broke off after {have:,} bytes ({error}); trying again", flush=True)
            time.sleep(pause)
    if sha256 is not None and (found := checksum(part, "sha256")) != sha256:
        part.unlink()
        mark.unlink(missing_ok=True)
        raise FetchError(
            f"{url} has the sha256 {found}, expected {sha256}: the file is damaged or another one. "
            "It was removed; try again, or get it elsewhere."
        )
    os.replace(part, path)
    mark.unlink(missing_ok=True)
    return path


def _fetch_rest(url: str, part: Path, mark: Path, limit: int) -> None:
    """Append what is missing of `part`; raise OSError if the connection ends too early."""
    have = part.stat().st_size if part.exists() else 0
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
        if response.status == 206:
            given = re.match(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
            if given is None or int(given[1]) != have:
                raise FetchError(f"{url}: the server answers with another range than was asked.")
            total = int(given[2])
        else:
            have, total = 0, int(response.headers.get("Content-Length") or -1)
        if total > limit:
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
    if total >= 0 and have != total:
        raise ConnectionError(f"{have:,} of {total:,} bytes")


def checksum(path: Path, algorithm: str) -> str:
    """Return the hexadecimal digest of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


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
    """Extract regular files of a tar archive into `folder`; return how many.

    `place` gives a member's path below `folder`, or None to leave it out. The whole archive is
    checked before a byte is written: FetchError for absolute paths, "..", links, devices, two
    members at one place, more than `count` files or `size` bytes in one file, and for a damaged
    archive.
    """
    try:
        with tarfile.open(archive) as tar:
            chosen = _check_members(tar, place, count, size)
            for member, target in chosen:
                path = folder / target
                # Content alone: no owner, mode or time of the archive's is taken over.
                with tar.extractfile(member) as source, written(path) as partial:
                    with partial.open("wb") as file:
                        shutil.copyfileobj(source, file, CHUNK)
                    if partial.stat().st_size != member.size:
                        raise FetchError(f"{str(archive)!r} ends within {member.name!r}.")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise FetchError(f"{str(archive)!r} cannot be extracted ({error}).") from error
    return len(chosen)


def _check_members(
    tar: tarfile.TarFile, place: Callable[[str], str | None], count: int, size: int
) -> list[tuple[tarfile.TarInfo, str]]:
    chosen, taken = [], set()
    for member in tar:
        name = PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts or "\\" in member.name or ":" in member.name:
            raise FetchError(f"The archive has the unsafe path {member.name!r}; nothing extracted.")
        if member.isdir():
            continue
        if not member.isreg():
            raise FetchError(f"The archive has a link or device, {member.name!r}; refused.")
        if member.size > size:
            raise FetchError(f"The archive's {member.name!r} has {member.size:,} bytes; refused.")
        target = place(member.name)
        if target is None:
            continue
        if target in taken:
            raise FetchError(f"The archive has two files for {target!r}; refused.")
        taken.add(target)
        chosen.append((member, target))
        if len(chosen) > count:
            raise FetchError(f"The archive has more than the {count:,} files expected; refused.")
    return chosen
