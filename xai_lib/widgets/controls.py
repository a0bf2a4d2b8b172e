"""The controls of the explorers and how they are laid out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets as w

from xai_lib.explainers.registry import all_methods
from xai_lib.plots import Style
from xai_lib.streams.words import REDUCTIONS

COLOUR_MAPS = ("inferno", "viridis", "magma", "cividis", "jet", "RdBu_r", "coolwarm")
WIDE = {"width": "auto"}
LEVELS = [("words", "word"), ("tokens", "token")]


class Controls:
    """Every control by name, as an attribute; `box` holds them all beside what they show.

    columns: {name: control}, in the columns in which they stand. shown: what the controls change.
    """

    def __init__(self, *columns: dict[str, w.Widget], **shown: w.Widget):
        self.message = w.HTML(layout=w.Layout(**WIDE))
        # Only these are observed: what is shown changes because of them.
        self.inputs = {name: one for column in columns for name, one in column.items()}
        self._every = self.inputs | shown
        wide = w.Layout(flex="1 1 260px", min_width="240px", max_width="350px")
        groups = [w.VBox(list(column.values()), layout=wide) for column in columns]
        row = w.HBox(groups, layout=w.Layout(flex_flow="row wrap"))
        self.box = w.VBox([row, self.message, *shown.values()])

    def __getattr__(self, name: str) -> Any:
        # Copying asks for private names before `_every` is there.
        if name.startswith("_") or name not in self._every:
            raise AttributeError(name)
        return self._every[name]


def image_controls(images: Sequence[str], method: str, style: Style) -> Controls:
    """Return the controls of images; what depends on the image is filled in later."""
    names = dict.fromkeys([*([style.colour_map] if style.colour_map else []), *COLOUR_MAPS])
    colours = [("automatic", None), *((n, n) for n in names)]
    return Controls(
        dict(
            image=dropdown("Image", images),
            upload=upload(),
            method=dropdown("Method", list(all_methods()), method),
            start=dropdown("From layer", [("default", None)]),
        ),
        dict(search=field("Class", "search by name or number"), target=classes()),
        dict(
            layer=dropdown("Attention", [("all: the method's map", None)]),
            head=dropdown("Head", [("all: their mean", None)]),
            opacity=slider("Opacity", style.opacity, 1.0, continuous=True),
            colour_map=dropdown("Colours", colours, style.colour_map),
        ),
        picture=picture("1060px"),
    )


def text_controls(texts: dict[str, str], method: str) -> Controls:
    """Return the controls of texts; what depends on the text is filled in later."""
    methods, first = list(all_methods()), next(iter(texts.values()))
    return Controls(
        dict(
            example=dropdown("Example", [*texts.items(), ("(typed)", None)], first),
            text=area("Text", first, "type a text, then leave the field"),
            second=area("Compare", "", "a second text, beside the first"),
        ),
        dict(
            search=field("Class", "search by name or number"),
            target=classes(),
            level=dropdown("Level", LEVELS),
            reduce=dropdown("Word is its", [(f"pieces' {name}", name) for name in REDUCTIONS]),
        ),
        dict(
            method=dropdown("Method", methods, method),
            start=dropdown("From layer", [("default", None)]),
            other=dropdown("Beside", [("no second method", None), *((m, m) for m in methods)]),
            layer=dropdown("Attention", [("all: the method's scores", None)]),
            head=dropdown("Head", [("all: their mean", None)]),
        ),
        page=page(),
    )


def pair_controls(
    images: Sequence[str], texts: tuple[str, ...], method: str, style: Style
) -> Controls:
    """Return the controls of images with texts; what depends on the texts is filled in later."""
    return Controls(
        dict(
            image=dropdown("Image", images),
            upload=upload(),
            texts=area("Texts", "\n".join(texts), "one a line, then leave the field"),
        ),
        dict(
            search=field("Text", "search"),
            target=classes(),
            against=dropdown("Against", [("no other text", None)]),
            mix=slider("Drag", 0.0, 1.0),
        ),
        dict(
            method=dropdown("Method", list(all_methods()), method),
            level=dropdown("Level", LEVELS),
            opacity=slider("Opacity", style.opacity, 1.0),
        ),
        picture=picture(),
        page=page(),
    )


def question_controls(samples: Sequence[str], question: str, method: str) -> Controls:
    """Return the controls of questions on images; the answers are filled in later."""
    return Controls(
        dict(
            sample=dropdown("Image", samples),
            question=area("Question", question, "ask, then leave the field"),
        ),
        dict(search=field("Answer", "search by name"), target=classes()),
        dict(
            method=dropdown("Method", list(all_methods()), method),
            level=dropdown("Level", LEVELS),
            mode=dropdown("Regions", [("boxes in colour", "boxes"), ("seen by light", "masked")]),
            ranks=w.IntSlider(value=3, min=0, max=12, description="Ranks", layout=w.Layout(**WIDE)),
        ),
        picture=picture(),
        page=page(),
    )


def head_controls(samples: Sequence[str], scores: tuple[str, ...], method: str) -> Controls:
    """Return the controls of pruned heads; `grids` holds a button a head, filled in later."""
    orders = [("the least first", "negative"), ("the largest first", "positive")]
    return Controls(
        dict(
            sample=dropdown("Sample", samples),
            target=dropdown("Class", [("predicted", None)]),
            method=dropdown("Method", list(all_methods()), method),
        ),
        dict(
            score=dropdown("Score", list(scores)),
            order=dropdown("Prune", orders),
            fraction=slider("Fraction", 0.0, 0.95),
            restore=w.Button(description="Restore all heads", layout=w.Layout(**WIDE)),
        ),
        grids=w.VBox(),
        picture=picture(),
        page=page(),
    )


def dropdown(description: str, options: Sequence, value=None) -> w.Dropdown:
    """Return a menu of options; the first is chosen where `value` is None."""
    chosen = {} if value is None else {"value": value}
    return w.Dropdown(options=options, description=description, layout=w.Layout(**WIDE), **chosen)


def field(description: str, placeholder: str) -> w.Text:
    """Return a field that searches for a class."""
    return w.Text(description=description, placeholder=placeholder, layout=w.Layout(**WIDE))


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


def slider(
    description: str, value: float, high: float, *, continuous: bool = False
) -> w.FloatSlider:
    """Return a slider from 0; it is read when it is let go, unless `continuous`."""
    return w.FloatSlider(
        value=value,
        min=0.0,
        max=high,
        step=0.05,
        description=description,
        readout_format=".2f",
        continuous_update=continuous,
        layout=w.Layout(**WIDE),
    )


def upload() -> w.FileUpload:
    """Return the button that takes an image of the user's own."""
    return w.FileUpload(
        accept="image/*", multiple=False, description="Upload", layout=w.Layout(**WIDE)
    )


def picture(widest: str = "960px") -> w.Image:
    """Return the place of a picture."""
    return w.Image(format="png", layout=w.Layout(width="100%", max_width=widest))


def page() -> w.HTML:
    """Return the place of a page of HTML."""
    return w.HTML(layout=w.Layout(width="100%", max_width="1060px"))
