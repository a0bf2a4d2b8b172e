"""The explorer of a text model's explanations."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from xai_lib.errors import unknown_name
from xai_lib.explainers import registry
from xai_lib.plots.text.figure import text_figure
from xai_lib.plots.text.html import text_html
from xai_lib.plots.text.rows import LEVELS, TextRow
from xai_lib.widgets.choice import Choice
from xai_lib.widgets.class_explorer import Explorer, checked_top, taken_start
from xai_lib.widgets.controls import text_controls
from xai_lib.widgets.named import short
from xai_lib.widgets.session import Session
from xai_lib.widgets.sources import Texts

EXAMPLE = "This film is not bad at all, but the plot could have been better."


class TextExplorer(Explorer):
    """Type a text, choose a class, a method, a layer or a head, and see what the words count.

    model, processor: as `xai.load` returns them. texts: {name: text}, a list of texts or one text
    to begin with; others are typed. method: shown first; **options: passed to every method that
    knows them. target: class number or name shown first, or None for the predicted class.
    level: "word" or "token". top: how many classes the bars show. A second text or a second method
    stands beside the first; with both there are four panes. Where no widget manager runs, its
    picture is displayed instead. `explorer.choice` says what the first pane shows,
    `explorer.rows()` is what all show, `explorer.figure()` draws it.
    Raises InputError, OptionError, TargetError and UnsupportedModelError for what it is given;
    a text that is too long or empty and a method that does not apply are told inside the explorer.
    """

    def __init__(
        self,
        model: nn.Module,
        processor,
        texts=EXAMPLE,
        method: str = "transformer_attribution",
        target: int | str | None = None,
        *,
        level: str = "word",
        top: int = 5,
        **options,
    ):
        """Explain the first text and make the controls."""
        Texts.check(processor)
        known = registry.find(method, options)
        start = taken_start(options)
        self.top = checked_top(top)
        if level not in LEVELS:
            raise unknown_name("level", level, LEVELS)
        self.session = Session(model, Texts(processor, texts), options)
        self.texts = self.session.sources.named
        for text in self.texts.values():
            self.session.inputs(text)
        first = next(iter(self.texts.values()))
        self.choice = Choice(first, known.name, self.session.index(first, target), start)
        self.second, self.other = "", None
        self.controls = text_controls(self.texts, method)
        self.controls.level.value = level
        self._start()

    def panes(self) -> list[Choice]:
        """Return what each pane shows: a row of panes a method, the texts side by side."""
        first = self.choice
        second = replace(first, method=self.other or "", start=None, layer=None, head=None)
        choices = [first, second] if self.other else [first]
        texts = [first.source, self.second] if self.second else [first.source]
        return [replace(choice, source=text) for choice in choices for text in texts]

    def rows(self) -> list[TextRow]:
        """Return the `TextRow` of each pane."""
        level, reduce = self.controls.level.value, self.controls.reduce.value
        return [text_row(self.session, choice, level, reduce, self.top) for choice in self.panes()]

    def figure(self):
        """Return the matplotlib figure of what is shown."""
        return text_figure(self.rows(), columns=self._columns())

    # -- one method per control -------------------------------------------------------------------

    def _on_example(self, text: str | None) -> None:
        if text is not None:
            self._show_text(text)
            self.controls.text.value = text

    def _on_text(self, text: str) -> None:
        self._show_text(text)
        known = text in self.texts.values()
        self.controls.example.value = text if known else None

    def _on_second(self, text: str) -> None:
        if text.strip():
            self.session.reading(text)
        self.second = text if text.strip() else ""

    def _on_other(self, method: str | None) -> None:
        self.other = method

    def _on_level(self, level: str) -> None:
        self.controls.reduce.disabled = level != "word"

    def _show_text(self, text: str) -> None:
        # Read before anything changes, so that a text which cannot be explained changes nothing.
        self.session.reading(text)
        self._choose(source=text, target=None)
        self._offer_layers()
        self._offer_classes()

    # -- from a choice to the page ----------------------------------------------------------------

    def _draw(self) -> None:
        self.controls.page.value = text_html(self.rows(), columns=self._columns())

    def _columns(self) -> int:
        return min(len(self.panes()), 2)

    def _shown(self) -> list[Choice]:
        return self.panes()

    def _subject(self) -> str:
        return short(self.choice.source)


def text_row(session: Session, choice: Choice, level: str, reduce: str, top: int) -> TextRow:
    """Return what a pane shows: coloured text, class, and the likeliest classes' bars."""
    source, view, target = choice.source, session.view(choice), session.target(choice)
    reading = session.reading(source)
    raw = choice.layer is not None
    detail = view.note if raw else session.options_said(choice)
    bars = session.likeliest(choice, top)
    return TextRow(
        view.scores(source, level, reduce),
        title=f"{view.title} ({detail})" if detail else view.title,
        target=session.class_name(source, target),
        probability=reading.scale.probability(reading.logits, target),
        value=reading.scale.value(reading.logits, target),
        note=view.sign.note if view.att is not None else "",
        signed=not view.sign.non_negative,
        chances=session.bars(source, bars),
        class_specific=not raw and registry.all_methods()[choice.method].class_specific,
    )
