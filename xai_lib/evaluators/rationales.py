"""Rationales: are the words that a method ranks first those that people named as evidence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from xai_lib.errors import OptionError
from xai_lib.evaluators.base import Row, Subject
from xai_lib.evaluators.batches import TextBatch
from xai_lib.evaluators.eraser.metrics import AOPC_THRESHOLDS, drop, f1_score
from xai_lib.evaluators.explained import EXPLAIN, Explained, check_max_length
from xai_lib.evaluators.packing import RowEdits
from xai_lib.evaluators.plausibility import RankedWords, agreement, ranked_words
from xai_lib.evaluators.registry import evaluator
from xai_lib.evaluators.removal import Removal, Setting, blanked, closed_up, mask_id, rising
from xai_lib.evaluators.truth import classes_to_explain
from xai_lib.statistics.metric import Metric, Values
from xai_lib.streams.scales import Scale
from xai_lib.streams.words import REDUCTIONS, spaced_words_of

KS = tuple(range(5, 85, 5))
NOTHING_LEFT = "Without its first words this sample has no token left for the model to read"


def _f1(parts: np.ndarray) -> Values:
    return f1_score(parts[..., 0], parts[..., 1])


@evaluator("rationales")
@dataclass
class Rationales(Removal):
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
        check_max_length(self.max_length)
        self.check_choices(
            explain=EXPLAIN, removal=("delete", "mask"), reduce=tuple(REDUCTIONS),
            compat=(None, "reference"),
        )  # fmt: skip
        expected = f"rising numbers of words, as {list(KS)}"
        self.ks = rising("ks", self.ks, lambda k: type(k) is int and k > 0, expected, least=1)
        shares = (self.share, *self.thresholds)
        good = all(isinstance(s, int | float) and 0 < s <= 1 for s in shares)
        if not good or not self.thresholds:
            raise OptionError(f"share and thresholds are {shares}; expected two or more in (0, 1].")
        self.thresholds = tuple(map(float, self.thresholds))
        by_k = tuple(Metric(f"token_f1_k{k}", (f"token_f1_k{k}",)) for k in self.ks)
        self.metrics = (*by_k, *type(self).metrics)

    def check(self, batch: TextBatch) -> None:
        classes_to_explain(batch, self.explain, "Rationales", "rationales")

    def copies(
        self, subject: Subject, batch: TextBatch, place: int, found: Explained
    ) -> list[tuple[Sequence[Setting], RowEdits | str, object]]:
        assert batch.rationales is not None, "`check` asked for them"
        reference = self.compat is not None
        text, spans = batch.texts[place][0], batch.rationales[place]
        words = ranked_words(found, text, spans, self.ks, reference=reference)
        if isinstance(words, str):
            return [(self.settings, words, None)]
        edits = self._edits(subject, found, text, words, place)
        return [(self.settings, edits, (found, words))]

    def _edits(
        self, subject: Subject, found: Explained, text: str, words: RankedWords, place: int
    ) -> RowEdits | str:
        """Return the text without and with only its first words, for `share` and each threshold."""
        own, lost = ~found.special & (torch.tensor(found.tokens.segments) == 0), []
        for share in (self.share, *self.thresholds):
            inside = tokens_of_words(found, text, words.first(share))
            lost += [inside, own & ~inside]
        if self.removal == "mask":
            fill = mask_id(subject, "removal='delete'")
            return blanked(found.row, torch.stack(lost), fill, place)
        kept = [(~gone).nonzero().flatten().tolist() for gone in lost]
        # A tokenizer that adds no special tokens may leave an empty input.
        return closed_up(found.row, kept, place) if all(kept) else NOTHING_LEFT

    def numbers(
        self, logits: Float[Tensor, "steps classes"], facts: Any, scale: Scale
    ) -> Row | None:
        found, words = facts
        changed = scale.probabilities(logits).numpy()
        if not np.isfinite(changed).all():
            return None
        agreed = agreement(words, self.ks, self.share, reference=self.compat is not None)
        return agreed | faithfulness(found, changed)


def faithfulness(found: Explained, changed: Float[np.ndarray, "edits classes"]) -> Row:
    """Return how far the prediction falls without the first words, and with only these.

    changed: probabilities without and with only the first words, in turn; the first two for the
    share of the evaluator, the others for its thresholds.
    """
    clean, chosen = found.scale.probabilities(found.logits).numpy(), found.predicted
    drops = [drop(clean, p, chosen) for p in changed]
    without, only = changed[0::2], changed[1::2]
    return {
        "comprehensiveness": drops[0],
        "sufficiency": drops[1],
        "aopc_comprehensiveness": float(np.mean(drops[2::2])),
        "aopc_sufficiency": float(np.mean(drops[3::2])),
        "explained": found.explained,
        "predicted": chosen,
        "whole": found.whole,
        "probabilities": clean.tolist(),
        "probabilities_without": [p.tolist() for p in without],
        "probabilities_only": [p.tolist() for p in only],
    }


def tokens_of_words(found: Explained, text: str, places: Iterable[int]) -> Bool[Tensor, " tokens"]:
    """Return which tokens hold a character of the words at `places` of `text`, the first one."""
    spans = spaced_words_of(text)
    letters = np.zeros(len(text) + 1, bool)
    for place in places:
        letters[slice(*spans[place])] = True
    tokens = found.tokens
    inside = [
        segment == 0 and bool(letters[start:end].any())
        for (start, end), segment in zip(tokens.spans, tokens.segments, strict=True)
    ]
    return torch.tensor(inside) & ~found.special
