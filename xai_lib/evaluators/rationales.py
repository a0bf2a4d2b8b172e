"""Rationales: are the words that a method ranks first those that people named as evidence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from xai_lib.errors import InputError, OptionError, unknown_name
from xai_lib.evaluators.base import Evaluator, Row, Subject, TextBatch
from xai_lib.evaluators.eraser.metrics import (
    AOPC_THRESHOLDS,
    IOU_THRESHOLD,
    auprc,
    drop,
    f1_score,
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
from xai_lib.evaluators.registry import evaluator
from xai_lib.evaluators.removal import mask_id, tokens_of_words, without
from xai_lib.evaluators.specs import MethodSpec
from xai_lib.evaluators.texts import (
    ExplainedText,
    check_explain,
    check_max_length,
    explained_texts,
)
from xai_lib.evaluators.token_stream import NOT_FINITE, TokenRow, stream_ids
from xai_lib.statistics.metric import Metric
from xai_lib.streams.words import REDUCTIONS

KS = tuple(range(5, 85, 5))
REMOVALS = ("delete", "mask")
NO_EVIDENCE = "No word of this sample is marked as evidence, so there is nothing to find"
NOTHING_LEFT = "Without its first words this sample has no token left for the model to read"
NO_WORDS = "No word of this sample has a score, so nothing can be ranked"


def _f1(parts: np.ndarray) -> np.ndarray:
    return f1_score(parts[..., 0], parts[..., 1])


@evaluator("rationales")
@dataclass(frozen=True)
class Rationales(Evaluator):
    """Agreement with human rationales and faithfulness (ERASER: DeYoung et al., ACL 2020).

    Words are `text.split()`; a word's score is the maximum of its pieces' (reduce), clamped at 0.
    Words rank by score, equal ones in the order of the text.

    token_precision, token_recall, token_f1: lists over ks, of the k first words against the words
    of evidence; None where the document has fewer than k words with a score, which is left out of
    that k. _mean: over the ks that a document has; of a document with none, None. auprc: of all
    words' scores, 0 for words without one, by trapezoid. iou_f1: the first words, a `share` of the
    document (at least one), neighbours joined to spans; a span counts if its IOU with a true span
    is 0.5 (hard), or counts its best IOU (soft); f1 of mean precision and recall.
    comprehensiveness, sufficiency: p(x) - p(x without those words), p(x) - p(only those words), of
    the class that the model predicts; aopc_: means over `thresholds`, shares of the document.
    removal: "delete" takes the pieces out, "mask" puts the mask token in their place.

    explain: the label's class, as published, or the predicted one. max_length: cut documents after
    that many tokens, special ones included (published: 512); without it a document that the model
    cannot take is an error row. compat="reference": word scores by counting characters, and ties,
    as in Chefer et al.'s code (`eraser_words`), and single words as spans.
    """

    explain: str = "label"
    ks: list | tuple = KS
    share: float = 0.1
    thresholds: list | tuple = AOPC_THRESHOLDS
    removal: str = "delete"
    reduce: str = "max"
    max_length: int | None = None
    compat: str | None = None

    modality = "text"
    needs = frozenset({"labels", "rationales"})
    metrics = (
        Metric("token_f1_mean", ("token_f1_mean",)),
        Metric("token_precision_mean", ("token_precision_mean",)),
        Metric("token_recall_mean", ("token_recall_mean",)),
        Metric("iou_f1", ("iou_precision", "iou_recall"), value=_f1),
        Metric("soft_iou_f1", ("soft_iou_precision", "soft_iou_recall"), value=_f1),
        Metric("auprc", ("auprc",)),
        Metric("comprehensiveness", ("comprehensiveness",)),
        Metric("sufficiency", ("sufficiency",), better="low"),
        Metric("aopc_comprehensiveness", ("aopc_comprehensiveness",)),
        Metric("aopc_sufficiency", ("aopc_sufficiency",), better="low"),
    )

    def __post_init__(self):
        check_explain(self.explain)
        check_max_length(self.max_length)
        object.__setattr__(self, "ks", _check_ks(self.ks))
        shares = (self.share, *self.thresholds)
        good = all(isinstance(s, int | float) and 0 < s <= 1 for s in shares)
        if not good or not self.thresholds:
            raise OptionError(f"share and thresholds are {shares}; expected two or more in (0, 1].")
        object.__setattr__(self, "thresholds", tuple(map(float, self.thresholds)))
        for name, known in (("removal", REMOVALS), ("reduce", tuple(REDUCTIONS))):
            if getattr(self, name) not in known:
                raise unknown_name(name, getattr(self, name), known)
        if self.compat not in (None, "reference"):
            raise unknown_name("compat", self.compat, ("reference",))
        by_k = tuple(Metric(f"token_f1_k{k}", (f"token_f1_k{k}",)) for k in self.ks)
        object.__setattr__(self, "metrics", (*by_k, *type(self).metrics))

    def rows(
        self, subject: Subject, batch: TextBatch, methods: Sequence[MethodSpec]
    ) -> Iterator[Row]:
        label = self.explain == "label"
        if batch.rationales is None or (label and batch.labels is None):
            raise OptionError(
                "Rationales needs rationales, and labels too with explain='label'. Use a data set "
                "that has them (`xai datasets`), or explain='predicted'."
            )
        fill = mask_id(subject, "removal='delete'") if self.removal == "mask" else None
        for spec in methods:
            target = batch.labels if label else None
            found = explained_texts(
                subject, batch, spec, target, max_length=self.max_length, reduce=self.reduce
            )
            entries = [self._entry(batch, i, one) for i, one in enumerate(found)]
            edits = [e if isinstance(e, str) else self._edits(e, fill) for e in entries]
            good = [edit for one in edits if not isinstance(one, str) for edit in one]
            lines = iter(stream_ids(subject, good).softmax(-1))
            for i, (entry, one) in enumerate(zip(entries, edits, strict=True)):
                row = {"index": batch.index[i], "key": batch.key[i], "method": spec.label}
                if isinstance(one, str):
                    yield row | {"error": one}
                    continue
                changed = [next(lines).numpy() for _ in one]
                if not np.isfinite(changed).all():
                    yield row | {"error": NOT_FINITE}
                    continue
                row |= self._agreement(entry) | self._faithfulness(entry, changed)
                yield row | {"error": None}

    def _entry(self, batch: TextBatch, i: int, found: ExplainedText | str) -> _Entry | str:
        """Return the ranked words of a sample, or why it has none."""
        if isinstance(found, str):
            return found
        text = batch.texts[i][0]
        truth = evidence_spans(text, batch.rationales[i])
        if not truth:
            return NO_EVIDENCE
        words, named = text.split(), None
        if self.compat is None:
            scores = document_scores(text, found.words)
        else:
            listed = found.scores.clamp(min=0).tolist()
            try:
                values = reference_word_scores(words, found.tokens.labels, listed)
            except InputError as error:
                return str(error)
            scores, named = dict(enumerate(values)), reference_selections(values, self.ks)
        order = ranked(scores)
        if named is None:
            named = [order[:k] for k in self.ks if k <= len(order)]
        if not scores:
            return NO_WORDS
        return _Entry(found, text, len(words), truth, scores, order, named)

    def _first(self, entry: _Entry, share: float) -> list[int]:
        return entry.ranking[: max(1, round(share * entry.words))]

    def _agreement(self, entry: _Entry) -> Row:
        row: Row = {}
        truth = words_in(entry.truth)
        each = [set_prf(truth, set(words)) for words in entry.named]
        each += [None] * (len(self.ks) - len(each))
        for name, part in (("token_precision", "p"), ("token_recall", "r"), ("token_f1", "f1")):
            curve = [None if prf is None else getattr(prf, part) for prf in each]
            known = [value for value in curve if value is not None]
            row[name] = curve
            row[f"{name}_mean"] = sum(known) / len(known) if known else None
        row |= {f"token_f1_k{k}": v for k, v in zip(self.ks, row["token_f1"], strict=True)}
        first = self._first(entry, self.share)
        spans = spans_of(first) if self.compat is None else [(p, p + 1) for p in first]
        for name, threshold in (("iou", IOU_THRESHOLD), ("soft_iou", None)):
            prf = iou_scores({0: entry.truth}, {0: spans}, threshold)["macro"]
            row |= {f"{name}_precision": prf.p, f"{name}_recall": prf.r}
        soft = [entry.scores.get(place, 0.0) for place in range(entry.words)]
        row["auprc"] = auprc([place in truth for place in range(entry.words)], soft)
        return row | {"word_scores": soft, "ranking": entry.ranking}

    def _edits(self, entry: _Entry, fill: int | None) -> list[TokenRow] | str:
        """Return the text without and with only its first words, for `share` and each threshold.

        Or why that cannot be: a tokenizer that adds no special tokens may leave an empty input.
        """
        found, rows = entry.found, []
        text = ~found.special & (torch.tensor(found.tokens.segments) == 0)
        for share in (self.share, *self.thresholds):
            inside = tokens_of_words(found, entry.text, self._first(entry, share))
            rows += [without(found.row, gone, fill) for gone in (inside, text & ~inside)]
        return rows if all(len(row["input_ids"]) for row in rows) else NOTHING_LEFT

    def _faithfulness(self, entry: _Entry, changed: list[np.ndarray]) -> Row:
        clean, chosen = entry.found.logits.softmax(-1).numpy(), entry.found.predicted
        drops = [drop(clean, p, chosen) for p in changed]
        without, only = changed[0::2], changed[1::2]
        return {
            "comprehensiveness": drops[0],
            "sufficiency": drops[1],
            "aopc_comprehensiveness": float(np.mean(drops[2::2])),
            "aopc_sufficiency": float(np.mean(drops[3::2])),
            "explained": entry.found.explained,
            "predicted": chosen,
            "whole": entry.found.whole,
            "probabilities": clean.tolist(),
            "probabilities_without": [p.tolist() for p in without],
            "probabilities_only": [p.tolist() for p in only],
        }


class _Entry(NamedTuple):
    """One document: its scores and ranking by place of the word, and the spans of evidence.

    words: how many there are, with a score or without. named: the first k words for each k that
    the document has.
    """

    found: ExplainedText
    text: str
    words: int
    truth: list[tuple[int, int]]
    scores: dict[int, float]
    ranking: list[int]
    named: list[list[int]]


def _check_ks(ks: Sequence[int]) -> tuple[int, ...]:
    good = [k for k in ks if type(k) is int and k > 0]
    if not good or len(good) < len(ks) or any(np.diff(good) <= 0):
        raise OptionError(f"ks is {list(ks)!r}; expected rising numbers of words, as {list(KS)}.")
    return tuple(good)
