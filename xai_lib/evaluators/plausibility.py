"""Agreement of ranked words with those that people named as evidence (ERASER)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from xai_lib.errors import InputError
from xai_lib.evaluators.base import Row
from xai_lib.evaluators.eraser.metrics import (
    IOU_THRESHOLD,
    auprc,
    iou_scores,
    set_prf,
    spans_of,
    words_in,
)
from xai_lib.evaluators.eraser.words import (
    document_scores,
    evidence_spans,
    ranked,
    reference_selections,
    reference_word_scores,
)
from xai_lib.evaluators.explained import Explained

NO_EVIDENCE = "No word of this sample is marked as evidence, so there is nothing to find"
NO_WORDS = "No word of this sample has a score, so nothing can be ranked"


class RankedWords(NamedTuple):
    """The words of a document: scores and ranking by place, and the spans of evidence.

    words: how many there are, with a score or without. named: the first k words for each k that
    the document has.
    """

    words: int
    truth: list[tuple[int, int]]
    scores: dict[int, float]
    ranking: list[int]
    named: list[list[int]]

    def first(self, share: float) -> list[int]:
        """Return the first words, a share of the document, at least one."""
        return self.ranking[: max(1, round(share * self.words))]


def ranked_words(
    found: Explained,
    text: str,
    spans: Sequence[tuple[int, int]],
    ks: Sequence[int],
    *,
    reference: bool = False,
) -> RankedWords | str:
    """Return the ranked words of an explained text, or why it has none.

    spans: the characters that people marked. reference: scores and ties as the published code has
    them, by counting characters.
    """
    truth = evidence_spans(text, spans)
    if not truth:
        return NO_EVIDENCE
    words = text.split()
    if reference:
        try:
            listed = found.scores.clamp(min=0).tolist()
            values = reference_word_scores(words, found.tokens.labels, listed)
        except InputError as error:
            return str(error)
        scores, named = dict(enumerate(values)), reference_selections(values, ks)
        order = ranked(scores)
    else:
        scores = document_scores(text, found.words)
        order = ranked(scores)
        named = [order[:k] for k in ks if k <= len(order)]
    return RankedWords(len(words), truth, scores, order, named) if scores else NO_WORDS


def agreement(
    words: RankedWords, ks: Sequence[int], share: float, *, reference: bool = False
) -> Row:
    """Return F1 of the first k words, IOU of the first `share` as spans, AUPRC of all scores.

    reference: single words as spans, not joined to their neighbours.
    """
    row: Row = {}
    truth = words_in(words.truth)
    each = [set_prf(truth, set(named)) for named in words.named]
    each += [None] * (len(ks) - len(each))
    for name, part in (("token_precision", "p"), ("token_recall", "r"), ("token_f1", "f1")):
        curve = [None if prf is None else getattr(prf, part) for prf in each]
        known = [value for value in curve if value is not None]
        row[name] = curve
        row[f"{name}_mean"] = sum(known) / len(known) if known else None
    row |= {f"token_f1_k{k}": v for k, v in zip(ks, row["token_f1"], strict=True)}
    first = words.first(share)
    spans = [(p, p + 1) for p in first] if reference else spans_of(first)
    for name, threshold in (("iou", IOU_THRESHOLD), ("soft_iou", None)):
        prf = iou_scores({0: words.truth}, {0: spans}, threshold)["macro"]
        row |= {f"{name}_precision": prf.p, f"{name}_recall": prf.r}
    soft = [words.scores.get(place, 0.0) for place in range(words.words)]
    row["auprc"] = auprc([place in truth for place in range(words.words)], soft)
    return row | {"word_scores": soft, "ranking": words.ranking}
