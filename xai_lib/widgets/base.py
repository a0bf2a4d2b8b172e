"""What every explorer does: controls bound to choices, errors told, a static picture beside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from base64 import b64encode
from contextlib import contextmanager
from dataclasses import fields, replace
from html import escape

from xai_lib.errors import XAIError
from xai_lib.plots.sheet import Band, Panel, sheet_figure
from xai_lib.plots.text.html import text_html
from xai_lib.plots.text.rows import TextRow
from xai_lib.widgets.choice import Choice
from xai_lib.widgets.controls import Controls
from xai_lib.widgets.picture import png
from xai_lib.widgets.session import Session

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
CHOSEN = {field.name for field in fields(Choice)}


class Live(ABC):
    """Controls that change what is shown of a model.

    A subclass has `session`, `choice` and `controls` before it calls `_start`. A control changes
    what it is called in the choice; a method `_on_<control>` does so where there is more to it.
    """

    session: Session
    choice: Choice
    controls: Controls

    def _start(self) -> None:
        """Fill and connect the controls, and draw."""
        self._quiet = False
        with self._silently():
            self._fill()
        for name, control in self.controls.inputs.items():
            control.observe(self._guarded(name), names="value")
        self.box = self.controls.box
        self._redraw()

    @abstractmethod
    def _fill(self) -> None:
        """Fill the controls with what can be chosen at first."""

    @abstractmethod
    def figure(self):
        """Return the matplotlib figure of what is shown."""

    @abstractmethod
    def _draw(self) -> None:
        """Show the choice."""

    @abstractmethod
    def _said(self) -> str:
        """Return one line on what is shown."""

    def _shown(self) -> list[Choice]:
        """Return everything that is shown, first the choice."""
        return [self.choice]

    def _repr_mimebundle_(self, include=None, exclude=None):
        # A plain object with its own bundle, not a widget: ipywidgets 7 would display itself past
        # this method, and neither version adds a picture.
        model_id, figure = self.box.model_id, self.figure()
        data = {
            "text/plain": f"{type(self).__name__}: {self._said()}",
            "image/png": b64encode(png(figure)).decode(),
            WIDGET_VIEW: {"version_major": 2, "version_minor": 0, "model_id": model_id},
        }
        width, height = figure.get_size_inches()
        return data, {"image/png": {"width": round(width * 100), "height": round(height * 100)}}

    # -- from a change to the picture -------------------------------------------------------------

    @contextmanager
    def _silently(self):
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def _guarded(self, name: str):
        """Return the observer of a control.

        The kernel has nowhere to show what a callback raises, so it is told in the explorer; a bad
        upload or choice leaves everything else as it was.
        """

        def observe(change) -> None:
            if self._quiet:
                return
            self.controls.message.value = told("Explaining …")
            try:
                with self._silently():
                    self._change(name, change["new"])
                self._redraw()
            except XAIError as error:
                self.controls.message.value = told(str(error), alarm=True)
            except Exception as error:
                self.controls.message.value = told(f"{type(error).__name__}: {error}", alarm=True)
                raise

        return observe

    def _change(self, control: str, value) -> None:
        """Do what a control does; one that changes no choice only lets all be drawn again."""
        handler = getattr(self, f"_on_{control}", None)
        if handler is not None:
            handler(value)
        elif control in CHOSEN:
            self._choose(**{control: value})

    def _choose(self, **changes) -> None:
        self.choice = replace(self.choice, **changes)

    def _redraw(self) -> None:
        self._draw()
        refusals = (self.session.view(choice).refusal for choice in self._shown())
        problem = next(filter(None, refusals), "")
        self.controls.message.value = told(problem or self._said(), alarm=bool(problem))


class Sheets(Live):
    """An explorer with pictures side by side and coloured texts below them."""

    # Inches.
    width = 6.9

    @abstractmethod
    def panels(self) -> list[Panel]:
        """Return the pictures."""

    @abstractmethod
    def rows(self) -> list[TextRow]:
        """Return the coloured texts, none where a method refuses."""

    def _picture(self):
        """Return the figure of the pictures alone."""
        return sheet_figure([Band(self.panels())], "", self.width)

    def _draw(self) -> None:
        rows = self.rows()
        self.controls.picture.value = png(self._picture())
        self.controls.page.value = text_html(rows) if rows else ""


def told(text: str, alarm: bool = False) -> str:
    """Return a message as HTML; alarm: in red."""
    colour = "#b91c1c" if alarm else "#64748b"
    return f'<span role="status" style="color: {colour}">{escape(text)}</span>'
