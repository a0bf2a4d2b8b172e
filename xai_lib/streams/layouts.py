"""Where the tokens of a batch lie: stream by stream, side by side, and what each finally gets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from xai_lib.errors import MethodNotApplicableError

FIRST_TOKEN = ("keep", "zero", "min")


@runtime_checkable
class Layout(Protocol):
    """Where the tokens of one stream lie: how many there are, and which of them hold content.

    kind: "patches", "words", "regions" or "tokens". stream: what a person calls a stream of this
    kind. present: bool (batch, tokens), False for padding, or None where there is none.
    leads: whether its first token is one that `first_token=` means, such as [CLS].
    """

    kind: ClassVar[str]
    stream: ClassVar[str]
    leads: ClassVar[bool]

    @property
    def tokens(self) -> int: ...

    @property
    def present(self) -> Bool[Tensor, "rows tokens"] | None: ...

    def content_of(
        self, batch: int, device: torch.device
    ) -> Bool[Tensor, "*targets_batch tokens"]: ...


@dataclass(frozen=True)
class PlainLayout:
    """Tokens of which nothing is known but their number, such as a decoder's queries.

    present: (batch, tokens), False for padding, or None where no padding is known.
    """

    tokens: int
    present: Bool[Tensor, "batch tokens"] | None = None

    kind: ClassVar[str] = "tokens"
    stream: ClassVar[str] = "tokens"
    leads: ClassVar[bool] = False

    def content_of(self, batch: int, device: torch.device) -> Bool[Tensor, "*targets_batch tokens"]:
        """Return bool (batch, tokens), True where no padding is known."""
        if self.present is not None:
            return self.present
        return torch.ones(batch, self.tokens, dtype=torch.bool, device=device)


@dataclass(frozen=True)
class StreamsLayout:
    """The streams of a model, one being the ordinary case.

    parts: (stream, where its tokens are, its layout), in their order. joint: whether the
    streams stand in one sequence, of which the head may read a token of any. read: the tokens that
    it reads, (batch, tokens), where that was found out.
    """

    tokens: int
    parts: tuple[tuple[str, slice, Layout], ...]
    joint: bool = False
    read: Bool[Tensor, "batch tokens"] | None = None

    present: ClassVar[None] = None

    @classmethod
    def side_by_side(cls, layouts: dict[str, Layout]) -> StreamsLayout:
        """Put streams one after the other."""
        parts, start = [], 0
        for name, layout in layouts.items():
            end = start + layout.tokens
            parts.append((name, slice(start, end), layout))
            start = end
        return cls(start, tuple(parts))

    def slices(self) -> dict[str, slice]:
        """Return where each stream's tokens are."""
        return {name: where for name, where, _ in self.parts}

    def layout(self, stream: str) -> Layout:
        """Return the layout of one stream."""
        return next(part for name, _, part in self.parts if name == stream)

    @property
    def only(self) -> Layout:
        """The layout of the only stream; MethodNotApplicableError where there are several."""
        if len(self.parts) != 1:
            raise MethodNotApplicableError(
                f"This attribution has the streams {', '.join(self.slices())}, each with tokens of "
                "its own: take att.part(name) of one of them."
            )
        return self.parts[0][2]

    def of_kind(self, kind: str) -> str | None:
        """Return the name of the first stream of a kind, None where there is none."""
        return next((name for name, _, layout in self.parts if layout.kind == kind), None)

    def content_of(self, batch: int, device: torch.device) -> Bool[Tensor, "*targets_batch tokens"]:
        """Return bool (batch, tokens): what holds content in each stream; False between streams.

        (targets, batch, tokens) where each target has texts of its own.
        """
        found = {name: part.content_of(batch, device) for name, _, part in self.parts}
        targets = max((len(part) // batch for part in found.values()), default=1)
        shape = (targets, batch) if targets > 1 else (batch,)
        content = torch.zeros(*shape, self.tokens, dtype=torch.bool, device=device)
        for name, where, _ in self.parts:
            rows = found[name].unflatten(0, (-1, batch))
            content[..., where] = rows if targets > 1 else rows[0]
        return content

    def reading(self, tokens: Bool[Tensor, "batch tokens"]) -> StreamsLayout:
        """Return this layout with what the head reads, bool (batch, tokens)."""
        return replace(self, read=tokens)

    def finished(
        self,
        relevance: Float[Tensor, "targets batch tokens"],
        first_token: str,
        *,
        padding: bool = False,
    ) -> Float[Tensor, "targets batch tokens"]:
        """Return relevance (targets, batch, tokens) with padding and first tokens as asked.

        Padding gets 0, unless padding=True keeps what the formula leaves there, as published.
        first_token: "keep", or what a stream's first token gets: "zero", or the row's "min". Of
        several streams each text has a first token of its own; regions have none. In one joint
        sequence it is the token that the head reads, the first one or not (VisualBERT's last but
        one).
        """
        relevance = relevance.detach().clone()
        for _, where, part in self.parts:
            present = part.present
            present = None if present is None else _by_target(present, relevance[..., where])
            if present is not None and not padding:
                # What a method leaves there is rounding, or a constant that belongs to no token.
                relevance[..., where] = relevance[..., where].masked_fill(~present, 0)
            if first_token != "keep" and part.leads and not self.joint:
                counted = None if padding else present
                row = _led(relevance[..., where], counted, present, first_token)
                relevance[..., where] = row
        if first_token == "keep" or not self.joint:
            return relevance
        assert self.read is not None, "nobody found out which token the head reads"
        return self._read_replaced(relevance, self.read, first_token)

    def _read_replaced(self, relevance: Tensor, read: Tensor, first_token: str) -> Tensor:
        """Replace what the one token gets that the head reads; where it reads several, none is."""
        one = read & (read.sum(-1, keepdim=True) == 1)
        tokens = relevance.clone()
        for _, where, part in self.parts:
            if part.present is not None:
                tokens[..., where] = tokens[..., where].masked_fill(~part.present, torch.inf)
        least = tokens.amin(-1, keepdim=True)
        return torch.where(one, least if first_token == "min" else 0.0, relevance)


def _led(row: Tensor, counted: Tensor | None, present: Tensor | None, first_token: str) -> Tensor:
    """Return rows (targets, batch, tokens) whose first token gets 0 or the least of `counted`."""
    if present is None:
        first = torch.zeros(row.shape[:2], dtype=torch.long, device=row.device)
    else:
        first = present.long().argmax(-1)
    # Padding is not a row's least, or a text would depend on the others of its batch.
    tokens = row if counted is None else row.masked_fill(~counted, torch.inf)
    replaced = torch.zeros_like(first, dtype=row.dtype)
    if first_token == "min":
        replaced = tokens.amin(-1)
    return row.scatter(-1, first.unsqueeze(-1), replaced.unsqueeze(-1))


def _by_target(present: Tensor, relevance: Tensor) -> Tensor:
    """Return `present` as (targets, batch, tokens); each target may have texts of its own."""
    targets, batch, tokens = relevance.shape
    rows = present if len(present) == targets * batch else present.repeat(targets, 1)
    return rows.view(targets, batch, tokens)
