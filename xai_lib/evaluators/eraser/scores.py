"""Results in ERASER's format, scored as the benchmark's own scorer does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from xai_lib.datasets.texts.eraser import Annotation
from xai_lib.errors import InputError
from xai_lib.evaluators.eraser.metrics import (
    IOU_THRESHOLD,
    PRF,
    Span,
    drop,
    entropy_drop,
    iou_scores,
    soft_scores,
    span_scores,
    token_scores,
    words_in,
)
from xai_lib.evaluators.eraser.results import (
    COMPREHENSIVE,
    HARD,
    SENTENCES,
    SOFT,
    SUFFICIENT,
    check_places,
)

# A document: its words, or its sentences of words, which scores per sentence need.
Document = Sequence[str] | Sequence[Sequence[str]]


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
    check_places(results, words)
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
    from scipy.stats import entropy
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
        "prf": classification_report(true, found, output_dict=True, zero_division=0),  # pyright: ignore[reportArgumentType]
    }
    for name, column in (("comprehensiveness", COMPREHENSIVE), ("sufficiency", SUFFICIENT)):
        if not all(r.get(column) for r in results):
            continue
        pairs = [_aligned(r["classification_scores"], r[column]) for r in results]
        chosen = [list(r["classification_scores"]).index(r["classification"]) for r in results]
        drops = [drop(*pair, c) for pair, c in zip(pairs, chosen, strict=True)]
        scores[name] = float(np.mean(drops))
        scores[f"{name}_entropy"] = float(np.mean([entropy_drop(*pair) for pair in pairs]))
        scores[f"{name}_kl"] = float(np.mean([entropy(b, a) for a, b in pairs]))
        if all(r.get("thresholded_scores") for r in results):
            known = {row["threshold"] for r in results for row in r["thresholded_scores"]}
            thresholds = sorted(known if aopc_thresholds is None else set(aopc_thresholds))
            table = [_by_threshold(r, column, thresholds) for r in results]
            points = [float(np.mean([row[t] for row in table])) for t in thresholds]
            scores["aopc_thresholds"] = thresholds
            scores[f"{name}_aopc"] = float(np.mean(points))
            scores[f"{name}_aopc_points"] = points
    return scores


def _by_threshold(result: Mapping, column: str, wanted: Sequence[float]) -> dict[float, float]:
    """Return the drop at each of the thresholds `wanted` of one result."""
    label = result["classification"]
    clean = result["classification_scores"][label]
    rows = {row["threshold"]: row.get(column) for row in result["thresholded_scores"]}
    missing = [t for t in wanted if not rows.get(t)]
    if missing:
        raise InputError(
            f"The result {result['annotation_id']!r} has no scores at the threshold {missing[0]}; "
            f"it has {sorted(rows)}."
        )
    return {t: clean - rows[t][label] for t in wanted}


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
    words: list[str] = []
    for part in document:
        words += [part] if isinstance(part, str) else part
    return words


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
