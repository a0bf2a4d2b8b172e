"""What an evaluator scores of a text: a method's relevance as one number a token and a word."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from xai_lib.api import explain
from xai_lib.errors import InputError, OptionError, unknown_name
from xai_lib.evaluators.base import Subject, TextBatch
from xai_lib.evaluators.specs import MethodSpec
from xai_lib.streams.prepare import takes_keyword
from xai_lib.streams.words import REDUCTIONS, TextScores

EXPLAIN = ("label", "predicted")
NOT_FINITE = "The relevance of {method!r} holds NaN or Inf for this sample, so it ranks no words"
TOO_LONG = (
    "The text has {tokens} tokens, the model takes {limit}; the option max_length={limit} cuts "
    "texts there, and windows are for xai.explain_long"
)


@dataclass(frozen=True)
class ExplainedText:
    """One explained text, without padding, on the CPU.

    row: what the model takes, (tokens,) each. special: True for tokens that the tokenizer added.
    tokens: all of them, special ones included; words: of the text. logits: in float64. explained:
    class index. whole: False where the text was cut.
    """

    row: dict[str, Tensor]
    special: Bool[Tensor, " tokens"]
    tokens: TextScores
    words: TextScores
    logits: Float[Tensor, " classes"]
    explained: int
    whole: bool = True

    @property
    def predicted(self) -> int:
        return int(self.logits.argmax())

    @property
    def scores(self) -> Float[Tensor, " tokens"]:
        """Relevance of every token, in float64."""
        return self.tokens.scores.double().cpu()


def check_max_length(max_length: int | None) -> None:
    """Raise an OptionError unless `max_length` leaves room for a token between special ones."""
    if max_length is not None and max_length < 3:
        raise OptionError(f"max_length is {max_length}; expected 3 tokens or more, or None.")


def check_explain(explain: str, known: Sequence[str] = EXPLAIN) -> None:
    """Raise an OptionError unless `explain` names a class to explain."""
    if explain not in known:
        raise unknown_name("explain", explain, known)


def explained_texts(
    subject: Subject,
    batch: TextBatch,
    spec: MethodSpec,
    target: Sequence[int] | Tensor | None = None,
    *,
    max_length: int | None = None,
    reduce: str = "max",
    keep: bool = True,
) -> list[ExplainedText | str]:
    """Explain every text of a batch for `target` (None: its predicted class).

    Returns one entry a sample: its explanation, or the reason why there is none (an empty text, one
    too long for the model, NaN). max_length: cut texts after that many tokens, special ones
    included, as published pipelines do; None cuts nothing. reduce: how pieces' scores make a
    word's. keep: hand the tokens' relevance to `subject.keep`. A text that cannot be explained
    costs only itself; what holds for all (options, targets outside the model's classes, methods
    that the model has no use for) is raised.
    """
    if reduce not in REDUCTIONS:
        raise unknown_name("reduce", reduce, REDUCTIONS)
    read = Reader(subject, max_length)
    found: list[ExplainedText | str] = [read.problem(texts) or "" for texts in batch.texts]
    good = [i for i, reason in enumerate(found) if not reason]
    # One processor call takes texts with a second one or texts without.
    for paired in (False, True):
        places = [i for i in good if (len(batch.texts[i]) > 1) == paired]
        for place, entry in zip(
            places, _explain(read, batch, places, spec, target, reduce), strict=True
        ):
            found[place] = entry
    if keep and subject.keep is not None:
        for i, entry in enumerate(found):
            if isinstance(entry, ExplainedText):
                subject.keep(spec.label, batch.index[i], entry.tokens.scores)
    return found


def _explain(
    read: Reader, batch: TextBatch, places: list[int], spec: MethodSpec, target, reduce: str
) -> list[ExplainedText | str]:
    """Return the entries of some samples, all at once, or else one by one."""
    if not places:
        return []
    chosen = None if target is None else [int(target[i]) for i in places]
    try:
        inputs = read([batch.texts[i] for i in places])
        att = explain(read.subject.model, inputs, spec.name, target=chosen, **spec.options)
    except InputError as error:
        if len(places) == 1:
            return [reason_of(error)]
        return [entry for i in places for entry in _explain(read, batch, [i], spec, target, reduce)]
    tokens, words = att.tokens(specials=True), att.words(reduce)
    present, special = att.layout.present, att.layout.special
    found: list[ExplainedText | str] = []
    for i, place in enumerate(places):
        row = {name: inputs[name][i][present[i]].cpu() for name in read.names(inputs)}
        entry = ExplainedText(
            row, special[i][present[i]].cpu(), tokens[i], words[i], att.logits[i].double().cpu(),
            int(att.target[i]), read.fits(batch.texts[place]),
        )  # fmt: skip
        finite = bool(entry.tokens.scores.isfinite().all())
        found.append(entry if finite else NOT_FINITE.format(method=spec.label))
    return found


class Reader:
    """Texts to inputs of the subject's model, cut after `max_length` tokens if that is given."""

    def __init__(self, subject: Subject, max_length: int | None):
        processor = subject.processor
        limits = [n for n in (max_length, processor.max_length) if n is not None]
        self.subject, self.cut = subject, max_length is not None
        self.processor = dataclasses.replace(processor, max_length=min(limits, default=None))

    def __call__(self, texts: Sequence[tuple[str, ...]]):
        first, *second = (list(column) for column in zip(*texts, strict=True))
        pairs = second[0] if second else None
        return self.processor(first, pairs, truncate=self.cut).to(self.subject.device)

    def problem(self, texts: tuple[str, ...]) -> str | None:
        """Return why the model cannot take a text, or None."""
        try:
            if not self.cut and not self.fits(texts):
                limit, tokens = self.processor.max_length, self.length(texts)
                return TOO_LONG.format(tokens=tokens, limit=limit)
            self([texts])
        except InputError as error:
            return reason_of(error)
        return None

    def fits(self, texts: tuple[str, ...]) -> bool:
        limit = self.processor.max_length
        return limit is None or not all(texts) or self.length(texts) <= limit

    def length(self, texts: tuple[str, ...]) -> int:
        return len(self.processor.tokenizer(*texts, verbose=False).input_ids)

    def names(self, inputs) -> list[str]:
        """Return the inputs that the model takes."""
        model = self.subject.model
        return [n for n in inputs if n == "input_ids" or takes_keyword(model, n)]


def reason_of(error: InputError) -> str:
    """Return why one text cannot be explained, in words that name no place in a list."""
    text = " ".join(str(error).split())
    return text.replace("texts[0]", "The text").replace("Text 0", "The text")
