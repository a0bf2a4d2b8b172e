"""The controls of an explorer and how they are laid out."""

from __future__ import annotations

from dataclasses import dataclass, fields

import ipywidgets as w

from xai_lib.plots import Style
from xai_lib.registry import all_methods

COLOUR_MAPS = ("inferno", "viridis", "magma", "cividis", "jet", "RdBu_r", "coolwarm")
WIDE = {"width": "auto"}


@dataclass
class Controls:
    """Every control by name; `box` holds them all beside the picture."""

    image: w.Dropdown
    upload: w.FileUpload
    search: w.Text
    target: w.Select
    method: w.Dropdown
    start: w.Dropdown
    layer: w.Dropdown
    head: w.Dropdown
    opacity: w.FloatSlider
    colour_map: w.Dropdown
    message: w.HTML
    picture: w.Image

    @classmethod
    def made(cls, images: list[str], method: str, style: Style) -> Controls:
        """Make all controls; what depends on the image is filled in later."""
        names = dict.fromkeys([*([style.colour_map] if style.colour_map else []), *COLOUR_MAPS])
        return cls(
            image=_dropdown("Image", images),
            upload=w.FileUpload(
                accept="image/*", multiple=False, description="Upload", layout=w.Layout(**WIDE)
            ),
            search=w.Text(
                description="Class", placeholder="search by name or number", layout=w.Layout(**WIDE)
            ),
            target=w.Select(rows=6, description=" ", layout=w.Layout(**WIDE)),
            method=_dropdown("Method", list(all_methods()), method),
            start=_dropdown("From layer", [("default", None)]),
            layer=_dropdown("Attention", [("all: the method's map", None)]),
            head=_dropdown("Head", [("all: their mean", None)]),
            opacity=w.FloatSlider(
                value=style.opacity,
                min=0,
                max=1,
                step=0.05,
                description="Opacity",
                readout_format=".2f",
                layout=w.Layout(**WIDE),
            ),
            colour_map=_dropdown(
                "Colours", [("automatic", None), *((n, n) for n in names)], style.colour_map
            ),
            message=w.HTML(layout=w.Layout(**WIDE)),
            picture=w.Image(format="png", layout=w.Layout(width="100%", max_width="1060px")),
        )

    def box(self) -> w.VBox:
        """Return the controls in three groups, with the picture and the message below them."""
        column = w.Layout(flex="1 1 260px", min_width="240px", max_width="350px")
        groups = (
            (self.image, self.upload, self.method, self.start),
            (self.search, self.target),
            (self.layer, self.head, self.opacity, self.colour_map),
        )
        return w.VBox(
            [
                w.HBox(
                    [w.VBox(list(group), layout=column) for group in groups],
                    layout=w.Layout(flex_flow="row wrap"),
                ),
                self.message,
                self.picture,
            ]
        )

    def each(self) -> dict[str, w.Widget]:
        """Return every control by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def _dropdown(description: str, options: list, value=None) -> w.Dropdown:
    chosen = {} if value is None else {"value": value}
    return w.Dropdown(options=options, description=description, layout=w.Layout(**WIDE), **chosen)
