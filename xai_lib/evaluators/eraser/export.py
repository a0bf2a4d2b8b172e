"""Records of `rationales` as ERASER's result objects, for the benchmark's own scorer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from xai_lib.evaluators.eraser.metrics import AOPC_THRESHOLDS
from xai_lib.evaluators.eraser.results import COMPREHENSIVE, HARD, SOFT, SUFFICIENT

if TYPE_CHECKING:
    import pandas

Result = dict[str, object]


def as_results(
    records: pandas.DataFrame,
    method: str,
    k: int,
    names: Sequence[str],
    documents: Mapping[str, str] | None = None,
    thresholds: Sequence[float] = AOPC_THRESHOLDS,
) -> list[Result]:
    """Return what `identifier_results_k.json` holds of one method, an object a sample.

    hard_rationale_predictions: the k first words, each a span of its own, as published; all of
    them where a document has fewer. soft_rationale_predictions: the score of every word.
    classification: the predicted class, by `names`. comprehensiveness and sufficiency scores: of
    the option `share`; thresholded_scores: of `thresholds`, those of the run. documents: the docid
    by annotation id where it is another. Samples without numbers are left out.
    """
    chosen = records.loc[(records["method"] == method) & records["error"].isna()]
    docids = documents or {}
    return [
        _result(row, k, names, docids.get(row["key"]) or str(row["key"]), thresholds)
        for row in chosen.to_dict("records")
    ]


def _result(
    row: Mapping, k: int, names: Sequence[str], docid: str, thresholds: Sequence[float]
) -> Result:
    def named(probabilities) -> dict[str, float]:
        return {name: float(p) for name, p in zip(names, probabilities, strict=True)}

    without, only = ([named(p) for p in row[f"probabilities_{w}"]] for w in ("without", "only"))
    spans = [{"start_token": int(w), "end_token": int(w) + 1} for w in row["ranking"][:k]]
    steps = zip(thresholds, without[1:], only[1:], strict=True)
    return {
        "annotation_id": row["key"],
        "rationales": [{"docid": docid, HARD: spans, SOFT: [float(s) for s in row["word_scores"]]}],
        "classification": names[int(row["predicted"])],
        "classification_scores": named(row["probabilities"]),
        COMPREHENSIVE: without[0],
        SUFFICIENT: only[0],
        "thresholded_scores": [
            {"threshold": t, COMPREHENSIVE: a, SUFFICIENT: b} for t, a, b in steps
        ],
    }
