"""Texts as a person reads them: tokens and words with their place in the text, and their scores."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from xai_lib.errors import InputError, unknown_name

# How the scores of a word's pieces become the word's; the papers take the maximum.
REDUCTIONS = {
    "max": lambda scores: scores.amax(-1),
    "sum": lambda scores: scores.sum(-1),
    "mean": lambda scores: scores.mean(-1),
}

_WORD = re.compile(r"\S+")

Span = tuple[int, int]


@dataclass(frozen=True)
class TextScores:
    """Units of one sample (tokens or words), where they lie in its text, and a score for each.

    texts: the sample's one or two texts. labels: what to call each unit. spans: its characters,
    start and end (exclusive), in texts[segment]; (0, 0) for special tokens. segments: 0 or 1.
    scores: (units,), or (targets, units) after `targets=[...]`.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    spans: tuple[Span, ...]
    segments: tuple[int, ...]
    scores: Tensor = field(repr=False)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class TextLayout:
    """Which characters each token of a batch stands for.

    ids, present: (batch, tokens); present is False for padding. special: True for tokens that the
    tokenizer adds, (batch, tokens). pieces, offsets, segments: per sample, of every token that is
    no padding; None where the inputs came without a fast tokenizer's encodings. texts: per sample
    its one or two texts, None where only their ids are known.
    """

    ids: Tensor
    present: Tensor
    special: Tensor
    pieces: tuple[tuple[str, ...], ...] | None = None
    offsets: tuple[tuple[Span, ...], ...] | None = None
    segments: tuple[tuple[int, ...], ...] | None = None
    texts: tuple[tuple[str, ...], ...] | None = None

    @classmethod
    def of(cls, ids, present, special, encodings, texts) -> TextLayout:
        """Read the layout from a batch's ids, masks and encodings (of the `tokenizers` library).

        Without encodings nobody knows which tokens are special: then none is.
        """
        special = torch.zeros_like(present) if special is None else special & present
        if encodings is None:
            return cls(ids, present, special, texts=texts)

        kept = [row.nonzero()[:, 0].tolist() for row in present.cpu()]

        def of_tokens(attribute: str):
            rows = [getattr(e, attribute) for e in encodings]
            return tuple(
                tuple(row[p] for p in places) for row, places in zip(rows, kept, strict=True)
            )

        segments = tuple(tuple(s or 0 for s in row) for row in of_tokens("sequence_ids"))
        pieces, offsets = of_tokens("tokens"), of_tokens("offsets")
        return cls(ids, present, special, pieces, offsets, segments, texts)

    @property
    def tokens(self) -> int:
        return self.ids.shape[1]

    @property
    def content(self) -> Tensor:
        """Bool (batch, tokens): True for tokens of the text, False for special ones and padding."""
        return self.present & ~self.special

    def content_of(self, batch: int, device) -> Tensor:
        """Return `content`; the same question as to an image's layout."""
        return self.content

    def token_scores(self, relevance: Tensor, specials: bool = False) -> list[TextScores]:
        """Return each sample's tokens, in order, with their part of `relevance` (..., tokens)."""
        self._require_texts()
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

    def word_scores(self, relevance: Tensor, reduce: str = "max") -> list[TextScores]:
        """Return each sample's words: what stands between white space, with its pieces' score.

        A piece belongs to the words whose characters it shares; [UNK] too, since only its offsets
        count. Words without any piece (cut off by truncation, or of characters that the tokenizer
        drops) are left out.
        """
        if reduce not in REDUCTIONS:
            raise unknown_name("reduce", reduce, REDUCTIONS)
        found = []
        for tokens in self.token_scores(relevance):
            words, members = _words(tokens)
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

    def _require_texts(self) -> None:
        if self.texts is None or self.offsets is None:
            raise InputError(
                "The inputs came without their text or its offsets, or were changed after they "
                "were tokenized, so there are no words: make them with the processor of xai.load, "
                "or with xai_lib.models.TextProcessor(tokenizer) of a fast tokenizer."
            )


def words_of(text: str) -> list[Span]:
    """Return the spans of the words of a text, as `str.split` finds them."""
    return [match.span() for match in _WORD.finditer(text)]


def _words(tokens: TextScores) -> tuple[list[tuple[int, int, int]], list[list[int]]]:
    """Return (segment, start, end) of the words that have tokens, and the places of these."""
    words = [
        (segment, start, end)
        for segment, text in enumerate(tokens.texts)
        for start, end in words_of(text)
    ]
    members: list[list[int]] = [[] for _ in words]
    by_segment: dict[int, list[int]] = {}
    for number, (segment, _, _) in enumerate(words):
        by_segment.setdefault(segment, []).append(number)
    for place, (segment, (start, end)) in enumerate(
        zip(tokens.segments, tokens.spans, strict=True)
    ):
        for number in _overlapping(words, by_segment.get(segment, []), start, end):
            members[number].append(place)
    kept = [number for number, places in enumerate(members) if places]
    return [words[n] for n in kept], [members[n] for n in kept]


def _overlapping(words, numbers: Sequence[int], start: int, end: int) -> list[int]:
    from bisect import bisect_right

    first = bisect_right(numbers, start, key=lambda n: words[n][2])
    found = []
    for number in numbers[first:]:
        if words[number][1] >= end:
            break
        found.append(number)
    return found
