"""What an evaluator scores of a text or a question: relevance of each token, word and region."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from xai_lib.api import explain
from xai_lib.attribution import Attribution
from xai_lib.errors import InputError, OptionError, unknown_name
from xai_lib.evaluators.base import Subject
from xai_lib.evaluators.batches import AnyBatch, QuestionBatch, TextBatch
from xai_lib.evaluators.packing import PIXELS, REGION_MASK, ModelRow
from xai_lib.evaluators.specs import MethodSpec
from xai_lib.streams.prepare import takes_keyword
from xai_lib.streams.scales import SOFTMAX, Scale
from xai_lib.streams.texts import TextLayout
from xai_lib.streams.words import REDUCTIONS, Span, TextScores, spaced_words_of

EXPLAIN = ("label", "predicted")
STREAMS = ("image", "text")
NOT_FINITE = "The relevance of {method!r} holds NaN or Inf for this sample, so it ranks {nothing}"
TOO_LONG = (
    "The text has {tokens} tokens, the model takes {limit}; the option max_length={limit} cuts "
    "texts there, and windows are for xai.explain_long"
)

T = TypeVar("T")
# A class a sample.
Classes = Sequence[int] | Int[Tensor, " b"]


@dataclass(frozen=True)
class Explained:
    """One explained text or question, without padding, on the CPU.

    row: what the model takes. special: True for tokens that the tokenizer added. tokens: all of
    them, special ones included; words: of the text. regions: relevance of each, in float64, or
    None. logits: in float64. explained: class index. whole: False where the text was cut.
    scale: what the logits are.
    """

    row: ModelRow
    special: Bool[Tensor, " tokens"]
    tokens: TextScores
    words: TextScores
    regions: Float[Tensor, " regions"] | None
    logits: Float[Tensor, " classes"]
    explained: int
    whole: bool = True
    scale: Scale = SOFTMAX

    @property
    def predicted(self) -> int:
        return int(self.logits.argmax())

    def says(self, label: int) -> bool:
        """Whether the model predicts a label, alone or among others."""
        return bool(self.scale.right(self.logits)[label])

    @property
    def scores(self) -> Float[Tensor, " tokens"]:
        """Relevance of every token, in float64."""
        return self.tokens.scores.double().cpu()

    @property
    def relevance(self) -> Float[Tensor, " units"]:
        """Relevance of every token and then of every region, in float64."""
        return self.scores if self.regions is None else torch.cat([self.scores, self.regions])


def check_max_length(max_length: int | None) -> None:
    """Raise an OptionError unless `max_length` leaves room for a token between special ones."""
    if max_length is not None and max_length < 3:
        raise OptionError(f"max_length is {max_length}; expected 3 tokens or more, or None.")


def targets_of(subject: Subject, batch: AnyBatch, explain: str) -> Classes | None:
    """Return the classes to explain: of the labels, the model's last one, or None for predicted."""
    if explain == "label":
        return batch.labels
    if explain == "predicted":
        return None
    config: Any = subject.model.config
    return [int(config.num_labels) - 1] * len(batch)


def all_or_each(
    places: list[int], score: Callable[[list[int]], Sequence[T | str]]
) -> list[T | str]:
    """Return the entries of some samples, all at once, or else one by one; a reason for each error.

    A sample that cannot be scored costs only itself; what holds for all is no InputError.
    """
    if not places:
        return []
    try:
        return list(score(places))
    except InputError as error:
        if len(places) == 1:
            return [reason_of(error)]
        return [entry for place in places for entry in all_or_each([place], score)]


def reason_of(error: InputError) -> str:
    """Return why one sample cannot be explained, in words that name no place in a list."""
    text = " ".join(str(error).split())
    return text.replace("texts[0]", "The text").replace("Text 0", "The text")


def explained_rows(
    subject: Subject,
    batch: TextBatch | QuestionBatch,
    spec: MethodSpec,
    target: Classes | None = None,
    *,
    max_length: int | None = None,
    reduce: str = "max",
    divide: Callable[[str], list[Span]] = spaced_words_of,
) -> list[Explained | str]:
    """Explain every text or question of a batch for `target` (None: its predicted class).

    Returns one entry a sample: its explanation, or the reason why there is none (an empty text, one
    too long for the model, no regions, NaN). max_length: cut texts after that many tokens, special
    ones included, as published pipelines do; None cuts nothing. reduce: how pieces' scores make a
    word's; divide: what the words of a text are. `subject.keep` gets the relevance of the tokens
    and then of the regions. What holds for all (options, targets outside the model's classes,
    methods that the model has no use for) is raised.
    """
    if reduce not in REDUCTIONS:
        raise unknown_name("reduce", reduce, REDUCTIONS)
    subject, options = _cut(subject, max_length)
    rows = rows_of(subject, batch, **options)
    found: dict[int, Explained | str] = {
        i: row for i, row in enumerate(rows) if isinstance(row, str)
    }
    good = {i: row for i, row in enumerate(rows) if not isinstance(row, str)}

    def entries(places: list[int]) -> list[Explained | str]:
        chosen = None if target is None else [int(target[i]) for i in places]
        inputs = subject.inputs(batch[places], **options)
        att = explain(subject.model, inputs, spec.name, target=chosen, **spec.options)
        assert not isinstance(inputs, Tensor), "an image is no text"
        seen = inputs[REGION_MASK].bool() if REGION_MASK in inputs else None
        whole = [_fits(subject, batch, i) for i in places]
        text = att.part("text").layout
        assert isinstance(text, TextLayout), "a text has words"
        words = text.word_scores(att.streams["text"], reduce, divide)
        entries = _entries(att, seen, [good[i] for i in places], words, whole)
        return [
            one if one.relevance.isfinite().all() else _not_finite(one, spec) for one in entries
        ]

    # One call of the processor takes texts with a second one or texts without.
    for pairs in (False, True):
        places = [i for i in good if (len(_texts(batch, i)) > 1) == pairs]
        found |= zip(places, all_or_each(places, entries), strict=True)
    every = [found[i] for i in range(len(rows))]
    if subject.keep is not None:
        for index, entry in zip(batch.index, every, strict=True):
            if isinstance(entry, Explained):
                subject.keep(spec.label, index, entry.relevance)
    return every


def _entries(
    att: Attribution,
    seen: Tensor | None,
    rows: list[ModelRow],
    words: list[TextScores],
    whole: list[bool],
) -> list[Explained]:
    text = att.part("text").layout
    assert isinstance(text, TextLayout), "a text has words"
    regions = None if seen is None else att.streams["image"].double().cpu()
    return [
        Explained(
            row,
            text.special[i][text.present[i]].cpu(),
            tokens,
            own,
            None if regions is None or seen is None else regions[i][seen[i].cpu()],
            att.logits[i].double().cpu(),
            int(att.target[i]),
            whole[i],
            att.scale,
        )
        for i, (row, tokens, own) in enumerate(
            zip(rows, att.tokens(specials=True), words, strict=True)
        )
    ]


def _not_finite(entry: Explained, spec: MethodSpec) -> str:
    nothing = "no words" if entry.regions is None else "nothing"
    return NOT_FINITE.format(method=spec.label, nothing=nothing)


def rows_of(subject: Subject, batch: AnyBatch, **options: Any) -> list[ModelRow | str]:
    """Return what the model takes of each sample, without padding, on the CPU; or why nothing.

    options: of the processor's `of`. Images are the exception: they stay where they are.
    """
    found: list[ModelRow | str] = []
    for i in range(len(batch)):
        try:
            if not options and not _fits(subject, batch, i):
                tokens = subject.processor.length(_texts(batch, i))
                found.append(TOO_LONG.format(tokens=tokens, limit=subject.processor.max_length))
                continue
            inputs = subject.inputs(batch[[i]], **options)
        except InputError as error:
            found.append(reason_of(error))
            continue
        if isinstance(inputs, Tensor):
            found.append({PIXELS: inputs[0]})
        else:
            names = [n for n in inputs if n == "input_ids" or takes_keyword(subject.model, n)]
            found.append({name: inputs[name][0].cpu() for name in names})
    return found


def _cut(subject: Subject, max_length: int | None) -> tuple[Subject, dict[str, bool]]:
    """Return the subject whose processor cuts texts after `max_length` tokens, and its option."""
    if max_length is None:
        return subject, {}
    processor = subject.processor
    limits = [n for n in (max_length, processor.max_length) if n is not None]
    processor = dataclasses.replace(processor, max_length=min(limits))
    return dataclasses.replace(subject, processor=processor), {"truncate": True}


def _texts(batch: AnyBatch, i: int) -> tuple[str, ...]:
    """Return the one or two texts of a sample whose length nobody else checks."""
    return batch.texts[i] if isinstance(batch, TextBatch) else ()


def _fits(subject: Subject, batch: AnyBatch, i: int) -> bool:
    texts = _texts(batch, i)
    limit = subject.processor.max_length if texts and all(texts) else None
    return limit is None or subject.processor.length(texts) <= limit
