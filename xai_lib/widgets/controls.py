"""The controls of the explorers and how they are laid out."""

from __future__ import annotations

from dataclasses import dataclass, fields

import ipywidgets as w

from xai_lib.explainers.registry import all_methods
from xai_lib.plots import Style
from xai_lib.streams.words import REDUCTIONS

COLOUR_MAPS = ("inferno", "viridis", "magma", "cividis", "jet", "RdBu_r", "coolwarm")
WIDE = {"width": "auto"}


class Controls:
    """Every control by name, in dataclasses; `box` holds them all beside what they show."""

    message: w.HTML

    def groups(self) -> tuple[tuple[w.Widget, ...], ...]:
        """Return the controls in the columns in which they stand."""
        raise NotImplementedError

    def shown(self) -> w.Widget:
        """Return what the controls change."""
        raise NotImplementedError

    def box(self) -> w.VBox:
        """Return the controls in columns, with the message and what they show below them."""
        column = w.Layout(flex="1 1 260px", min_width="240px", max_width="350px")
        return w.VBox(
            [
                w.HBox(
                    [w.VBox(list(group), layout=column) for group in self.groups()],
                    layout=w.Layout(flex_flow="row wrap"),
                ),
                self.message,
                self.shown(),
            ]
        )

    def each(self) -> dict[str, w.Widget]:
        """Return every control by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass
class ImageControls(Controls):
    """The controls of images."""

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
    def made(cls, images: list[str], method: str, style: Style) -> ImageControls:
        """Make all controls; what depends on the image is filled in later."""
        names = dict.fromkeys([*([style.colour_map] if style.colour_map else []), *COLOUR_MAPS])
        return cls(
            image=dropdown("Image", images),
            upload=w.FileUpload(
                accept="image/*", multiple=False, description="Upload", layout=w.Layout(**WIDE)
            ),
            search=search(),
            target=classes(),
            method=dropdown("Method", list(all_methods()), method),
            start=dropdown("From layer", [("default", None)]),
            layer=dropdown("Attention", [("all: the method's map", None)]),
            head=dropdown("Head", [("all: their mean", None)]),
            opacity=w.FloatSlider(
                value=style.opacity,
                min=0,
                max=1,
                step=0.05,
                description="Opacity",
                readout_format=".2f",
                layout=w.Layout(**WIDE),
            ),
            colour_map=dropdown(
                "Colours", [("automatic", None), *((n, n) for n in names)], style.colour_map
            ),
            message=w.HTML(layout=w.Layout(**WIDE)),
            picture=w.Image(format="png", layout=w.Layout(width="100%", max_width="1060px")),
        )

    def groups(self) -> tuple[tuple[w.Widget, ...], ...]:
        """Return what is explained, for which class, and how it is drawn."""
        return (
            (self.image, self.upload, self.method, self.start),
            (self.search, self.target),
            (self.layer, self.head, self.opacity, self.colour_map),
        )

    def shown(self) -> w.Widget:
        """Return the picture."""
        return self.picture


@dataclass
class TextControls(Controls):
    """The controls of texts."""

    example: w.Dropdown
    text: w.Textarea
    second: w.Textarea
    search: w.Text
    target: w.Select
    method: w.Dropdown
    start: w.Dropdown
    other: w.Dropdown
    layer: w.Dropdown
    head: w.Dropdown
    level: w.Dropdown
    reduce: w.Dropdown
    message: w.HTML
    page: w.HTML

    @classmethod
    def made(cls, texts: dict[str, str], method: str) -> TextControls:
        """Make all controls; what depends on the text is filled in later."""
        methods, first = list(all_methods()), next(iter(texts.values()))
        return cls(
            example=dropdown("Example", [*texts.items(), ("(typed)", None)], first),
            text=area("Text", first, "type a text, then leave the field"),
            second=area("Compare", "", "a second text, beside the first"),
            search=search(),
            target=classes(),
            method=dropdown("Method", methods, method),
            start=dropdown("From layer", [("default", None)]),
            other=dropdown("Beside", [("no second method", None), *((m, m) for m in methods)]),
            layer=dropdown("Attention", [("all: the method's scores", None)]),
            head=dropdown("Head", [("all: their mean", None)]),
            level=dropdown("Level", [("words", "word"), ("tokens", "token")]),
            reduce=dropdown("Word is its", [(f"pieces' {name}", name) for name in REDUCTIONS]),
            message=w.HTML(layout=w.Layout(**WIDE)),
            page=w.HTML(layout=w.Layout(width="100%", max_width="1060px")),
        )

    def groups(self) -> tuple[tuple[w.Widget, ...], ...]:
        """Return what is explained, for which class, and how."""
        return (
            (self.example, self.text, self.second),
            (self.search, self.target, self.level, self.reduce),
            (self.method, self.start, self.other, self.layer, self.head),
        )

    def shown(self) -> w.Widget:
        """Return the coloured texts."""
        return self.page


def dropdown(description: str, options: list, value=None) -> w.Dropdown:
    """Return a menu of options; the first is chosen where `value` is None."""
    chosen = {} if value is None else {"value": value}
    return w.Dropdown(options=options, description=description, layout=w.Layout(**WIDE), **chosen)


def search() -> w.Text:
    """Return the field that searches for a class."""
    return w.Text(
        description="Class", placeholder="search by name or number", layout=w.Layout(**WIDE)
    )


def classes() -> w.Select:
    """Return the list of classes."""
    return w.Select(rows=6, description=" ", layout=w.Layout(**WIDE))


def area(description: str, value: str, placeholder: str) -> w.Textarea:
    """Return a field for a longer text."""
    # Explained when the field is left: an explanation a key would lag behind the typing.
    return w.Textarea(
        value=value,
        description=description,
        placeholder=placeholder,
        rows=4,
        continuous_update=False,
        layout=w.Layout(**WIDE),
    )


def slider(description: str, value: float, low: float, high: float, step: float) -> w.FloatSlider:
    """Return a slider that is read when it is let go."""
    return w.FloatSlider(
        value=value,
        min=low,
        max=high,
        step=step,
        description=description,
        readout_format=".2f",
        continuous_update=False,
        layout=w.Layout(**WIDE),
    )


def upload() -> w.FileUpload:
    """Return the button that takes an image of the user's own."""
    return w.FileUpload(
        accept="image/*", multiple=False, description="Upload", layout=w.Layout(**WIDE)
    )


def picture() -> w.Image:
    """Return the place of a picture."""
    return w.Image(format="png", layout=w.Layout(width="100%", max_width="960px"))


def page() -> w.HTML:
    """Return the place of a page of HTML."""
    return w.HTML(layout=w.Layout(width="100%", max_width="1060px"))
