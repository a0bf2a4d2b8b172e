"""Explanations in ERASER's own format: read, written, and scored as the benchmark scores them.

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

from xai_lib.datasets.eraser import Annotation
from xai_lib.errors import InputError
from xai_lib.evaluators.eraser_metrics import (
    IOU_THRESHOLD,
    PRF,
    Span,
    divergence,
    drop,
    entropy_drop,
    iou_scores,
    soft_scores,
    span_scores,
    token_scores,
    words_in,
)
from xai_lib.files import write_text

# A document: its words, or its sentences of words, which scores per sentence need.
Document = Sequence[str] | Sequence[Sequence[str]]

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
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or f"it is not UTF-8 ({error.reason})"
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


def score_results(
    results: Sequence[Mapping],
    annotations: Sequence[Annotation],
    documents: Mapping[str, Document],
    *,
    iou_thresholds: Sequence[float] = (IOU_THRESHOLD,),
    aopc_thresholds: Sequence[float] | None = None,
) -> dict[str, object]:
    """Return the scores of results, in the layout of the benchmark's own scorer.

    iou_scores, rationale_prf (whole spans) and token_prf of hard predictions, token_soft_metrics
    and sentence_soft_metrics of soft ones, classification_scores (accuracy, report by class,
    comprehensiveness, sufficiency, AOPC, in probabilities of the class that the model predicts);
    each only where the results have what it takes. aopc_thresholds: those that count, None for all.
    Raises InputError for unknown documents, spans outside them and soft scores of another length.
    """
    words = {docid: _words(document) for docid, document in documents.items()}
    _check_places(results, words)
    truth: dict = {}
    for annotation in annotations:
        for evidence in (e for group in annotation.evidences for e in group):
            key = annotation.annotation_id, evidence.docid
            truth.setdefault(key, []).append((evidence.start, evidence.end))
    scores: dict[str, object] = {}
    hard = _predictions(results, HARD)
    if hard:
        spans = {key: [(s["start_token"], s["end_token"]) for s in v] for key, v in hard.items()}
        scores["iou_scores"] = [
            {name: vars(prf) for name, prf in iou_scores(truth, spans, limit).items()}
            | {"threshold": limit}
            for limit in iou_thresholds
        ]
        scores["rationale_prf"] = _instances(span_scores(truth, spans))
        scores["token_prf"] = _instances(token_scores(truth, spans))
    soft = _predictions(results, SOFT)
    if soft:
        true = {key: _marked(truth.get(key, ()), len(words[key[1]])) for key in soft}
        scores["token_soft_metrics"] = soft_scores(true, soft)
    sentences = _predictions(results, SENTENCES)
    if sentences:
        true = {key: _sentences(truth.get(key, ()), documents[key[1]]) for key in sentences}
        scores["sentence_soft_metrics"] = soft_scores(true, sentences)
    if all(r.get("classification_scores") for r in results):
        scores["classification_scores"] = classification_scores(
            results, annotations, aopc_thresholds
        )
    return scores


def classification_scores(
    results: Sequence[Mapping],
    annotations: Sequence[Annotation],
    aopc_thresholds: Sequence[float] | None = None,
) -> dict[str, object]:
    """Return accuracy, the report by class, and how much the rationales matter to the model.

    comprehensiveness = p_c(x) - p_c(x without r), sufficiency = p_c(x) - p_c(r) for the predicted
    class c, means over results; _entropy: of H(x) - H(changed); _kl: of KL(changed, x), in nats;
    _aopc: the mean over thresholds, each the share of the words that r holds (points).
    """
    from sklearn.metrics import classification_report

    gold = {a.annotation_id: a.classification for a in annotations}
    strange = [r["annotation_id"] for r in results if r["annotation_id"] not in gold]
    if strange:
        raise InputError(
            f"The results have the annotation {strange[0]!r}, which the data does not have: "
            "expected results and data of one split."
        )
    true = [gold[r["annotation_id"]] for r in results]
    found = [r["classification"] for r in results]
    scores = {
        "accuracy": float(np.mean([a == b for a, b in zip(true, found, strict=True)])),
        "prf": classification_report(true, found, output_dict=True, zero_division=0),
    }
    for name, column in (("comprehensiveness", COMPREHENSIVE), ("sufficiency", SUFFICIENT)):
        if not all(r.get(column) for r in results):
            continue
        pairs = [_aligned(r["classification_scores"], r[column]) for r in results]
        chosen = [list(r["classification_scores"]).index(r["classification"]) for r in results]
        drops = [drop(*pair, c) for pair, c in zip(pairs, chosen, strict=True)]
        scores[name] = float(np.mean(drops))
        scores[f"{name}_entropy"] = float(np.mean([entropy_drop(*pair) for pair in pairs]))
        scores[f"{name}_kl"] = float(np.mean([divergence(b, a) for a, b in pairs]))
        if all(r.get("thresholded_scores") for r in results):
            table = [_by_threshold(r, column, aopc_thresholds) for r in results]
            thresholds = sorted({t for row in table for t in row})
            points = [float(np.mean([row[t] for row in table])) for t in thresholds]
            scores["aopc_thresholds"] = thresholds
            scores[f"{name}_aopc"] = float(np.mean(points))
            scores[f"{name}_aopc_points"] = points
    return scores


def _by_threshold(
    result: Mapping, column: str, wanted: Sequence[float] | None
) -> dict[float, float]:
    """Return the drop at each threshold of one result."""
    label = result["classification"]
    clean = result["classification_scores"][label]
    rows = {row["threshold"]: clean - row[column][label] for row in result["thresholded_scores"]}
    missing = [] if wanted is None else [t for t in wanted if t not in rows]
    if missing:
        raise InputError(
            f"The result {result['annotation_id']!r} has no scores at the threshold {missing[0]}; "
            f"it has {sorted(rows)}."
        )
    return rows if wanted is None else {t: rows[t] for t in wanted}


def _aligned(clean: Mapping, changed: Mapping) -> tuple[list[float], list[float]]:
    return list(clean.values()), [changed[name] for name in clean]


def _instances(scores: Mapping[str, PRF]) -> dict[str, dict]:
    return {f"instance_{name}": vars(prf) for name, prf in scores.items()}


def _predictions(results: Sequence[Mapping], column: str) -> dict[tuple[str, str], list]:
    return {
        (result["annotation_id"], rationale["docid"]): rationale[column]
        for result in results
        for rationale in result["rationales"]
        if rationale.get(column) is not None
    }


def _words(document: Document) -> list[str]:
    if document and not isinstance(document[0], str):
        return [word for sentence in document for word in sentence]
    return list(document)


def _marked(spans: Iterable[Span], length: int) -> list[bool]:
    inside = words_in(spans)
    return [place in inside for place in range(length)]


def _sentences(spans: Iterable[Span], document: Document) -> list[bool]:
    """Return which sentences hold a word of evidence."""
    inside, start, found = words_in(spans), 0, []
    for sentence in document:
        found.append(any(place in inside for place in range(start, start + len(sentence))))
        start += len(sentence)
    return found


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
            ends = [
                span.get(k) if isinstance(span, dict) else None
                for k in ("start_token", "end_token")
            ]
            if not all(type(end) is int for end in ends) or not 0 <= ends[0] < ends[1]:
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


def _check_places(results: Sequence[Mapping], words: Mapping[str, Sequence[str]]) -> None:
    for result in results:
        name = result["annotation_id"]
        for rationale in result["rationales"]:
            docid = rationale["docid"]
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
