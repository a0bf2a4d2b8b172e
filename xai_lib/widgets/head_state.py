"""What the explorer of heads shows and remembers: scores, and a model with some heads pruned."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from xai_lib.api import explain
from xai_lib.attribution import Attribution
from xai_lib.datasets.base import QuestionSample
from xai_lib.errors import InputError, XAIError
from xai_lib.heads import HeadScores, head_scores, prune_heads
from xai_lib.models import Processor, TextProcessor
from xai_lib.models.processors.question import QuestionProcessor
from xai_lib.tracing import HeadMask
from xai_lib.widgets.gallery import named_images
from xai_lib.widgets.pair_state import PairView, StreamSession, logits_of, named_samples
from xai_lib.widgets.session import kept
from xai_lib.widgets.text_state import named_texts

# A head: the number of its attention call, and its own.
Head = tuple[int, int]


@dataclass(frozen=True)
class HeadChoice:
    """What is shown: `sample` explained by `method`, with the heads `pruned`.

    target None: the class that the whole model predicts. score, order, fraction: what the heads
    were ranked by and how many were pruned; fraction None: heads were chosen by hand.
    """

    sample: str
    method: str
    score: str
    order: str = "negative"
    fraction: float | None = 0.0
    target: int | None = None
    pruned: frozenset[Head] = frozenset()
    start: None = None
    layer: None = None
    head: None = None

    @property
    def source(self) -> str:
        """What is explained."""
        return self.sample


@dataclass(frozen=True)
class PrunedView(PairView):
    """An explanation of the pruned model, and its logits (classes,)."""

    logits: Tensor | None = None


class HeadSession(StreamSession):
    """A model of images, texts or questions, and the samples by name; `kind` says which."""

    def __init__(self, model: nn.Module, processor, samples, options: dict | None = None):
        """Name the samples. Raises InputError for another processor, or where there is none."""
        super().__init__(model, processor, options)
        readers = {
            Processor: ("image", named_images),
            TextProcessor: ("text", named_texts),
            QuestionProcessor: ("question", named_samples),
        }
        found = next((v for k, v in readers.items() if isinstance(processor, k)), None)
        if found is None:
            raise InputError(
                f"processor is {type(processor).__name__}; expected one of xai.load for images "
                "(Processor), texts (TextProcessor) or questions (QuestionProcessor)."
            )
        self.kind, read = found
        if self.kind == "question" and isinstance(samples, QuestionSample):
            samples = [samples]
        self.samples = read(samples)
        self._scores: OrderedDict = OrderedDict()

    def inputs(self, source: str):
        """Return a sample as the model takes it."""
        sample = self.samples[source]
        return self.processor.of(sample) if self.kind == "question" else self.processor(sample)

    def on_device(self, inputs):
        """Return inputs where the model is; pixels in its precision."""
        like = next(self.model.parameters(), None)
        if like is None or self.kind != "image":
            return super().on_device(inputs)
        return {k: v.to(like.device, like.dtype) for k, v in inputs.items()}

    def scores(self, choice: HeadChoice) -> HeadScores:
        """Return the scores of all heads, for the class that is shown."""
        target = self.target(choice)

        def make() -> HeadScores:
            inputs = self.on_device(self.inputs(choice.sample))
            return head_scores(self.model, inputs, choice.score, target)

        return kept(self._scores, (choice.sample, choice.score, target), make)

    def heads(self, choice: HeadChoice) -> frozenset[Head]:
        """Return every head that can be pruned."""
        sites = self.scores(choice).sites
        return frozenset((s.call, h) for s in sites if s.reached for h in range(s.heads))

    def by_fraction(self, choice: HeadChoice, fraction: float) -> frozenset[Head]:
        """Return the heads that `HeadScores.mask` prunes of this sample."""
        mask = self.scores(choice).mask(fraction, choice.order, per_sample=True)
        gone = {call: (row[0] == 0).nonzero()[:, 0] for call, row in mask.keep.items()}
        return frozenset((call, head) for call, row in gone.items() for head in row.tolist())

    def mask(self, choice: HeadChoice) -> HeadMask:
        """Return the mask that prunes the heads of a choice."""
        rows = {s.call: torch.ones(s.heads) for s in self.scores(choice).sites}
        for call, head in choice.pruned:
            rows[call][head] = 0
        return HeadMask(rows)

    def explained(self, choice: HeadChoice) -> PrunedView:
        """Return what the model says without the pruned heads, and the explanation of that."""
        inputs = self.on_device(self.inputs(choice.sample))
        options, note = self.method_options(choice), self.about(choice)
        with prune_heads(self.model, self.mask(choice)):
            try:
                att = explain(self.model, inputs, choice.method, self.target(choice), **options)
            except XAIError as error:
                logits = logits_of(self.model, inputs)[0]
                return PrunedView(choice.method, note, None, str(error), logits)
        return PrunedView(choice.method, note, att, "", att.logits[0].float())

    def whole(self, choice: HeadChoice) -> PrunedView:
        """Return the same of the whole model."""
        return self.view(replace(choice, pruned=frozenset()))

    def _key(self, choice) -> tuple:
        return *super()._key(choice), choice.pruned


def toggled(heads: Iterable[Head], head: Head) -> frozenset[Head]:
    """Return the heads with one more, or without it where it was among them."""
    return frozenset(heads) ^ {head}


def picture_of(session: HeadSession, choice: HeadChoice, att: Attribution):
    """Return the panels and the text rows of an explanation of whatever kind."""
    from xai_lib.plots import attribution_texts, displayable
    from xai_lib.plots.pairs import Drawn
    from xai_lib.plots.sheet import heat_panel

    if session.kind == "text":
        return [], attribution_texts(att)
    if session.kind == "image":
        image = displayable(att.inputs[0].float(), session.processor)
        heat = att.pixels if att.layout.grid is None else att.heatmap()
        return [heat_panel("", image, heat[0].float().cpu())], []
    sample = session.samples[choice.sample]
    drawn = Drawn(att, session.processor, sample.image, sample.boxes[None])
    return drawn.panels(), drawn.rows(answers=0)
