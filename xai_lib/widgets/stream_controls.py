"""The controls of the explorers of several streams and of attention heads."""

from __future__ import annotations

from dataclasses import dataclass

import ipywidgets as w

from xai_lib.explainers.registry import all_methods
from xai_lib.plots import Style
from xai_lib.widgets.controls import (
    WIDE,
    Controls,
    area,
    classes,
    dropdown,
    page,
    picture,
    slider,
    upload,
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
            image=dropdown("Image", images),
            upload=upload(),
            texts=area("Texts", "\n".join(texts), "one a line, then leave the field"),
            search=w.Text(description="Text", placeholder="search", layout=w.Layout(**WIDE)),
            target=classes(),
            against=dropdown("Against", [("no other text", None)]),
            mix=slider("Drag", 0.0, 0.0, 1.0, 0.05),
            method=dropdown("Method", list(all_methods()), method),
            level=dropdown("Level", [("words", "word"), ("tokens", "token")]),
            opacity=slider("Opacity", style.opacity, 0.0, 1.0, 0.05),
            message=w.HTML(layout=w.Layout(**WIDE)),
            picture=picture(),
            page=page(),
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
            sample=dropdown("Image", samples),
            question=area("Question", question, "ask, then leave the field"),
            search=w.Text(
                description="Answer", placeholder="search by name", layout=w.Layout(**WIDE)
            ),
            target=classes(),
            method=dropdown("Method", list(all_methods()), method),
            level=dropdown("Level", [("words", "word"), ("tokens", "token")]),
            mode=dropdown("Regions", [("boxes in colour", "boxes"), ("seen by light", "masked")]),
            ranks=w.IntSlider(value=3, min=0, max=12, description="Ranks", layout=w.Layout(**WIDE)),
            message=w.HTML(layout=w.Layout(**WIDE)),
            picture=picture(),
            page=page(),
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
            sample=dropdown("Sample", samples),
            target=dropdown("Class", [("predicted", None)]),
            score=dropdown("Score", list(scores)),
            order=dropdown("Prune", orders),
            fraction=slider("Fraction", 0.0, 0.0, 0.95, 0.05),
            restore=w.Button(description="Restore all heads", layout=w.Layout(**WIDE)),
            method=dropdown("Method", list(all_methods()), method),
            message=w.HTML(layout=w.Layout(**WIDE)),
            grids=w.VBox(),
            picture=picture(),
            page=page(),
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
