"""The explorer of one model's explanations: controls bound to a session."""

from __future__ import annotations

from base64 import b64encode
from contextlib import contextmanager
from dataclasses import replace
from html import escape

from torch import nn

from xai_lib import registry
from xai_lib.errors import OptionError, XAIError, unknown_name
from xai_lib.plots import Style
from xai_lib.widgets.controls import Controls
from xai_lib.widgets.gallery import uploaded
from xai_lib.widgets.picture import HEIGHT, WIDTH, draw, png
from xai_lib.widgets.state import LAYER_OPTIONS, Choice, Session

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


class ImageExplorer:
    """Choose an image, a class, a method, a layer or a head, and see its explanation.

    model, processor: as `xai.load` returns them. images: {name: image}, a list of images or files,
    or one image; more can be uploaded. method: shown first; **options: passed to every method that
    knows them. target: class number or name shown first, or None for the predicted class.
    opacity (0 to 1) and colour_map restyle the map without computing it again; top: how many
    classes the bars show. Where no widget manager runs, its picture is displayed instead.
    `explorer.choice` and `explorer.style` say what is shown, `explorer.figure()` draws it.
    Raises InputError, OptionError, TargetError and UnsupportedModelError for what it is given;
    a method that does not apply to the model is told inside the explorer.
    """

    def __init__(
        self,
        model: nn.Module,
        processor,
        images,
        method: str = "transformer_attribution",
        target: int | str | None = None,
        *,
        opacity: float = Style.opacity,
        colour_map: str | None = None,
        top: int = 5,
        **options,
    ):
        """Read the images, explain the first one and make the controls."""
        known = registry.find(method, options)
        start = next((options.pop(name) for name in LAYER_OPTIONS if name in options), None)
        if not isinstance(top, int) or top < 1:
            raise OptionError(f"top is {top!r}; expected how many classes to show, 1 or more.")
        self.style = _checked_style(opacity, colour_map)
        self.session = Session(model, processor, images, options)
        self.top = top
        first = next(iter(self.session.pixels))
        self.choice = Choice(first, known.name, self.session.index(first, target), start)
        self.controls = Controls.made(list(self.session.pixels), method, self.style)
        self._quiet = False
        with self._silently():
            self._offer_layers()
            self._offer_start()
            self._offer_classes()
        for name, control in self.controls.each().items():
            if hasattr(self, f"_on_{name}"):
                control.observe(self._guarded(name), names="value")
        self.box = self.controls.box()
        self._redraw()

    def figure(self):
        """Return the matplotlib figure of what is shown."""
        return draw(self.session, self.choice, self.style, self.top)

    def _repr_mimebundle_(self, include=None, exclude=None):
        # A plain object with its own bundle, not a widget: ipywidgets 7 would display itself past
        # this method, and neither version adds a picture.
        model_id = self.box.model_id
        data = {
            "text/plain": f"ImageExplorer: {self._said()}",
            "image/png": b64encode(self.controls.picture.value).decode(),
            WIDGET_VIEW: {"version_major": 2, "version_minor": 0, "model_id": model_id},
        }
        size = {"width": round(WIDTH * 100), "height": round(HEIGHT * 100)}
        return data, {"image/png": size}

    # -- one method per control -------------------------------------------------------------------

    def _on_image(self, name: str) -> None:
        self.choice = replace(self.choice, image=name, target=None)
        self._offer_layers()
        self._offer_classes()

    def _on_upload(self, value) -> None:
        try:
            for file, content in uploaded(value):
                name = self.session.add_file(file, content)
                self.controls.image.options = list(self.session.pixels)
                self.controls.image.value = name
                self._on_image(name)
        finally:
            # Emptied, so that the same file uploaded again is a change again.
            self.controls.upload.set_trait("value", type(value)())

    def _on_search(self, text: str) -> None:
        self._offer_classes()

    def _on_target(self, index: int | None) -> None:
        if index is not None:
            self.choice = replace(self.choice, target=index)

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

    def _on_opacity(self, opacity: float) -> None:
        self.style = replace(self.style, opacity=opacity)

    def _on_colour_map(self, name: str | None) -> None:
        self.style = replace(self.style, colour_map=name)

    def _show_method(self, **changes) -> None:
        """Change the method or its option, which ends a look at raw attention."""
        self.choice = replace(self.choice, **changes, layer=None, head=None)
        self.controls.layer.value = None
        self._offer_heads()

    # -- what can be chosen depends on what was chosen --------------------------------------------

    def _offer_classes(self) -> None:
        image, select = self.choice.image, self.controls.target
        found = self.session.ranked(image, self.controls.search.value)
        chances = self.session.probabilities(image)
        select.options = [(f"{self.session.class_name(i)}  {chances[i]:.1%}", i) for i in found]
        chosen = self.session.target(self.choice)
        select.index = found.index(chosen) if chosen in found else None

    def _offer_layers(self) -> None:
        depth = len(self.session.reading(self.choice.image).heads)
        if self.choice.layer is not None and self.choice.layer >= depth:
            self.choice = replace(self.choice, layer=None)
        numbers = [(f"layer {i}", i) for i in range(depth)]
        self._offer(self.controls.layer, numbers, self.choice.layer)
        self._offer_heads()

    def _offer_heads(self) -> None:
        layer = self.choice.layer
        maps = self.session.reading(self.choice.image).heads
        heads = 0 if layer is None else len(maps[layer])
        if self.choice.head is not None and self.choice.head >= heads:
            self.choice = replace(self.choice, head=None)
        self._offer(self.controls.head, [(f"head {i}", i) for i in range(heads)], self.choice.head)

    def _offer_start(self) -> None:
        option = self.session.layer_option(self.choice.method)
        depth = len(self.session.reading(self.choice.image).heads) if option else 0
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
            self.controls.message.value = _told("Explaining …")
            try:
                with self._silently():
                    getattr(self, f"_on_{name}")(change["new"])
                self._redraw()
            except XAIError as error:
                self.controls.message.value = _told(str(error), alarm=True)
            except Exception as error:
                self.controls.message.value = _told(f"{type(error).__name__}: {error}", alarm=True)
                raise

        return observe

    def _redraw(self) -> None:
        self.controls.picture.value = png(self.figure())
        problem = self.session.view(self.choice).refusal
        if not self.controls.target.options:
            problem = f"No class has {self.controls.search.value!r} in its name or as its number."
        self.controls.message.value = _told(problem or self._said(), alarm=bool(problem))

    def _said(self) -> str:
        view, image = self.session.view(self.choice), self.choice.image
        chance = self.session.probabilities(image)[self.session.target(self.choice)]
        name = self.session.class_name(self.session.target(self.choice))
        return f"{image}: {view.title}, {view.note}; P({name}) = {chance:.1%}"


def _told(text: str, alarm: bool = False) -> str:
    colour = "#b91c1c" if alarm else "#64748b"
    return f'<span role="status" style="color: {colour}">{escape(text)}</span>'


def _checked_style(opacity: float, colour_map: str | None) -> Style:
    import matplotlib

    if not 0 <= opacity <= 1:
        raise OptionError(f"opacity is {opacity!r}; expected a number from 0 to 1.")
    if colour_map is not None and colour_map not in matplotlib.colormaps:
        raise unknown_name("colour map", colour_map, matplotlib.colormaps)
    return Style(colour_map=colour_map, opacity=opacity)
