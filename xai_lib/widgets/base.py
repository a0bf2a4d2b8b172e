"""What every explorer does: controls bound to choices, errors told, a static picture beside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from base64 import b64encode
from contextlib import contextmanager
from dataclasses import replace
from html import escape

from xai_lib.errors import XAIError
from xai_lib.widgets.picture import png
from xai_lib.widgets.session import Session

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


class Live(ABC):
    """Controls that change what is shown of a model.

    A subclass has `controls` before it calls `_start`, and a method `_on_<control>` for each
    control that does something.
    """

    def _start(self) -> None:
        """Fill and connect the controls, and draw."""
        self._quiet = False
        with self._silently():
            self._fill()
        for name, control in self.controls.each().items():
            if hasattr(self, f"_on_{name}"):
                control.observe(self._guarded(name), names="value")
        self.box = self.controls.box()
        self._redraw()

    @abstractmethod
    def _fill(self) -> None:
        """Fill the controls with what can be chosen at first."""

    @abstractmethod
    def figure(self):
        """Return the matplotlib figure of what is shown."""

    @abstractmethod
    def _draw(self) -> str:
        """Show the choice; return what is said of it."""

    @abstractmethod
    def _refusal(self) -> str:
        """Return why something chosen cannot be shown, or nothing."""

    @abstractmethod
    def _said(self) -> str:
        """Return one line on what is shown."""

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
                    getattr(self, f"_on_{name}")(change["new"])
                self._redraw()
            except XAIError as error:
                self.controls.message.value = told(str(error), alarm=True)
            except Exception as error:
                self.controls.message.value = told(f"{type(error).__name__}: {error}", alarm=True)
                raise

        return observe

    def _redraw(self) -> None:
        said = self._draw()
        problem = self._refusal()
        self.controls.message.value = told(problem or said, alarm=bool(problem))


class ClassExplorer(Live):
    """An explorer of one class at a time: `session` knows the model, `choice` says what is shown.

    controls: search and target, beside others.
    """

    session: Session

    def _fill(self) -> None:
        self._offer_classes()

    def _on_search(self, text: str) -> None:
        self._offer_classes()

    def _on_target(self, index: int | None) -> None:
        if index is not None:
            self.choice = replace(self.choice, target=index)

    def _offer_classes(self) -> None:
        source, select = self.choice.source, self.controls.target
        found = self.session.ranked(source, self.controls.search.value)
        chances = self.session.probabilities(source)
        select.options = [(f"{self.session.class_name(i)}  {chances[i]:.1%}", i) for i in found]
        chosen = self.session.target(self.choice)
        select.index = found.index(chosen) if chosen in found else None

    def _redraw(self) -> None:
        super()._redraw()
        if not self.controls.target.options:
            problem = f"No class has {self.controls.search.value!r} in its name or as its number."
            self.controls.message.value = told(problem, alarm=True)

    def _said(self) -> str:
        """Return one line on what is shown."""
        view, chosen = self.session.view(self.choice), self.session.target(self.choice)
        chance = self.session.probabilities(self.choice.source)[chosen]
        name = self.session.class_name(chosen)
        return f"{self._subject()}: {view.title}, {view.note}; P({name}) = {chance:.1%}"

    @abstractmethod
    def _subject(self) -> str:
        """Return what the explained image or text is called."""


class Explorer(ClassExplorer):
    """An explorer of methods and of the raw attention of layers and heads, of one stream."""

    def _fill(self) -> None:
        self._offer_layers()
        self._offer_start()
        self._offer_classes()

    def _on_method(self, method: str) -> None:
        kept = self.session.layer_option(method) == self.session.layer_option(self.choice.method)
        start = self.choice.start if kept else None
        self._show_method(method=method, start=start)
        self._offer_start()

    def _on_start(self, start: int | None) -> None:
        self._show_method(start=start)

    def _on_layer(self, layer: int | None) -> None:
        self.choice = replace(self.choice, layer=layer)
        self._offer_heads()

    def _on_head(self, head: int | None) -> None:
        self.choice = replace(self.choice, head=head)

    def _show_method(self, **changes) -> None:
        """Change the method or its option, which ends a look at raw attention."""
        self.choice = replace(self.choice, **changes, layer=None, head=None)
        self.controls.layer.value = None
        self._offer_heads()

    # -- what can be chosen depends on what was chosen --------------------------------------------

    def _offer_layers(self) -> None:
        depth = len(self.session.reading(self.choice.source).heads)
        if self.choice.layer is not None and self.choice.layer >= depth:
            self.choice = replace(self.choice, layer=None)
        numbers = [(f"layer {i}", i) for i in range(depth)]
        self._offer(self.controls.layer, numbers, self.choice.layer)
        self._offer_heads()

    def _offer_heads(self) -> None:
        layer = self.choice.layer
        maps = self.session.reading(self.choice.source).heads
        heads = 0 if layer is None else len(maps[layer])
        if self.choice.head is not None and self.choice.head >= heads:
            self.choice = replace(self.choice, head=None)
        self._offer(self.controls.head, [(f"head {i}", i) for i in range(heads)], self.choice.head)

    def _offer_start(self) -> None:
        option = self.session.layer_option(self.choice.method)
        depth = len(self.session.reading(self.choice.source).heads) if option else 0
        self.controls.start.description = "In layer" if option == "layer" else "From layer"
        numbers = [(f"layer {i}", i) for i in range(depth)]
        start = self.choice.start
        if start is not None and not 0 <= start < depth:
            numbers.append((str(start), start))
        self._offer(self.controls.start, numbers, start)

    def _offer(self, dropdown, options: list, value) -> None:
        dropdown.options = [dropdown.options[0], *options]
        dropdown.value = value
        dropdown.disabled = not options


def told(text: str, alarm: bool = False) -> str:
    """Return a message as HTML; alarm: in red."""
    colour = "#b91c1c" if alarm else "#64748b"
    return f'<span role="status" style="color: {colour}">{escape(text)}</span>'
