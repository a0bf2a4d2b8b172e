"""Texts: a stream of token numbers, and which characters of its text each token stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from xai_lib.errors import InputError, unknown_name
from xai_lib.streams.encodings import Given, characters_of, encodings_of
from xai_lib.streams.layouts import Layout, PlainLayout
from xai_lib.streams.stream import Grid, Stream
from xai_lib.streams.words import (
    REDUCTIONS,
    Span,
    TextScores,
    joined_words,
    words_of,
    words_with_tokens,
)
from xai_lib.tracing import Trace

# What transformers calls the method that gives a model's table of words.
EMBEDDINGS = "get_input_embeddings"


@dataclass(frozen=True)
class TextLayout:
    """Which characters each token of a batch stands for.

    ids, present: (batch, tokens); present is False for padding. special: True for tokens that the
    tokenizer adds or a person typed, (batch, tokens). pieces, offsets, segments: per sample, of
    every token that is no padding; None where the inputs came without a fast tokenizer's encodings.
    texts: per sample its one or two texts, None where only their ids are known. given: per sample
    the words of these, where they were given one by one.
    """

    ids: Int[Tensor, "batch tokens"]
    present: Bool[Tensor, "batch tokens"]
    special: Bool[Tensor, "batch tokens"]
    pieces: tuple[tuple[str, ...], ...] | None = None
    offsets: tuple[tuple[Span, ...], ...] | None = None
    segments: tuple[tuple[int, ...], ...] | None = None
    texts: tuple[tuple[str, ...], ...] | None = None
    given: tuple[Given, ...] | None = None

    kind: ClassVar[str] = "words"
    stream: ClassVar[str] = "text"
    leads: ClassVar[bool] = True

    @classmethod
    def of(
        cls,
        ids: Int[Tensor, "batch tokens"],
        present: Bool[Tensor, "batch tokens"],
        special: Bool[Tensor, "batch tokens"] | None,
        encodings: Sequence | None,
        texts: tuple[tuple[str, ...], ...] | None,
        given: tuple[Given, ...] | None = None,
    ) -> TextLayout:
        """Read the layout from a batch's ids, masks and encodings (of the `tokenizers` library).

        Without encodings nobody knows which tokens are special: then none is. given: the words of
        each text, where they were tokenized one by one.
        """
        special = torch.zeros_like(present) if special is None else special & present
        if encodings is None:
            return cls(ids, present, special, texts=texts)
        known = texts or [None] * len(encodings), given or [None] * len(encodings)
        found = [characters_of(*row) for row in zip(encodings, *known, strict=True)]
        characters = [row for row in found if row is not None]
        if len(characters) < len(encodings):
            texts, given, characters = None, None, [e.offsets for e in encodings]

        kept = [row.nonzero()[:, 0].tolist() for row in present.cpu()]

        def of_tokens(rows: Sequence[Sequence]) -> tuple[tuple, ...]:
            return tuple(
                tuple(row[p] for p in places) for row, places in zip(rows, kept, strict=True)
            )

        segments = of_tokens([[s or 0 for s in e.sequence_ids] for e in encodings])
        pieces = of_tokens([e.tokens for e in encodings])
        offsets = of_tokens(characters)
        return cls(ids, present, special, pieces, offsets, segments, texts, given)

    @property
    def tokens(self) -> int:
        return self.ids.shape[1]

    @property
    def content(self) -> Bool[Tensor, "batch tokens"]:
        """Bool (batch, tokens): True for tokens of the text, False for special ones and padding."""
        return self.present & ~self.special

    def content_of(self, batch: int, device: torch.device) -> Bool[Tensor, "*targets_batch tokens"]:
        """Return `content`; the same question as to an image's layout."""
        return self.content

    def token_scores(
        self, relevance: Float[Tensor, "*targets batch tokens"], specials: bool = False
    ) -> list[TextScores]:
        """Return each sample's tokens, in order, with their part of `relevance` (..., tokens)."""
        if self.texts is None or not (self.pieces and self.offsets and self.segments):
            raise _no_texts()
        found = []
        for i, texts in enumerate(self.texts):
            chosen = self.present[i] if specials else self.content[i]
            places = chosen.nonzero()[:, 0].tolist()
            real = self._places(i)
            found.append(
                TextScores(
                    texts,
                    tuple(self.pieces[i][real[p]] for p in places),
                    tuple(self.offsets[i][real[p]] for p in places),
                    tuple(self.segments[i][real[p]] for p in places),
                    relevance[..., i, :][..., places],
                )
            )
        return found

    def word_scores(
        self,
        relevance: Float[Tensor, "*targets batch tokens"],
        reduce: str = "max",
        divide: Callable[[str], list[Span]] = words_of,
    ) -> list[TextScores]:
        """Return each sample's words with their pieces' score.

        Words are those that were given one by one, or what `divide` finds in a text. A piece
        belongs to the words whose characters it shares; [UNK] too, since only its offsets count.
        Words without any piece (cut off by truncation, or of characters that the tokenizer drops)
        are left out.
        """
        if reduce not in REDUCTIONS:
            raise unknown_name("reduce", reduce, REDUCTIONS)
        found = []
        for i, tokens in enumerate(self.token_scores(relevance)):
            if self.given is None:
                spans = [divide(text) for text in tokens.texts]
            else:
                spans = [joined_words(words)[1] for words in self.given[i]]
            words, members = words_with_tokens(tokens, spans)
            scores = [REDUCTIONS[reduce](tokens.scores[..., places]) for places in members]
            empty = tokens.scores[..., :0]
            found.append(
                TextScores(
                    tokens.texts,
                    tuple(tokens.texts[segment][start:end] for segment, start, end in words),
                    tuple((start, end) for _, start, end in words),
                    tuple(segment for segment, _, _ in words),
                    torch.stack(scores, -1) if scores else empty,
                )
            )
        return found

    def _places(self, sample: int) -> dict[int, int]:
        """Return which token that is no padding stands at each place, wherever the padding is."""
        places = self.present[sample].nonzero()[:, 0].tolist()
        return {place: number for number, place in enumerate(places)}


def _no_texts() -> InputError:
    return InputError(
        "The inputs came without their text or its offsets, or were changed after they were "
        "tokenized, so there are no words: make them with the processor of xai.load, or with "
        "xai_lib.models.TextProcessor(tokenizer) of a fast tokenizer; words one by one with "
        "processor(words, is_split_into_words=True)."
    )


@dataclass
class Words(Stream):
    """A text as `data`, token numbers (batch, tokens); the features are their embeddings.

    special: what the tokenizer added, or None where that is not known. encodings, texts: of the
    `tokenizers` library, and what a person wrote; None where only the numbers are known. given: the
    words of each text, where a person gave them one by one. written: the places that the model
    writes another stream into (LLaVA's image), which `present` leaves out; None where none are.
    """

    present: Bool[Tensor, "batch tokens"] = field(kw_only=True)
    special: Bool[Tensor, "batch tokens"] | None = field(default=None, kw_only=True)
    encodings: tuple | None = field(default=None, kw_only=True, repr=False)
    texts: tuple[tuple[str, ...], ...] | None = field(default=None, kw_only=True, repr=False)
    given: tuple[Given, ...] | None = field(default=None, kw_only=True, repr=False)
    written: Bool[Tensor, "batch tokens"] | None = field(default=None, kw_only=True, repr=False)

    kind: ClassVar[str] = "words"
    embeds: ClassVar[bool] = True
    advice: ClassVar[str] = "processor(text) makes inputs that its tokenizer and length limit fit."

    @classmethod
    def of(cls, model: nn.Module, inputs: Mapping, ids: Int[Tensor, "batch tokens"]) -> Words:
        """Read and check `inputs` of the token numbers `ids`, as a tokenizer returns them."""
        mask = inputs.get("attention_mask")
        check_ids(model, ids, mask)
        present = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
        encodings, added = encodings_of(inputs, ids)
        special = inputs.get("special_tokens_mask")
        special = added if special is None else special.bool()
        if special is not None:
            _check_content(present & ~special)
        texts, given = (getattr(inputs, name, None) for name in ("texts", "given_words"))
        if texts is not None and len(texts) != ids.shape[0]:
            texts = given = None
        known = {"special": special, "encodings": encodings, "texts": texts, "given": given}
        return cls("text", "input_ids", ids, present=present, **known)

    @property
    def length(self) -> int:
        return self.data.shape[1]

    def advise(self, model: nn.Module) -> str:
        return too_long(model, self.data.shape[1]) or self.advice

    def samples(self) -> list[Shaped[Tensor, "..."]]:
        return [row[kept] for row, kept in zip(self.data, self.present, strict=True)]

    def layout(self, trace: Trace | None = None) -> TextLayout:
        known = self.encodings, self.texts, self.given
        return TextLayout.of(self.data, self.present, self.special, *known)

    def layout_among(self, tokens: int, grid: Grid, patch: Grid) -> Layout:
        return self.layout() if tokens == self.length else PlainLayout(tokens)

    def take(self, rows: Int[Tensor, " rows"]) -> Words:
        """Return the texts `rows`, with repetition."""
        numbers = rows.tolist()

        def chosen(values):
            return None if values is None else tuple(values[n] for n in numbers)

        return replace(
            self,
            data=self.data[rows],
            present=self.present[rows],
            special=None if self.special is None else self.special[rows],
            encodings=chosen(self.encodings),
            texts=chosen(self.texts),
            given=chosen(self.given),
            written=None if self.written is None else self.written[rows],
        )


def check_ids(model: nn.Module, ids: Any, mask: Any) -> None:
    """Raise an InputError unless `ids` is a batch of token numbers, and `mask` its 0/1 mask."""
    if not isinstance(ids, Tensor) or ids.dim() != 2 or ids.is_floating_point():
        found = f"{ids.dtype} {tuple(ids.shape)}" if isinstance(ids, Tensor) else type(ids).__name__
        raise InputError(
            f"inputs['input_ids'] is {found}; expected integers of shape (batch, tokens), as "
            "tokenizer(texts, return_tensors='pt', padding=True) returns them."
        )
    if not ids.numel():
        raise InputError("inputs['input_ids'] is empty; expected at least one text with tokens.")
    if mask is not None:
        shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        if shape != tuple(ids.shape) or not ((mask == 0) | (mask == 1)).all():
            raise InputError(
                f"inputs['attention_mask'] is {shape}; expected 1 for tokens and 0 for padding, "
                f"of the shape {tuple(ids.shape)} of the ids."
            )
        if not mask.any(1).all():
            raise InputError("inputs['attention_mask'] has a row without a token: an empty text.")
    _check_vocabulary(model, ids)
    config = getattr(model, "config", None)
    config = getattr(config, "text_config", None) or config
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and 0 < positions < ids.shape[1]:
        raise InputError(
            f"inputs has {ids.shape[1]} tokens, the model takes {positions}. Explain long texts in "
            "windows with xai.explain_long(model, processor, text), or cut them: "
            "processor(text, truncate=True)."
        )


def too_long(model: nn.Module, tokens: int) -> str | None:
    """Return why a model may have refused so many tokens, None where nothing shows.

    A table of places that has one for padding counts from behind it (RoBERTa: 514 for 512 tokens).
    """
    config = getattr(model, "config", None)
    config = getattr(config, "text_config", None) or config
    places = getattr(config, "max_position_embeddings", None)
    most = min(
        (
            m.num_embeddings - m.padding_idx - 1
            for m in model.modules()
            if isinstance(m, nn.Embedding) and m.num_embeddings == places and m.padding_idx
        ),
        default=tokens,
    )
    if not isinstance(places, int) or tokens <= most:
        return None
    return (
        f"inputs has {tokens} tokens, the model takes {most}: of its {places} places the first "
        f"{places - most} belong to padding. Explain long texts in windows with "
        "xai.explain_long(model, processor, text), or cut them: processor(text, truncate=True)."
    )


def _check_content(content: Tensor) -> None:
    """Raise an InputError unless each row of `content` (batch, tokens) has a token of its text."""
    if not content.any(1).all():
        row = int(content.any(1).long().argmin())
        raise InputError(
            f"Text {row} of inputs is only special tokens, so there is nothing to explain: it "
            "is empty, or no character of it is one that the tokenizer knows."
        )


def _check_vocabulary(model: nn.Module, ids: Tensor) -> None:
    try:
        table = getattr(model, EMBEDDINGS)()
    except (AttributeError, NotImplementedError):
        return
    size = getattr(table, "num_embeddings", None)
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or (size is not None and high >= size):
        raise InputError(
            f"inputs['input_ids'] holds the number {low if low < 0 else high}, the model's "
            f"vocabulary has {size}: the tokenizer belongs to another model. Load both from one "
            "checkpoint, as xai.load does."
        )
