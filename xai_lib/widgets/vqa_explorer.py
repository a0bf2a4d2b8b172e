"""The explorer of models that answer questions about image regions."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from xai_lib.explainers import registry
from xai_lib.plots.pairs import Drawn
from xai_lib.plots.regions import rgb
from xai_lib.plots.sheet import Band, Panel, image_panel, sheet_figure
from xai_lib.plots.text.rows import TextRow
from xai_lib.widgets.base import Sheets
from xai_lib.widgets.choice import Asked, Choice
from xai_lib.widgets.class_explorer import ClassExplorer, checked_top
from xai_lib.widgets.controls import question_controls
from xai_lib.widgets.named import short
from xai_lib.widgets.session import Session
from xai_lib.widgets.sources import Questions

# Inches: the picture above the coloured question.
ALONE = 3.4


class VQAExplorer(Sheets, ClassExplorer):
    """Ask about an image, choose an answer, and see the regions and words that speak for it.

    model, processor: as `xai.load` returns them for LXMERT and VisualBERT. samples: a
    `QuestionSample`, a list, a {name: sample} or what `sample_questions` returns; questions can be
    edited. method: shown first; **options: passed to every method that knows them. target: the
    answer shown first, by name or number, or None for the predicted one. top: how many answers the
    bars show. `explorer.choice` says what is shown, `explorer.figure()` draws it.
    Raises InputError, OptionError, TargetError; a question that is too long and a method that does
    not apply are told inside the explorer.
    """

    def __init__(
        self,
        model: nn.Module,
        processor,
        samples,
        method: str = "generic_attention",
        target: int | str | None = None,
        *,
        top: int = 5,
        **options,
    ):
        """Explain the first question and make the controls."""
        Questions.check(processor)
        known = registry.find(method, options)
        self.top = checked_top(top, "answers")
        self.session = Session(model, Questions(processor, samples), options)
        named = self.session.sources.named
        first = next(iter(named.values()))
        self.choice = Choice(first, known.name, self.session.index(first, target))
        self.controls = question_controls(list(named), first.question, method)
        self._start()

    def panels(self) -> list[Panel]:
        """Return the picture of the regions; the image alone where a method refuses."""
        drawn = self._drawn()
        if drawn is None:
            return [image_panel("input", rgb(self._sample().image))]
        mode, ranks = self.controls.mode.value, self.controls.ranks.value
        return drawn.panels(mode=mode, top=ranks)

    def rows(self) -> list[TextRow]:
        """Return the coloured question with the likeliest answers."""
        drawn = self._drawn()
        return [] if drawn is None else drawn.rows(self.controls.level.value, answers=self.top)

    def figure(self):
        """Return the matplotlib figure of what is shown."""
        title = f"{self.choice.source.sample}: {self.choice.method}"
        return sheet_figure([Band(self.panels(), self.rows(), height=2.6)], title, self.width)

    # -- one method per control -------------------------------------------------------------------

    def _on_sample(self, name: str) -> None:
        source = self.session.sources.named[name]
        self._ask(source)
        self.controls.question.value = source.question

    def _on_question(self, question: str) -> None:
        self._ask(self.choice.source._replace(question=question))

    # -- from a choice to the picture -------------------------------------------------------------

    def _ask(self, source: Asked) -> None:
        # Read before anything changes, so that a question which cannot be asked changes nothing.
        self.session.reading(source)
        self._choose(source=source, target=None)
        self._offer_classes()

    def _picture(self):
        (panel,) = self.panels()
        width = ALONE * max(1.0, panel.aspect)
        self.controls.picture.layout.max_width = f"{round(110 * width)}px"
        return sheet_figure([Band([replace(panel, title="")], height=ALONE)], "", width)

    def _drawn(self) -> Drawn | None:
        att, sample = self.session.view(self.choice).att, self._sample()
        if att is None:
            return None
        return Drawn(att, self.session.processor, sample.image, sample.boxes[None])

    def _sample(self):
        return self.session.sources.sample(self.choice.source)

    def _subject(self) -> str:
        return short(self.choice.source.question)
