"""Explorers of one class at a time, and of the attention of one stream's layers and heads."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

from xai_lib.errors import OptionError, unknown_name
from xai_lib.plots import Style
from xai_lib.widgets.base import Live, told
from xai_lib.widgets.gallery import uploaded
from xai_lib.widgets.session import LAYER_OPTIONS


class ClassExplorer(Live):
    """An explorer of one class at a time; its controls are search and target, beside others."""

    def _fill(self) -> None:
        self._offer_classes()

    def _on_search(self, text: str) -> None:
        self._offer_classes()

    def _on_target(self, index: int | None) -> None:
        if index is not None:
            self._choose(target=index)

    def _offer_classes(self) -> None:
        source, select = self.choice.source, self.controls.target
        select.options = self.session.offered(source, self.controls.search.value)
        found, chosen = [i for _, i in select.options], self.session.target(self.choice)
        select.index = found.index(chosen) if chosen in found else None

    def _redraw(self) -> None:
        super()._redraw()
        if not self.controls.target.options:
            problem = f"No class has {self.controls.search.value!r} in its name or as its number."
            self.controls.message.value = told(problem, alarm=True)

    def _said(self) -> str:
        """Return one line on what is shown."""
        view, chosen = self.session.view(self.choice), self.session.target(self.choice)
        told = self.session.said(self.choice.source, chosen)
        return f"{self._subject()}: {view.title}, {view.note}; {told}"

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
        self._choose(layer=layer)
        self._offer_heads()

    def _show_method(self, **changes) -> None:
        """Change the method or its option, which ends a look at raw attention."""
        self._choose(**changes, layer=None, head=None)
        self.controls.layer.value = None
        self._offer_heads()

    # -- what can be chosen depends on what was chosen --------------------------------------------

    def _offer_layers(self) -> None:
        depth = len(self.session.reading(self.choice.source).heads)
        if self.choice.layer is not None and self.choice.layer >= depth:
            self._choose(layer=None)
        numbers = [(f"layer {i}", i) for i in range(depth)]
        self._offer(self.controls.layer, numbers, self.choice.layer)
        self._offer_heads()

    def _offer_heads(self) -> None:
        layer = self.choice.layer
        maps = self.session.reading(self.choice.source).heads
        heads = 0 if layer is None else len(maps[layer])
        if self.choice.head is not None and self.choice.head >= heads:
            self._choose(head=None)
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


class WithImages(Live):
    """What explorers do whose images can be uploaded and whose maps lie over them.

    controls: image, upload and opacity, beside others.
    """

    style: Style

    @abstractmethod
    def _on_image(self, name: str) -> None:
        """Show another image."""

    def _on_upload(self, value) -> None:
        sources = self.session.sources
        try:
            for file, content in uploaded(value):
                name = sources.add_file(file, content)
                self.controls.image.options = list(sources.named)
                self.controls.image.value = name
                self._on_image(name)
        finally:
            # Emptied, so that the same file uploaded again is a change again.
            self.controls.upload.set_trait("value", type(value)())

    def _on_opacity(self, opacity: float) -> None:
        self.style = replace(self.style, opacity=opacity)


def checked_style(opacity: float, colour_map: str | None = None) -> Style:
    """Return how maps are drawn. Raises OptionError."""
    import matplotlib

    if not 0 <= opacity <= 1:
        raise OptionError(f"opacity is {opacity!r}; expected a number from 0 to 1.")
    if colour_map is not None and colour_map not in matplotlib.colormaps:
        raise unknown_name("colour map", colour_map, matplotlib.colormaps)
    return Style(colour_map=colour_map, opacity=opacity)


def checked_top(top: int, what: str = "classes") -> int:
    """Return how many classes the bars show. Raises OptionError."""
    if not isinstance(top, int) or isinstance(top, bool) or top < 1:
        raise OptionError(f"top is {top!r}; expected how many {what} to show, 1 or more.")
    return top


def taken_start(options: dict) -> int | None:
    """Take the layer option out of the options of all methods, since a control changes it."""
    return next((options.pop(name) for name in LAYER_OPTIONS if name in options), None)
