"""The explorer of a text model's explanations."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from xai_lib.errors import InputError, OptionError, unknown_name
from xai_lib.explainers import registry
from xai_lib.models import TextProcessor
from xai_lib.plots.text.figure import text_figure
from xai_lib.plots.text.html import text_html
from xai_lib.plots.text.rows import LEVELS
from xai_lib.widgets.base import Explorer
from xai_lib.widgets.controls import TextControls
from xai_lib.widgets.session import LAYER_OPTIONS
from xai_lib.widgets.text_state import TextChoice, TextSession, named_texts, short

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
        if not isinstance(processor, TextProcessor):
            raise InputError(
                f"processor is {type(processor).__name__}; expected a TextProcessor, as xai.load "
                "returns it or TextProcessor(tokenizer) makes it. Models of images have "
                "xai.widgets.ImageExplorer."
            )
        known = registry.find(method, options)
        start = next((options.pop(name) for name in LAYER_OPTIONS if name in options), None)
        if not isinstance(top, int) or top < 1:
            raise OptionError(f"top is {top!r}; expected how many classes to show, 1 or more.")
        if level not in LEVELS:
            raise unknown_name("level", level, LEVELS)
        self.session = TextSession(model, processor, options)
        self.texts, self.top = named_texts(texts), top
        for text in self.texts.values():
            self.session.inputs(text)
        first = next(iter(self.texts.values()))
        self.choice = TextChoice(first, known.name, self.session.index(first, target), start)
        self.second, self.other = "", None
        self.controls = TextControls.made(self.texts, method)
        self.controls.level.value = level
        self._start()

    def panes(self) -> list[TextChoice]:
        """Return what each pane shows: a row of panes a method, the texts side by side."""
        first = self.choice
        second = replace(first, method=self.other or "", start=None, layer=None, head=None)
        choices = [first, second] if self.other else [first]
        texts = [first.text, self.second] if self.second else [first.text]
        return [replace(choice, text=text) for choice in choices for text in texts]

    def rows(self) -> list:
        """Return the `TextRow` of each pane."""
        level, reduce = self.controls.level.value, self.controls.reduce.value
        return [self.session.row(choice, level, reduce, self.top) for choice in self.panes()]

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

    def _on_reduce(self, reduce: str) -> None:
        """Words are drawn with another reduction; nothing is computed again."""

    def _show_text(self, text: str) -> None:
        # Read before anything changes, so that a text which cannot be explained changes nothing.
        self.session.reading(text)
        self.choice = replace(self.choice, text=text, target=None)
        self._offer_layers()
        self._offer_classes()

    # -- from a choice to the page ----------------------------------------------------------------

    def _draw(self) -> str:
        self.controls.page.value = text_html(self.rows(), columns=self._columns())
        return self._said()

    def _columns(self) -> int:
        return min(len(self.panes()), 2)

    def _refusal(self) -> str:
        refusals = (self.session.view(choice).refusal for choice in self.panes())
        return next(filter(None, refusals), "")

    def _subject(self) -> str:
        return short(self.choice.text)
