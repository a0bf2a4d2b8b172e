"""The answers that a model of VQA chooses from, in the order of its outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from xai_lib.datasets.texts.files import decode
from xai_lib.errors import InputError

LABEL2ANS, ANS2LABEL = "trainval_label2ans.json", "trainval_ans2label.json"


def read_json(path: Path, object_hook=None) -> Any:
    """Return what a JSON file holds; raise InputError, with line and column, if it is damaged."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read {str(path)!r}: {error.strerror or error}.") from error
    text = decode(data, repr(str(path)))
    try:
        return json.loads(text, object_hook=object_hook)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{str(path)!r} is no JSON, damaged or truncated: {error}.") from error


def read_answers(path: Path) -> tuple[str, ...]:
    """Return the answers in the order of a model's outputs.

    Read are a JSON list such as LXMERT's trainval_label2ans.json (3,129 answers to VQA v2, the
    empty one among them), a JSON object of indices by answer such as trainval_ans2label.json, or,
    for a name that ends in .txt, one answer a line, as MMF's answers_vqa.txt. Raises InputError
    for anything else, for an answer that comes twice and for indices that are not 0, 1, 2, ...
    """
    if path.suffix == ".txt":
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InputError(f"Cannot read {str(path)!r}: {error.strerror or error}.") from error
        found = decode(data, repr(str(path))).splitlines()
    else:
        found = read_json(path)
    if isinstance(found, dict):
        found = _by_index(found, path)
    if not isinstance(found, list) or not found:
        raise InputError(
            f"{str(path)!r} holds {type(found).__name__}: expected a list of answers, or an object "
            "with the index of each."
        )
    places: dict[str, int] = {}
    for place, answer in enumerate(found):
        if not isinstance(answer, str):
            raise InputError(f"{str(path)!r}: answer {place} is {answer!r}; expected a text.")
        if places.setdefault(answer, place) != place:
            raise InputError(
                f"{str(path)!r}: the answers {places[answer]} and {place} are both {answer!r}; "
                "expected each once."
            )
    return tuple(found)


def find_answers(root: Path) -> tuple[str, ...]:
    """Return the answers of the list in a folder; raise InputError if its two lists disagree."""
    files = [root / name for name in (LABEL2ANS, ANS2LABEL) if (root / name).is_file()]
    if not files:
        raise InputError(
            f"{str(root)!r} has neither {LABEL2ANS} nor {ANS2LABEL}: put the list of the answers "
            "that models choose from beside the questions. LXMERT's repository has both, in "
            "data/vqa."
        )
    lists = [read_answers(file) for file in files]
    if lists[0] != lists[-1]:
        raise InputError(
            f"{LABEL2ANS} and {ANS2LABEL} in {str(root)!r} give the answers in different orders, "
            "or different answers: expected two of the same publication."
        )
    return lists[0]


def _by_index(indices: dict, path: Path) -> list[str]:
    whole = all(type(index) is int for index in indices.values())
    if not whole or sorted(indices.values()) != list(range(len(indices))):
        raise InputError(
            f"{str(path)!r}: its indices are not those from 0 to {len(indices) - 1}, each once."
        )
    return sorted(indices, key=indices.__getitem__)
