"""The explorer of models that answer questions about image regions."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from xai_lib.errors import InputError, OptionError
from xai_lib.explainers import registry
from xai_lib.models.processors.question import QuestionProcessor
from xai_lib.plots.pairs import Drawn
from xai_lib.plots.regions import rgb
from xai_lib.plots.sheet import Band, Panel, image_panel, sheet_figure
from xai_lib.plots.text.html import text_html
from xai_lib.plots.text.rows import TextRow
from xai_lib.widgets.base import ClassExplorer
from xai_lib.widgets.pair_state import QuestionChoice, QuestionSession
from xai_lib.widgets.picture import png
from xai_lib.widgets.stream_controls import QuestionControls
from xai_lib.widgets.text_state import short

# Inches.
WIDTH, ALONE = 6.9, 3.4


class VQAExplorer(ClassExplorer):
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
        if not isinstance(processor, QuestionProcessor):
            raise InputError(
                f"processor is {type(processor).__name__}; expected a QuestionProcessor, as "
                "xai.load returns it for models of questions."
            )
        known = registry.find(method, options)
        if not isinstance(top, int) or isinstance(top, bool) or top < 1:
            raise OptionError(f"top is {top!r}; expected how many answers to show, 1 or more.")
        self.session, self.top = QuestionSession(model, processor, samples, options), top
        name, sample = next(iter(self.session.samples.items()))
        source = (name, sample.question)
        chosen = self.session.index(source, target)
        self.choice = QuestionChoice(*source, known.name, chosen)
        names = list(self.session.samples)
        self.controls = QuestionControls.made(names, sample.question, method)
        self._start()

    def panels(self) -> list[Panel]:
        """Return the picture of the regions; the image alone where a method refuses."""
        drawn = self._drawn()
        if drawn is None:
            return [image_panel("input", rgb(self.session.sample(self.choice.source).image))]
        mode, ranks = self.controls.mode.value, self.controls.ranks.value
        return drawn.panels(mode=mode, top=ranks)

    def rows(self) -> list[TextRow]:
        """Return the coloured question with the likeliest answers."""
        drawn = self._drawn()
        return [] if drawn is None else drawn.rows(self.controls.level.value, answers=self.top)

    def figure(self):
        """Return the matplotlib figure of what is shown."""
        title = f"{self.choice.sample}: {self.choice.method}"
        return sheet_figure([Band(self.panels(), self.rows(), height=2.6)], title, WIDTH)

    # -- one method per control -------------------------------------------------------------------

    def _on_sample(self, name: str) -> None:
        question = self.session.samples[name].question
        self._show(name, question)
        self.controls.question.value = question

    def _on_question(self, question: str) -> None:
        self._show(self.choice.sample, question)

    def _on_method(self, method: str) -> None:
        self.choice = replace(self.choice, method=method)

    def _on_level(self, level: str) -> None:
        """The question is drawn at another level; nothing is computed."""

    def _on_mode(self, mode: str) -> None:
        """Regions are drawn otherwise; nothing is computed."""

    def _on_ranks(self, ranks: int) -> None:
        """Other regions get a rank; nothing is computed."""

    # -- from a choice to the picture -------------------------------------------------------------

    def _show(self, sample: str, question: str) -> None:
        # Read before anything changes, so that a question which cannot be asked changes nothing.
        self.session.reading((sample, question))
        self.choice = replace(self.choice, sample=sample, question=question, target=None)
        self._offer_classes()

    def _draw(self) -> str:
        (panel,) = self.panels()
        width = ALONE * max(1.0, panel.aspect)
        picture = sheet_figure([Band([replace(panel, title="")], height=ALONE)], "", width)
        self.controls.picture.layout.max_width = f"{round(110 * width)}px"
        self.controls.picture.value = png(picture)
        rows = self.rows()
        self.controls.page.value = text_html(rows) if rows else ""
        return self._said()

    def _drawn(self) -> Drawn | None:
        att = self.session.view(self.choice).att
        if att is None:
            return None
        sample = self.session.sample(self.choice.source)
        return Drawn(att, self.session.processor, sample.image, sample.boxes[None])

    def _refusal(self) -> str:
        return self.session.view(self.choice).refusal

    def _subject(self) -> str:
        return short(self.choice.question)
