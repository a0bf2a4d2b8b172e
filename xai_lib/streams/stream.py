"""What a stream is: one of a model's inputs that tokens are made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

from jaxtyping import Bool, Int, Shaped
from torch import Tensor, nn

from xai_lib.streams.layouts import Layout
from xai_lib.tracing import Trace

Some = TypeVar("Some", bound="Stream")
# Rows and columns of patches, or the height and width of one in pixels; None where unknown.
Grid = tuple[int, int] | None


@dataclass
class Stream(ABC):
    """One of a model's inputs, `data` (batch, ...), by the name `keyword` that the model gives it.

    name: "image", "text" or "decoder". kind: as of its `Layout`. embeds: whether the features are
    the embeddings that the model makes of it, which the trace sees being made, instead of `data`
    itself. channel: the dimension of the features over which a method sums to get one number a
    pixel or token. advice: how to make inputs that the model takes. present: bool (batch, tokens),
    False for padding, None where there is none.
    """

    name: str
    keyword: str | None
    data: Shaped[Tensor, "batch ..."]

    kind: ClassVar[str]
    channel: ClassVar[int] = -1
    embeds: ClassVar[bool] = False
    advice: ClassVar[str] = "The processor of xai.load makes inputs that fit."
    present: ClassVar[Bool[Tensor, "batch tokens"] | None] = None

    @property
    def length(self) -> int:
        """The length of the sequence that the stream, or its embeddings, are."""
        return self.data.shape[1]

    def take(self: Some, rows: Int[Tensor, " rows"]) -> Some:
        """Return the samples `rows`, with repetition."""
        return replace(self, data=self.data[rows])

    def advise(self, model: nn.Module) -> str:
        """Return what to do where the model has refused the data."""
        return self.advice

    @abstractmethod
    def samples(self) -> list[Shaped[Tensor, "..."]]:
        """Return the input of each sample alone, without padding."""

    @abstractmethod
    def layout(self, trace: Trace) -> Layout:
        """Return where the tokens lie, once a pass over this stream has shown it."""

    @abstractmethod
    def layout_among(self, tokens: int, grid: Grid, patch: Grid) -> Layout:
        """Return where `tokens` tokens lie that a pass of several streams has shown.

        grid, patch: rows and columns of the pass's patches, and their size in pixels.
        """
