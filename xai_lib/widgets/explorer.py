"""The explorer of an image model's explanations."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from xai_lib.errors import OptionError, unknown_name
from xai_lib.explainers import registry
from xai_lib.plots import Style
from xai_lib.widgets.base import Explorer
from xai_lib.widgets.controls import ImageControls
from xai_lib.widgets.gallery import uploaded
from xai_lib.widgets.picture import draw, png
from xai_lib.widgets.session import LAYER_OPTIONS
from xai_lib.widgets.state import Choice, ImageSession


class ImageExplorer(Explorer):
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
        self.session = ImageSession(model, processor, images, options)
        self.top = top
        first = next(iter(self.session.pixels))
        self.choice = Choice(first, known.name, self.session.index(first, target), start)
        self.controls = ImageControls.made(list(self.session.pixels), method, self.style)
        self._start()

    def figure(self):
        """Return the matplotlib figure of what is shown."""
        return draw(self.session, self.choice, self.style, self.top)

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

    def _on_opacity(self, opacity: float) -> None:
        self.style = replace(self.style, opacity=opacity)

    def _on_colour_map(self, name: str | None) -> None:
        self.style = replace(self.style, colour_map=name)

    def _draw(self) -> str:
        self.controls.picture.value = png(self.figure())
        return self._said()

    def _refusal(self) -> str:
        return self.session.view(self.choice).refusal

    def _subject(self) -> str:
        return self.choice.image


def _checked_style(opacity: float, colour_map: str | None) -> Style:
    import matplotlib

    if not 0 <= opacity <= 1:
        raise OptionError(f"opacity is {opacity!r}; expected a number from 0 to 1.")
    if colour_map is not None and colour_map not in matplotlib.colormaps:
        raise unknown_name("colour map", colour_map, matplotlib.colormaps)
    return Style(colour_map=colour_map, opacity=opacity)
