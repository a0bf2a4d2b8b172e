"""The documents of an ERASER data set: a folder `docs`, or one `docs.jsonl`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from xai_lib.datasets.texts.files import has_words, read_text
from xai_lib.datasets.texts.records import Records
from xai_lib.errors import InputError


class Documents:
    """Texts by document id; they are found on opening and read when they are asked for.

    `docs/`: one file a document, named by its id. `docs.jsonl`: a line of docid and document each;
    a document is text, or a list of sentences that are lists of tokens, which are joined with
    spaces, the sentences with line ends: its words are the tokens. Raises InputError if neither or
    both are there, for damaged lines and duplicate ids.
    """

    def __init__(self, root: Path):
        folder, file = root / "docs", root / "docs.jsonl"
        if folder.is_dir() == file.is_file():
            both = "both a folder docs and a file docs.jsonl: which is it?"
            neither = "neither a folder docs nor a file docs.jsonl."
            raise InputError(f"{str(root)!r} has {both if file.is_file() else neither}")
        self.place = folder if folder.is_dir() else file
        self._lines: Records | None = None
        if folder.is_dir():
            with os.scandir(folder) as entries:
                self._known = {entry.name: 0 for entry in entries if entry.is_file()}
        else:
            self._lines, self._known = Records(file), {}
            for number, (place, line) in enumerate(json_lines(self._lines)):
                docid = line.get("docid")
                if not isinstance(docid, str) or "document" not in line:
                    raise InputError(f"{place}: expected 'docid' and 'document', it has {[*line]}.")
                if docid in self._known:
                    raise InputError(f"{place}: the docid {docid!r} is there a second time.")
                self._known[docid] = number

    def __contains__(self, docid: str) -> bool:
        return docid in self._known

    def __getitem__(self, docid: str) -> str:
        if self._lines is None:
            return read_text(self.place / docid)
        number = self._known[docid]
        place = self._lines.place(number)
        return has_words(_as_text(_object(self._lines[number], place)["document"], place), place)

    def files(self) -> list[tuple[str, int]]:
        """Return name and size of each file, for a fingerprint."""
        if self._lines is not None:
            return [(self.place.name, self._lines.size), (self._lines.digest, 0)]
        return [(name, (self.place / name).stat().st_size) for name in sorted(self._known)]


def json_lines(lines: Records) -> Iterator[tuple[str, dict]]:
    """Yield what to call each line, and its JSON object; raise InputError for anything else."""
    for number in range(len(lines)):
        yield lines.place(number), _object(lines[number], lines.place(number))


def _object(line: str, place: str) -> dict:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place} is no JSON, it is damaged or truncated ({error}).") from error
    if not isinstance(found, dict):
        raise InputError(f"{place} is no JSON object, as the format has one a line.")
    return found


def _as_text(document: object, place: str) -> str:
    if isinstance(document, str):
        return document
    sentences = document if isinstance(document, list) else [None]
    for sentence in sentences:
        tokens = sentence if isinstance(sentence, list) else [None]
        # Evidence counts tokens and words are what stands between spaces: they must be the same.
        odd = [token for token in tokens if not isinstance(token, str) or token.split() != [token]]
        if odd:
            raise InputError(
                f"{place}: its document is neither text nor a list of sentences that are lists of "
                f"tokens without spaces (there is {str(odd[0])[:40]!r})."
            )
    return "\n".join(" ".join(sentence) for sentence in sentences)
