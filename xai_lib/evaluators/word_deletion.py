"""Word deletion: accuracy while a sentence's most relevant tokens are blanked, one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from jaxtyping import Bool, Float, Int
from torch import Tensor

from xai_lib.errors import OptionError, unknown_name
from xai_lib.evaluators.base import Evaluator, Row, Subject, TextBatch
from xai_lib.evaluators.registry import evaluator
from xai_lib.evaluators.removal import mask_id, pad_id
from xai_lib.evaluators.specs import MethodSpec
from xai_lib.evaluators.texts import (
    EXPLAIN,
    ExplainedText,
    check_explain,
    check_max_length,
    explained_texts,
)
from xai_lib.evaluators.token_stream import NOT_FINITE, stream_ids
from xai_lib.statistics.metric import Metric

FILLS = ("pad", "mask")
SENTENCES = ("correct", "wrong", "all")
COLUMNS = ("hits", "probabilities", "accuracy_mean", "probability_mean")
TOO_SHORT = "Left out: fewer tokens than min_length, special ones included"
OTHER = "Left out: the model does not predict its label"
WRONG = "Left out: the model predicts its label"


@evaluator("word_deletion")
@dataclass(frozen=True)
class WordDeletion(Evaluator):
    """Wu & Ong (2021), section 3.2.2: the k most relevant tokens become [PAD], k = 1, 2, ...

    Only ids change; the attention mask stays, so that the model still reads the blanks. Scores are
    computed once, on the whole sentence, and special tokens are never blanked. Sentences count that
    have `min_length` tokens or more, special ones included, and whose label the model predicts
    (sentences: "correct", "wrong" or "all"); all others are error rows that say so, and count as
    failed. Equal scores go in the order of the text. A sentence with fewer than k tokens has lost
    them all. The method `random` is the control.

    explain: the "predicted" class, the "label"'s, or the model's "last" one, which the published
    notebooks explain whatever the prediction. fill: "pad" (published) or "mask".
    compat="reference": a sentence with fewer than k tokens loses the special ones too, as there.

    hits, probabilities: of the label, an entry a k. _mean: over k; low is better where the label's
    class is what is explained, high for "predicted" on "wrong" sentences, neither where both mix.
    """

    deletions: int = 10
    min_length: int = 10
    sentences: str = "correct"
    explain: str = "predicted"
    fill: str = "pad"
    max_length: int | None = None
    compat: str | None = None

    modality = "text"
    needs = frozenset({"labels"})
    metrics = (
        Metric("accuracy_mean", ("accuracy_mean",), better="low", scale=100),
        Metric("probability_mean", ("probability_mean",), better="low", scale=100),
    )

    def __post_init__(self):
        for name in ("deletions", "min_length"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} is {getattr(self, name)}; expected 1 or more.")
        check_explain(self.explain, (*EXPLAIN, "last"))
        check_max_length(self.max_length)
        for name, known in (("sentences", SENTENCES), ("fill", FILLS)):
            if getattr(self, name) not in known:
                raise unknown_name(name, getattr(self, name), known)
        if self.compat not in (None, "reference"):
            raise unknown_name("compat", self.compat, ("reference",))
        chosen = tuple(replace(metric, better=self._better()) for metric in type(self).metrics)
        object.__setattr__(self, "metrics", chosen)

    def _better(self) -> str | None:
        """Return which end of the label's curves speaks for a method.

        What speaks for the label goes first where that is the class explained; where another class
        is predicted and explained, what speaks against the label.
        """
        if self.sentences == "correct" or self.explain == "label":
            return "low"
        return "high" if (self.sentences, self.explain) == ("wrong", "predicted") else None

    def rows(
        self, subject: Subject, batch: TextBatch, methods: Sequence[MethodSpec]
    ) -> Iterator[Row]:
        if batch.labels is None:
            raise OptionError("Word deletion needs labels: `xai datasets` shows which sets have.")
        fill = fill_id(subject, self.fill)
        for spec in methods:
            target = targets(subject, batch, self.explain)
            found = explained_texts(subject, batch, spec, target, max_length=self.max_length)
            labels = batch.labels.tolist()
            errors = [self._reason(entry, y) for entry, y in zip(found, labels, strict=True)]
            good = [i for i, error in enumerate(errors) if error is None]
            edits = [
                found[i].row | {"input_ids": ids}
                for i in good
                for ids in deleted(
                    found[i].row["input_ids"], found[i].scores, found[i].special, self.deletions,
                    fill, reference=self.compat is not None,
                )
            ]  # fmt: skip
            logits = iter(stream_ids(subject, edits).split(self.deletions) if edits else ())
            for i, (index, key) in enumerate(zip(batch.index, batch.key, strict=True)):
                row = {"index": index, "key": key, "method": spec.label}
                numbers, error = dict.fromkeys(COLUMNS), errors[i]
                if error is None:
                    lines = next(logits)
                    if lines.isfinite().all():
                        numbers = _numbers(lines, labels[i])
                    else:
                        error = NOT_FINITE
                yield row | numbers | {"error": error}

    def _reason(self, found: ExplainedText | str, label: int) -> str | None:
        """Return why a sentence does not count, or None."""
        if isinstance(found, str):
            return found
        if len(found.special) < self.min_length:
            return TOO_SHORT
        right = found.predicted == label
        if self.sentences != "all" and right != (self.sentences == "correct"):
            return WRONG if right else OTHER
        return None


def deleted(
    ids: Int[Tensor, " tokens"],
    scores: Float[Tensor, " tokens"],
    special: Bool[Tensor, " tokens"],
    deletions: int,
    fill: int = 0,
    *,
    reference: bool = False,
) -> Int[Tensor, "deletions tokens"]:
    """Return the ids after each of k = 1, ..., deletions: the k highest scores have become `fill`.

    Special tokens stay. Past the last token of the text nothing changes any more; reference: then
    the special tokens go too.
    """
    places = (~special).nonzero().flatten()
    order = places[scores[places].argsort(descending=True, stable=True)]
    rows = ids.repeat(deletions, 1)
    for k in range(1, deletions + 1):
        rows[k - 1, order[:k]] = fill
        if reference and k > len(places):
            rows[k - 1] = fill
    return rows


def fill_id(subject: Subject, fill: str) -> int:
    """Return the id that takes a token's place."""
    if fill == "pad":
        return pad_id(subject)
    return mask_id(subject, "fill='pad'")


def targets(subject: Subject, batch: TextBatch, explain: str) -> Sequence[int] | Tensor | None:
    """Return the classes to explain: of the labels, the model's last one, or None for predicted."""
    if explain == "label":
        return batch.labels
    if explain == "predicted":
        return None
    return [int(subject.model.config.num_labels) - 1] * len(batch)


def _numbers(logits: Float[Tensor, "k classes"], label: int) -> Row:
    hits = (logits.argmax(1) == label).double()
    probabilities = logits.softmax(1)[:, label]
    lists = hits.tolist(), probabilities.tolist()
    means = float(hits.mean()), float(probabilities.mean())
    return dict(zip(COLUMNS, (*lists, *means), strict=True))
