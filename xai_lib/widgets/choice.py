"""What is chosen in an explorer, and what is shown of it. No widgets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from xai_lib.attribution import Attribution
from xai_lib.explainers.signs import Sign
from xai_lib.streams.words import TextScores

# A head: the number of its attention call, and its own.
Head = tuple[int, int]


# Tuples, since a session remembers by them.
class Scored(NamedTuple):
    """An image by its name, and all texts that are scored with it."""

    image: str
    texts: tuple[str, ...]


class Asked(NamedTuple):
    """A question about the image of a sample, which goes by its name."""

    sample: str
    question: str


# An image's name, a text, `Scored` or `Asked`; an explorer has sources of one kind only.
Source: TypeAlias = Any


@dataclass(frozen=True)
class Choice:
    """What is chosen: a source explained by a method.

    source: an image's name, a text, an image with texts or with a question. target: a class; None
    for the predicted one. start: of the method's layer option. layer None: the method's own map;
    else the raw attention of that layer, of one head or, with head None, averaged over heads.
    against: a class that the target is compared with. pruned: heads that the model does without.
    score, order, fraction: what these were ranked by and how many are pruned; fraction None: they
    were chosen by hand.
    """

    source: Source
    method: str
    target: int | None = None
    start: int | None = None
    layer: int | None = None
    head: int | None = None
    against: int | None = None
    pruned: frozenset[Head] = frozenset()
    score: str = "grad_x_attention"
    order: str = "negative"
    fraction: float | None = 0.0

    @property
    def attention(self) -> tuple[str, str]:
        """Title and note of a look at raw attention."""
        note = "mean over heads" if self.head is None else f"head {self.head}"
        return f"attention of layer {self.layer}", note


@dataclass(frozen=True)
class View:
    """One explanation, or the sentence that says why there is none.

    sign: what a score's sign means. quantity: what is shown, for the scale of colours. logits:
    (classes,) of the pass, which was of the pruned model where heads are pruned.
    """

    title: str
    note: str
    sign: Sign
    att: Attribution | None = None
    refusal: str = ""
    quantity: str = "relevance"
    logits: Tensor | None = None

    @property
    def heat(self) -> Tensor | None:
        """The map (H, W) over an image."""
        return None if self.att is None else heat_of(self.att)

    def scores(self, text: str, level: str, reduce: str) -> TextScores:
        """Return the scores of words or tokens; the refusal, without any, where there is none."""
        if self.att is None:
            return TextScores((self.refusal or text,), (), (), (), torch.zeros(0))
        layout, relevance = self.att.layout, self.att.relevance.float().cpu()
        if level == "word":
            return layout.word_scores(relevance, reduce)[0]
        return layout.token_scores(relevance, specials=True)[0]


def heat_of(att: Attribution) -> Tensor:
    """Return the map (H, W) of an explained image; of pixels where there is no grid of patches."""
    heat = att.pixels if att.layout.grid is None else att.heatmap()
    return heat[0].float().cpu()


def drawable(att: Attribution) -> bool:
    """Return whether any of the streams can be drawn: patches without a grid cannot."""
    layouts = [layout for *_, layout in att.layouts.parts]
    known = any(layout.kind != "patches" or layout.grid is not None for layout in layouts)
    return known or att.pixels is not None
