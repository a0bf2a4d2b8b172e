"""Explanations in ERASER's own format, read, checked and written.

One JSON object a line (`identifier_results_k.json`), one line an annotation: annotation_id,
rationales (docid, hard_rationale_predictions, soft_rationale_predictions), and, of models that
classify, classification, classification_scores and the scores after taking words out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from xai_lib.errors import InputError
from xai_lib.files.writing import write_text

HARD, SOFT = "hard_rationale_predictions", "soft_rationale_predictions"
SENTENCES = "soft_sentence_predictions"
COMPREHENSIVE = "comprehensiveness_classification_scores"
SUFFICIENT = "sufficiency_classification_scores"


def read_results(path: str | os.PathLike) -> list[dict]:
    """Return the result objects of a jsonl file, after checking their form.

    Raises InputError for what is no JSON object a line, for a missing or repeated annotation_id,
    and for rationales that are not as the module says; the message names the line.
    """
    path = Path(path)
    try:
        # Not splitlines: JSON texts may hold what Unicode counts as the end of a line.
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        unread = isinstance(error, OSError)
        reason = error.strerror if unread else f"it is not UTF-8 ({error.reason})"
        raise InputError(f"The results {path} cannot be read: {reason}.") from error
    found, seen = [], set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            result = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{where} is no JSON ({error.msg}): expected one object a line, as ERASER's "
                "identifier_results_k.json."
            ) from error
        _check_result(result, where)
        if result["annotation_id"] in seen:
            raise InputError(
                f"{where} repeats the annotation {result['annotation_id']!r}: expected each once. "
                "Keep one of the lines."
            )
        seen.add(result["annotation_id"])
        found.append(result)
    if not found:
        raise InputError(f"{path} holds no result: expected one JSON object a line.")
    return found


def write_results(results: Iterable[Mapping], path: str | os.PathLike) -> Path:
    """Write result objects one a line, whole or not at all, and return the path."""
    lines = [json.dumps(result, ensure_ascii=False, allow_nan=False) for result in results]
    write_text(Path(path), "".join(f"{line}\n" for line in lines))
    return Path(path)


def check_places(results: Sequence[Mapping], words: Mapping[str, Sequence[str]]) -> None:
    """Raise an InputError for results that do not fit the documents, given as their words."""
    for result in results:
        name, seen = result["annotation_id"], set()
        for rationale in result["rationales"]:
            docid = rationale["docid"]
            if docid in seen:
                raise InputError(
                    f"The result {name!r} has two rationales of {docid!r}: expected one, "
                    "with all of its spans."
                )
            seen.add(docid)
            if docid not in words:
                raise InputError(
                    f"The result {name!r} names the document {docid!r}, which the data does not "
                    "have: expected results and data of one split."
                )
            length = len(words[docid])
            outside = [s for s in rationale.get(HARD) or [] if s["end_token"] > length]
            if outside:
                raise InputError(
                    f"The result {name!r} has the span {outside[0]} of {docid!r}, which has "
                    f"{length} words."
                )
            soft = rationale.get(SOFT)
            if soft is not None and len(soft) != length:
                raise InputError(
                    f"The result {name!r} has {len(soft)} soft scores for {docid!r}, which has "
                    f"{length} words: expected one score a word."
                )


def _check_result(result: object, where: str) -> None:
    if not isinstance(result, dict) or not isinstance(result.get("annotation_id"), str):
        raise InputError(f"{where} has no annotation_id: expected a text that names the sample.")
    rationales = result.get("rationales")
    if not isinstance(rationales, list):
        raise InputError(f"{where} has no list `rationales`, as ERASER's results have.")
    for rationale in rationales:
        if not isinstance(rationale, dict) or not isinstance(rationale.get("docid"), str):
            raise InputError(f"{where} has a rationale without a docid.")
        for span in rationale.get(HARD) or []:
            place = span if isinstance(span, dict) else {}
            start, end = place.get("start_token"), place.get("end_token")
            if type(start) is not int or type(end) is not int or not 0 <= start < end:
                raise InputError(
                    f"{where}: {span!r} is no span of words; expected start_token and end_token "
                    "(exclusive), integers with 0 <= start < end."
                )
        for column in (SOFT, SENTENCES):
            values = rationale.get(column)
            numbers = values is None or (
                isinstance(values, list)
                and all(isinstance(v, int | float) and np.isfinite(v) for v in values)
            )
            if not numbers:
                raise InputError(f"{where}: {column} is no list of finite numbers.")
    _check_classification(result, where)


def _check_classification(result: Mapping, where: str) -> None:
    """Raise an InputError unless all scores of classes that a result has are of the same ones."""
    clean = result.get("classification_scores")
    if not clean:
        return
    rows = result.get("thresholded_scores") or []
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and isinstance(row.get("threshold"), int | float) for row in rows
    ):
        raise InputError(f"{where}: thresholded_scores is no list of objects with a threshold.")
    changed = [row.get(column) for row in (result, *rows) for column in (COMPREHENSIVE, SUFFICIENT)]
    for scores in (clean, *(found for found in changed if found)):
        alike = isinstance(scores, dict) and isinstance(clean, dict) and set(scores) == set(clean)
        if not alike or not all(
            isinstance(v, int | float) and np.isfinite(v) for v in scores.values()
        ):
            raise InputError(
                f"{where}: {scores!r:.80} is no finite score of each class, as in "
                "classification_scores."
            )
    if result.get("classification") not in clean:
        raise InputError(
            f"{where}: classification is {result.get('classification')!r}; expected one of "
            f"{', '.join(clean)}."
        )
