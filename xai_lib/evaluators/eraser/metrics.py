"""The metrics of the ERASER benchmark as pure functions of spans, scores and probabilities.

DeYoung et al., ACL 2020, sections 4.1 and 4.2. Keys stand for what is compared as a whole: the pair
of annotation and document there, the sample here. Spans are (start, end), end exclusive, in words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Span = tuple[int, int]
Spans = Mapping[Any, Iterable[Span]]
# A number a word, and whether a word is true (1 or 0 will do).
Scores = Sequence[float] | np.ndarray
Marks = Sequence[int] | np.ndarray
# Of one document, or of many at once.
Numbers = float | np.ndarray

IOU_THRESHOLD = 0.5
AOPC_THRESHOLDS = (0.01, 0.05, 0.1, 0.2, 0.5)


# Curves and entropies are scikit-learn's and scipy's, as in the benchmark. Precision, recall and F1
# stay ours: the benchmark's are of sets of spans, in which nothing is a true negative, its macro F1
# is a mean over documents that either side has, 0 for 0/0, and its IOU recall can exceed 1, of
# which scikit-learn knows no F1.


@dataclass(frozen=True)
class PRF:
    """Precision, recall and their harmonic mean."""

    p: float
    r: float
    f1: float


def f1_score(p: Numbers, r: Numbers) -> Numbers:
    """Return 2pr / (p + r), and 0 where both are 0; numbers or arrays."""
    total = np.add(p, r)
    return np.divide(2 * np.multiply(p, r), total, out=np.zeros_like(total), where=total > 0)


def words_in(spans: Iterable[Span]) -> set[int]:
    """Return the places of the words that spans cover."""
    return {place for start, end in spans for place in range(start, end)}


def spans_of(places: Iterable[int]) -> list[Span]:
    """Return places as spans: neighbours share one."""
    spans: list[Span] = []
    for place in sorted(set(places)):
        if spans and spans[-1][1] == place:
            spans[-1] = (spans[-1][0], place + 1)
        else:
            spans.append((place, place + 1))
    return spans


def set_prf(truth: set, predicted: set) -> PRF:
    """Return precision and recall of one set of items against another, 0 for 0/0."""
    hits = len(truth & predicted)
    p = hits / len(predicted) if predicted else 0.0
    r = hits / len(truth) if truth else 0.0
    return PRF(p, r, float(f1_score(p, r)))


def span_scores(truth: Spans, predicted: Spans) -> dict[str, PRF]:
    """Return exact matches of whole spans: {"micro": PRF, "macro": PRF}.

    micro: all spans pooled. macro: the mean of each key's p, r and f1 over the keys of either side,
    so that a document without a prediction counts 0, and so does a prediction without a truth.
    """
    return _pooled({k: set(v) for k, v in truth.items()}, {k: set(v) for k, v in predicted.items()})


def token_scores(truth: Spans, predicted: Spans) -> dict[str, PRF]:
    """Return matches of single words, micro and macro as in `span_scores`."""
    return _pooled(
        {k: words_in(v) for k, v in truth.items()}, {k: words_in(v) for k, v in predicted.items()}
    )


def iou_scores(
    truth: Spans, predicted: Spans, threshold: float | None = IOU_THRESHOLD
) -> dict[str, PRF]:
    """Return how well predicted spans overlap with true ones, micro and macro.

    A prediction counts 1 if its best IOU = |∩| / |∪| with a true span reaches the threshold, or,
    for threshold None, counts that IOU itself. p divides the counts by the predictions and r by
    the true spans; since predictions are counted for both, several that hit one span make r exceed
    1. macro: means of p over the keys predicted and of r over the true keys, and their f1.
    """
    counts = {
        key: _iou_counts(truth.get(key, ()), spans, threshold) for key, spans in predicted.items()
    }
    true = {key: len(set(spans)) for key, spans in truth.items()}
    found = {key: len(set(spans)) for key, spans in predicted.items()}
    total = sum(counts.values())
    micro = _ratio(total, sum(found.values())), _ratio(total, sum(true.values()))
    macro = (
        _mean([_ratio(counts[key], n) for key, n in found.items()]),
        _mean([_ratio(counts.get(key, 0.0), n) for key, n in true.items()]),
    )
    return {
        name: PRF(*pr, float(f1_score(*pr))) for name, pr in (("micro", micro), ("macro", macro))
    }


def auprc(truth: Marks, scores: Scores) -> float:
    """Return the area under the precision-recall curve by trapezoid, as ERASER takes it.

    Not the average precision, which sums steps. Tied scores enter together. 1 where every word is
    true, and 0.5 where none is (recall is then taken as 1 throughout, as scikit-learn does).
    """
    from sklearn.metrics import auc, precision_recall_curve

    if not any(truth):  # scikit-learn gives the same, but warns
        return 0.5
    precision, recall, _ = precision_recall_curve(truth, scores)
    return float(auc(recall, precision))


def soft_scores(truth: Mapping[Any, Marks], scores: Mapping[Any, Scores]) -> dict[str, float]:
    """Return auprc, average_precision and roc_auc_score, each the mean over the keys of `truth`.

    As in the benchmark, keys in which all words or none are true count for auprc alone.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    both = {key: words for key, words in truth.items() if any(words) and not all(words)}

    def mean(metric: Callable, keys: Mapping) -> float:
        return _mean([metric(words, scores[key]) for key, words in keys.items()])

    return {
        "auprc": mean(auprc, truth),
        "average_precision": mean(average_precision_score, both),
        "roc_auc_score": mean(roc_auc_score, both),
    }


def drop(clean: Scores, changed: Scores, chosen: int) -> float:
    """Return p(chosen) of the whole text less that of the changed one.

    Comprehensiveness where the rationale was taken out, sufficiency where only it was kept.
    """
    return float(clean[chosen] - changed[chosen])


def entropy_drop(clean: Scores, changed: Scores) -> float:
    """Return H(clean) - H(changed), in nats, of the probabilities of the classes."""
    from scipy.stats import entropy

    return float(entropy(clean) - entropy(changed))


def _pooled(truth: Mapping[Any, set], predicted: Mapping[Any, set]) -> dict[str, PRF]:
    keys = sorted({*truth, *predicted}, key=str)
    each = [set_prf(truth.get(key, set()), predicted.get(key, set())) for key in keys]
    macro = PRF(*(_mean([getattr(prf, name) for prf in each]) for name in ("p", "r", "f1")))
    pool = (
        {(key, item) for key, items in side.items() for item in items}
        for side in (truth, predicted)
    )
    return {"micro": set_prf(*pool), "macro": macro}


def _iou_counts(truth: Iterable[Span], predicted: Iterable[Span], threshold: float | None) -> float:
    best = [max((_iou(p, t) for t in truth), default=0.0) for p in set(predicted)]
    return float(sum(best if threshold is None else (iou >= threshold for iou in best)))


def _iou(a: Span, b: Span) -> float:
    shared = max(0, min(a[1], b[1]) - max(a[0], b[0]))
    return _ratio(shared, (a[1] - a[0]) + (b[1] - b[0]) - shared)


def _ratio(a: float, b: float) -> float:
    return a / b if b else 0.0


def _mean(values: Scores) -> float:
    return float(np.mean(values)) if len(values) else 0.0
