"""The explorer of an image model's explanations."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from xai_lib.explainers import registry
from xai_lib.plots import Style
from xai_lib.widgets.choice import Choice
from xai_lib.widgets.class_explorer import (
    Explorer,
    WithImages,
    checked_style,
    checked_top,
    taken_start,
)
from xai_lib.widgets.controls import image_controls
from xai_lib.widgets.picture import draw, png
from xai_lib.widgets.session import Session
from xai_lib.widgets.sources import Images


class ImageExplorer(WithImages, Explorer):
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
        start = taken_start(options)
        self.top, self.style = checked_top(top), checked_style(opacity, colour_map)
        self.session = Session(model, Images(processor, images), options)
        names = list(self.session.sources.named)
        self.choice = Choice(names[0], known.name, self.session.index(names[0], target), start)
        self.controls = image_controls(names, method, self.style)
        self._start()

    def figure(self):
        """Return the matplotlib figure of what is shown."""
        return draw(self.session, self.choice, self.style, self.top)

    # -- one method per control -------------------------------------------------------------------

    def _on_image(self, name: str) -> None:
        self._choose(source=name, target=None)
        self._offer_layers()
        self._offer_classes()

    def _on_colour_map(self, name: str | None) -> None:
        self.style = replace(self.style, colour_map=name)

    def _draw(self) -> None:
        self.controls.picture.value = png(self.figure())

    def _subject(self) -> str:
        return self.choice.source
