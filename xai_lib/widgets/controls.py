"""The controls of the explorers and how they are laid out."""

from __future__ import annotations

from dataclasses import dataclass, fields

import ipywidgets as w

from xai_lib.plots import Style
from xai_lib.registry import all_methods
from xai_lib.text import REDUCTIONS

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
            image=_dropdown("Image", images),
            upload=w.FileUpload(
                accept="image/*", multiple=False, description="Upload", layout=w.Layout(**WIDE)
            ),
            search=_search(),
            target=_classes(),
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
            example=_dropdown("Example", [*texts.items(), ("(typed)", None)], first),
            text=_area("Text", first, "type a text, then leave the field"),
            second=_area("Compare", "", "a second text, beside the first"),
            search=_search(),
            target=_classes(),
            method=_dropdown("Method", methods, method),
            start=_dropdown("From layer", [("default", None)]),
            other=_dropdown("Beside", [("no second method", None), *((m, m) for m in methods)]),
            layer=_dropdown("Attention", [("all: the method's scores", None)]),
            head=_dropdown("Head", [("all: their mean", None)]),
            level=_dropdown("Level", [("words", "word"), ("tokens", "token")]),
            reduce=_dropdown("Word is its", [(f"pieces' {name}", name) for name in REDUCTIONS]),
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


def _dropdown(description: str, options: list, value=None) -> w.Dropdown:
    chosen = {} if value is None else {"value": value}
    return w.Dropdown(options=options, description=description, layout=w.Layout(**WIDE), **chosen)


def _search() -> w.Text:
    return w.Text(
        description="Class", placeholder="search by name or number", layout=w.Layout(**WIDE)
    )


def _classes() -> w.Select:
    return w.Select(rows=6, description=" ", layout=w.Layout(**WIDE))


def _area(description: str, value: str, placeholder: str) -> w.Textarea:
    # Explained when the field is left: an explanation a key would lag behind the typing.
    return w.Textarea(
        value=value,
        description=description,
        placeholder=placeholder,
        rows=4,
        continuous_update=False,
        layout=w.Layout(**WIDE),
    )


@dataclass
class PairControls(Controls):
    """The controls of images with texts."""

    image: w.Dropdown
    upload: w.FileUpload
    texts: w.Textarea
    search: w.Text
    target: w.Select
    against: w.Dropdown
    mix: w.FloatSlider
    method: w.Dropdown
    level: w.Dropdown
    opacity: w.FloatSlider
    message: w.HTML
    picture: w.Image
    page: w.HTML

    @classmethod
    def made(cls, images: list[str], texts: tuple[str, ...], method: str, style: Style):
        """Make all controls; what depends on the texts is filled in later."""
        return cls(
            image=_dropdown("Image", images),
            upload=_upload(),
            texts=_area("Texts", "\n".join(texts), "one a line, then leave the field"),
            search=w.Text(description="Text", placeholder="search", layout=w.Layout(**WIDE)),
            target=_classes(),
            against=_dropdown("Against", [("no other text", None)]),
            mix=_slider("Drag", 0.0, 0.0, 1.0, 0.05),
            method=_dropdown("Method", list(all_methods()), method),
            level=_dropdown("Level", [("words", "word"), ("tokens", "token")]),
            opacity=_slider("Opacity", style.opacity, 0.0, 1.0, 0.05),
            message=w.HTML(layout=w.Layout(**WIDE)),
            picture=_picture(),
            page=_page(),
        )

    def groups(self) -> tuple[tuple[w.Widget, ...], ...]:
        """Return what is scored, for which text, and how."""
        return (
            (self.image, self.upload, self.texts),
            (self.search, self.target, self.against, self.mix),
            (self.method, self.level, self.opacity),
        )

    def shown(self) -> w.Widget:
        """Return the pictures and the coloured texts."""
        return w.VBox([self.picture, self.page])


@dataclass
class QuestionControls(Controls):
    """The controls of questions on images."""

    sample: w.Dropdown
    question: w.Textarea
    search: w.Text
    target: w.Select
    method: w.Dropdown
    level: w.Dropdown
    mode: w.Dropdown
    ranks: w.IntSlider
    message: w.HTML
    picture: w.Image
    page: w.HTML

    @classmethod
    def made(cls, samples: list[str], question: str, method: str) -> QuestionControls:
        """Make all controls; the answers are filled in later."""
        return cls(
            sample=_dropdown("Image", samples),
            question=_area("Question", question, "ask, then leave the field"),
            search=w.Text(
                description="Answer", placeholder="search by name", layout=w.Layout(**WIDE)
            ),
            target=_classes(),
            method=_dropdown("Method", list(all_methods()), method),
            level=_dropdown("Level", [("words", "word"), ("tokens", "token")]),
            mode=_dropdown("Regions", [("boxes in colour", "boxes"), ("seen by light", "masked")]),
            ranks=w.IntSlider(value=3, min=0, max=12, description="Ranks", layout=w.Layout(**WIDE)),
            message=w.HTML(layout=w.Layout(**WIDE)),
            picture=_picture(),
            page=_page(),
        )

    def groups(self) -> tuple[tuple[w.Widget, ...], ...]:
        """Return what is asked, for which answer, and how it is drawn."""
        return (
            (self.sample, self.question),
            (self.search, self.target),
            (self.method, self.level, self.mode, self.ranks),
        )

    def shown(self) -> w.Widget:
        """Return the picture of the regions and the coloured question."""
        return w.VBox([self.picture, self.page])


@dataclass
class HeadControls(Controls):
    """The controls of pruned heads; `grids` holds a button a head."""

    sample: w.Dropdown
    target: w.Dropdown
    score: w.Dropdown
    order: w.Dropdown
    fraction: w.FloatSlider
    restore: w.Button
    method: w.Dropdown
    message: w.HTML
    grids: w.VBox
    picture: w.Image
    page: w.HTML

    @classmethod
    def made(cls, samples: list[str], scores: tuple[str, ...], method: str) -> HeadControls:
        """Make all controls; what depends on the sample is filled in later."""
        orders = [("the least first", "negative"), ("the largest first", "positive")]
        return cls(
            sample=_dropdown("Sample", samples),
            target=_dropdown("Class", [("predicted", None)]),
            score=_dropdown("Score", list(scores)),
            order=_dropdown("Prune", orders),
            fraction=_slider("Fraction", 0.0, 0.0, 0.95, 0.05),
            restore=w.Button(description="Restore all heads", layout=w.Layout(**WIDE)),
            method=_dropdown("Method", list(all_methods()), method),
            message=w.HTML(layout=w.Layout(**WIDE)),
            grids=w.VBox(),
            picture=_picture(),
            page=_page(),
        )

    def groups(self) -> tuple[tuple[w.Widget, ...], ...]:
        """Return what is explained, and what is pruned."""
        return (
            (self.sample, self.target, self.method),
            (self.score, self.order, self.fraction, self.restore),
        )

    def shown(self) -> w.Widget:
        """Return the heads, and what the model makes of the sample with and without them."""
        return w.VBox([self.grids, self.picture, self.page])


def _slider(description: str, value: float, low: float, high: float, step: float) -> w.FloatSlider:
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


def _upload() -> w.FileUpload:
    return w.FileUpload(
        accept="image/*", multiple=False, description="Upload", layout=w.Layout(**WIDE)
    )


def _picture() -> w.Image:
    return w.Image(format="png", layout=w.Layout(width="100%", max_width="960px"))


def _page() -> w.HTML:
    return w.HTML(layout=w.Layout(width="100%", max_width="1060px"))
