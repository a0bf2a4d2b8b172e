"""What the explorer of texts shows and remembers. No widgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xai_lib.api import explain
from xai_lib.errors import InputError, XAIError
from xai_lib.explainers import registry
from xai_lib.explainers.signs import ATTENTION, Sign
from xai_lib.plots import TextRow, sign_of
from xai_lib.streams.texts import TextLayout
from xai_lib.streams.words import TextScores
from xai_lib.widgets.gallery import free_name
from xai_lib.widgets.reading import TextReading, read_text
from xai_lib.widgets.session import Session, attention_of


@dataclass(frozen=True)
class TextChoice:
    """What one pane shows; as `xai_lib.widgets.state.Choice`, of a text instead of an image."""

    text: str
    method: str
    target: int | None = None
    start: int | None = None
    layer: int | None = None
    head: int | None = None

    @property
    def source(self) -> str:
        """What is explained."""
        return self.text


@dataclass(frozen=True)
class TextView:
    """The relevance (1, tokens) of one text, or the sentence that says why there is none."""

    title: str
    note: str
    sign: Sign
    layout: TextLayout | None = None
    relevance: Tensor | None = None
    refusal: str = ""

    def scores(self, text: str, level: str, reduce: str) -> TextScores:
        """Return the scores of words or tokens; the refusal, without any, where there is none."""
        if self.relevance is None:
            return TextScores((self.refusal or text,), (), (), (), torch.zeros(0))
        if level == "word":
            return self.layout.word_scores(self.relevance, reduce)[0]
        return self.layout.token_scores(self.relevance, specials=True)[0]


class TextSession(Session):
    """A model and everything computed of texts, which are their own names."""

    def inputs(self, text: str):
        """Return what the model takes of a text. Raises InputError for one that it cannot take."""
        encoded = self.processor(text)
        like = next(self.model.parameters(), None)
        return encoded if like is None else encoded.to(like.device)

    def read(self, source: str) -> TextReading:
        """Return the logits of a text and the attention of every head."""
        return read_text(self.model, self.inputs(source))

    def explained(self, choice: TextChoice) -> TextView:
        """Return the relevance by a method, or the sentence of one that refuses the model."""
        options, note = self.method_options(choice), self.about(choice)
        sign = sign_of(choice.method, options)
        inputs, target = self.inputs(choice.text), self.target(choice)
        try:
            att = explain(self.model, inputs, choice.method, target, **options)
        except XAIError as error:
            return TextView(choice.method, note, sign, refusal=str(error))
        relevance = att.relevance.float().cpu()
        return TextView(choice.method, note, sign, att.layout, relevance)

    def attended(self, choice: TextChoice) -> TextView:
        """Return the raw attention of one layer, of a head or averaged over heads."""
        reading = self.reading(choice.text)
        title, note = attention_of(choice)
        if reading.refusal:
            return TextView(title, note, ATTENTION, refusal=reading.refusal)
        relevance = reading.attention(choice.layer, choice.head)[None].cpu()
        return TextView(title, note, ATTENTION, reading.layout, relevance)

    def row(self, choice: TextChoice, level: str, reduce: str, top: int) -> TextRow:
        """Return what a pane shows: coloured text, class, and the likeliest classes' bars."""
        view, target = self.view(choice), self.target(choice)
        chances = self.probabilities(choice.text)
        raw = choice.layer is not None
        detail = view.note if raw else self.options_said(choice)
        specific = not raw and registry.all_methods()[choice.method].class_specific
        return TextRow(
            view.scores(choice.text, level, reduce),
            f"{view.title} ({detail})" if detail else view.title,
            self.class_name(target),
            float(chances[target]),
            view.sign.note if view.relevance is not None else "",
            not view.sign.non_negative,
            tuple((self.class_name(i), float(chances[i])) for i in self.likeliest(choice, top)),
            specific,
        )


def named_texts(texts) -> dict[str, str]:
    """Return {name: text} of a mapping, a list of texts or one text.

    A text without a name goes by its beginning. Raises InputError where there is no text.
    """
    if isinstance(texts, str):
        texts = [texts]
    if not isinstance(texts, Mapping | Sequence) or isinstance(texts, bytes) or not len(texts):
        raise InputError(
            f"texts is {type(texts).__name__}{' and empty' if not texts else ''}; expected a text, "
            "a list of texts or a {name: text}."
        )
    pairs = texts.items() if isinstance(texts, Mapping) else ((None, text) for text in texts)
    named: dict[str, str] = {}
    for name, text in pairs:
        if not isinstance(text, str):
            raise InputError(f"texts holds {type(text).__name__}; expected texts only.")
        named[free_name(str(name) if name is not None else short(text), named)] = text
    return named


def short(text: str, length: int = 40) -> str:
    """Return the beginning of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"
