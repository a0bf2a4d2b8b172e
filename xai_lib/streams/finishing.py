"""The last touch on relevance: what padding gets, and what the first token gets."""

from __future__ import annotations

import torch
from torch import Tensor

from xai_lib.streams.layouts import StreamsLayout
from xai_lib.streams.patches import Layout, TokenLayout


def finished(relevance: Tensor, layout: Layout, reference: bool, first_token: str) -> Tensor:
    """Return relevance (targets, batch, tokens) with the padding and the first token as asked.

    Of several streams each text has a first token of its own; regions have none. In one joint
    sequence it is the token that the head reads, the first one or not (VisualBERT's last but one).
    """
    if isinstance(layout, StreamsLayout):
        relevance = relevance.detach().clone()
        for name, where in layout.slices().items():
            part = layout.layout(name)
            text = hasattr(part, "special") or isinstance(part, TokenLayout)
            kept = first_token if text and layout.read is None else "keep"
            relevance[..., where] = finished(relevance[..., where], part, reference, kept)
        return relevance if layout.read is None else _read(relevance, layout, first_token)
    present = getattr(layout, "present", None)
    absent = None
    if present is not None and not reference:
        # What a method leaves there is rounding, or a constant that belongs to no token.
        absent = ~_by_target(present, relevance)
        relevance = relevance.masked_fill(absent, 0)
    if first_token == "keep":
        return relevance
    relevance = relevance.detach().clone()
    if present is None:
        first = torch.zeros(relevance.shape[:2], dtype=torch.long, device=relevance.device)
    else:
        first = _by_target(present, relevance).long().argmax(-1)
    # Nor is padding a row's least, or a text would depend on the others of its batch.
    tokens = relevance if absent is None else relevance.masked_fill(absent, torch.inf)
    replaced = torch.zeros_like(first, dtype=relevance.dtype)
    if first_token == "min":
        replaced = tokens.amin(-1)
    return relevance.scatter_(-1, first.unsqueeze(-1), replaced.unsqueeze(-1))


def _read(relevance: Tensor, layout: StreamsLayout, first_token: str) -> Tensor:
    """Replace what the one token gets that the head reads; where it reads several, none is."""
    one = layout.read & (layout.read.sum(-1, keepdim=True) == 1)
    tokens = relevance
    for name, where in layout.slices().items():
        present = getattr(layout.layout(name), "present", None)
        if present is not None:
            tokens = tokens.clone()
            tokens[..., where] = tokens[..., where].masked_fill(~present, torch.inf)
    least = tokens.amin(-1, keepdim=True)
    return torch.where(one, least if first_token == "min" else 0.0, relevance)


def _by_target(present: Tensor, relevance: Tensor) -> Tensor:
    """Return `present` as (targets, batch, tokens); each target may have texts of its own."""
    targets, batch, tokens = relevance.shape
    rows = present if len(present) == targets * batch else present.repeat(targets, 1)
    return rows.view(targets, batch, tokens)
