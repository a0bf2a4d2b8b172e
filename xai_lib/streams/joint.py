"""A text and an image in one sequence (VisualBERT, ViLT), looked at as one text would be."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Shaped
from torch import Tensor

from xai_lib.streams.layouts import StreamsLayout
from xai_lib.streams.prepare import Inputs
from xai_lib.streams.stream import Stream
from xai_lib.streams.texts import Words
from xai_lib.tracing import Trace


@dataclass
class Joint(Words):
    """The one sequence of `parts`, whose features are its embeddings; `data` are those of the text.

    whole: where the tokens of each part lie in it.
    """

    whole: StreamsLayout = field(kw_only=True)
    parts: tuple[Stream, ...] = field(kw_only=True)

    @property
    def length(self) -> int:
        return self.whole.tokens

    def samples(self) -> list[Shaped[Tensor, "..."]]:
        own = zip(*(stream.samples() for stream in self.parts), strict=True)
        return [torch.cat([part.flatten().double() for part in parts]) for parts in own]

    def layout(self, trace: Trace | None = None) -> StreamsLayout:
        return self.whole


def joined(inputs: Inputs, whole: StreamsLayout) -> Inputs:
    """Return a view of the one sequence that all streams are put into."""
    ids = inputs.named("text").data
    batch, device = len(ids), ids.device
    present = torch.ones(batch, whole.tokens, dtype=torch.bool, device=device)
    special = torch.zeros_like(present)
    for _, where, layout in whole.parts:
        if layout.present is not None:
            present[:, where] = layout.present
        special[:, where] = ~layout.content_of(batch, device) & present[:, where]
    focus = Joint(
        "joint",
        "input_ids",
        ids,
        present=present,
        special=special,
        whole=whole,
        parts=inputs.streams,
    )
    return replace(inputs, focus=focus, known=whole)
