"""The result of an explanation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from xai_lib.errors import MethodNotApplicableError, OptionError, unknown_name
from xai_lib.files.writing import saveable, written
from xai_lib.streams.labels import name_of_one
from xai_lib.streams.layouts import Layout, StreamsLayout
from xai_lib.streams.patches import TokenLayout
from xai_lib.streams.prepare import SOURCES
from xai_lib.streams.scales import SOFTMAX, Scale
from xai_lib.streams.towers import OWN_NAMES
from xai_lib.streams.words import TextScores

SUFFIXES = (".png", ".pdf", ".svg", ".safetensors")
TEXT_SUFFIXES = (".html", ".tex", *SUFFIXES)


def check_path(path: str | Path, stream: str = "image") -> Path:
    """Return `path`, or raise an OptionError or InputError if no attribution can be saved there."""
    return saveable(path, TEXT_SUFFIXES if stream == "text" else SUFFIXES)


@dataclass
class Attribution:
    """Relevance of every token for one target per sample, and what it was computed from.

    relevance: (batch, tokens), or (targets, batch, tokens) after `targets=[...]`; every token the
    model sees, in order, prefix tokens included; the tokens of several streams stand side by side.
    streams: the same by stream name; `part(name)` is an Attribution of one of several.
    layouts: where the tokens of each stream lie; layout: that of the only stream.
    target: (batch,) class indices, or (targets, batch). logits: (batch, classes).
    content: (batch, tokens), False for class, distillation, register and padding tokens, and for
    what a tokenizer adds to a text; (targets, batch, tokens) where targets have texts of their own.
    pixels: (batch, H, W) for methods that reach the input of an image model, else None. Where such
    a model's tokens have no known place in the image, `grid` is the image's size, `patches` and
    `heatmap()` are the pixels, and so is relevance, one by one, of methods that sum them.
    inputs: the explained pixels (batch, channels, H, W), token numbers (batch, tokens), or of
    several streams the dict of all inputs.
    against: (batch,) the classes that the targets are explained against, None where there are none.
    scale: what the logits are: of classes that exclude each other or do not, or mere values.
    checks: what was measured of the model and of the answer (`xai.examine`), as shares: 0 is exact.
    """

    relevance: Tensor
    target: Tensor
    logits: Tensor
    content: Tensor
    method: str
    options: dict
    layouts: StreamsLayout
    inputs: Tensor | dict = field(repr=False)
    pixels: Tensor | None = field(default=None, repr=False)
    class_names: tuple[str, ...] | None = field(default=None, repr=False)
    against: Tensor | None = None
    scale: Scale = SOFTMAX
    checks: dict[str, float] = field(default_factory=dict, repr=False)

    @property
    def streams(self) -> dict[str, Tensor]:
        """Relevance by stream; a single-stream model has one, equal to `relevance`."""
        if len(self.layouts.parts) == 1:
            return {self.layouts.parts[0][0]: self.relevance}
        return {name: self.relevance[..., where] for name, where, _ in self.layouts.parts}

    @property
    def layout(self) -> Layout:
        """Where the tokens of the only stream lie; MethodNotApplicableError if there are more."""
        return self.layouts.only

    @property
    def stream(self) -> str:
        """What the only stream is: "image", "text", "regions" or "tokens"."""
        return self.layout.stream

    def part(self, stream: str) -> Attribution:
        """Return the attribution of one stream alone: "image" or "text" as of a model of that kind.

        After `targets=[...]` on a model that scores images with texts, every target has a text of
        its own: the part's samples are then all pairs, those of the first target first.
        """
        if stream not in self.streams:
            raise unknown_name("stream", stream, self.streams)
        if len(self.layouts.parts) == 1:
            return self
        layout, relevance = self.layouts.layout(stream), self.streams[stream]
        target, against = self.target, self.against
        content = self.content[..., self.layouts.slices()[stream]]
        content = content[0] if content.dim() == 3 else content
        own = self._input_of(stream)
        if layout.kind == "words":
            own = layout.ids
            if len(own) > len(self.logits):
                relevance, content = relevance.flatten(0, 1), layout.content
                target = target.flatten()
                against = None if against is None else against.flatten()
        return replace(
            self,
            relevance=relevance,
            target=target,
            against=against,
            content=content,
            layouts=StreamsLayout.side_by_side({stream: layout}),
            inputs=own,
            pixels=self.pixels if layout.kind == "patches" else None,
        )

    def _input_of(self, stream: str) -> Tensor | None:
        """Return what a stream's tokens were made of."""
        named = ((OWN_NAMES.get(name, name), x) for name, x in self.inputs.items())
        return next((x for name, x in named if SOURCES.get(name) == stream), None)

    def _of_kind(self, kind: str, advice: str) -> Attribution:
        """Return the part whose stream is of a kind, the first of several."""
        name = self.layouts.of_kind(kind)
        if name is None:
            raise MethodNotApplicableError(advice)
        return self.part(name)

    def _image(self) -> Attribution:
        part = self._of_kind(
            "patches", "A text has no patches; att.words() and att.tokens() are what you want."
        )
        if part.layout.grid is None and part.pixels is not None:
            return part._at_pixels()
        if part.layout.grid is None:
            raise MethodNotApplicableError(
                "No place in the image is known of this model's tokens, so there is no grid of "
                "patches; use att.relevance, or a method that reaches the pixels, such as "
                "'gradient_x_input'."
            )
        return part

    def _at_pixels(self) -> Attribution:
        """Return the attribution of an image pixel by pixel."""
        assert self.pixels is not None, "a method that does not reach the pixels"
        layout = TokenLayout.of_pixels((self.pixels.shape[-2], self.pixels.shape[-1]))
        return replace(
            self,
            relevance=self.pixels.flatten(-2),
            content=layout.content_of(len(self.content), self.content.device),
            layouts=StreamsLayout.side_by_side({next(iter(self.streams)): layout}),
        )

    def _text(self) -> Attribution:
        return self._of_kind(
            "words", "An image has no words; att.patches and att.heatmap() are what you want."
        )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patch grid."""
        return self._image().layout.grid

    @property
    def patches(self) -> Tensor:
        """Relevance of the patches in their grid: (..., rows, columns)."""
        part = self._image()
        return part.relevance[..., part.layout.patches].unflatten(-1, part.layout.grid)

    def heatmap(self, size: int | tuple[int, int] | None = None) -> Tensor:
        """Return `patches` enlarged bilinearly (corners not aligned) to the input's size or `size`.

        Each lies over the pixels that it was computed from; pixels of no patch (cut off by the
        model, or at the border of an image that is no multiple of the patch) have 0, and
        `att.layout.cells.covered` says which these are. Shape (batch, H, W), in the units of the
        method; nothing is normalised or clamped.
        """
        part = self._image()
        grid = part.patches
        size = part.layout.size if size is None else (size, size) if isinstance(size, int) else size
        if not isinstance(size, tuple | list) or len(size) != 2 or min(size) < 1:
            raise OptionError(f"size is {size!r}; expected a positive integer or (height, width).")
        return part.layout.cells.enlarged(grid, (int(size[0]), int(size[1])))

    def words(self, reduce: str = "max") -> list[TextScores]:
        """Return the words of each text with their scores: what stands between white space.

        Where a script has none between words they are its smallest units (`streams.words.words_of`:
        a Chinese character), and words that were given one by one are these. A
        word's score is the "max" of its pieces' (as in the papers), their "sum" or their "mean".
        """
        part = self._text()
        return part.layout.word_scores(part.relevance, reduce)

    def tokens(self, specials: bool = False) -> list[TextScores]:
        """Return the tokens of each text with their scores; specials: also those like [CLS]."""
        part = self._text()
        return part.layout.token_scores(part.relevance, specials)

    def class_name(self, index: int) -> str:
        """Return the model's name of a class, or "class 7" where it has none.

        One score of no name is "the score", and -1, which explains it with a minus, "a low score".
        """
        names = self.class_names or ()
        if self.logits.shape[-1] == 1:
            return name_of_one(names, index)
        return names[index] if index < len(names) else f"class {index}"

    def show(self, **style):
        """Return what a notebook displays: a figure of each image, or a `plots.TextHeatmap`.

        style: see `plots.attribution_figure` for images, `plots.attribution_texts` for texts, of
        which all samples are shown unless `sample` says otherwise, and `plots.pair_figure` for
        several streams. Regions alone, which a model sees no image of, take `images=[...]` and
        `boxes=` there too.
        """
        from xai_lib import plots

        if len(self.layouts.parts) > 1:
            return plots.pair_figure(self, **style)
        if self.layout.kind == "words":
            return plots.TextHeatmap(plots.attribution_texts(self, **{"sample": None} | style))
        figure = {"regions": plots.regions_figure}.get(self.layout.kind, plots.attribution_figure)
        return figure(self, **style)

    def save(self, path: str | Path, **style) -> Path:
        """Save as a picture (.png, .pdf, .svg) or as numbers (.safetensors); return the path.

        A text also as a page (.html) or a LaTeX document (.tex). Written to a temporary name first,
        so that an interrupted save leaves no half file.
        """
        text = [layout.kind for *_, layout in self.layouts.parts] == ["words"]
        path = check_path(path, "text" if text else "image")
        if path.suffix != ".safetensors" and text:
            return self.show(**style).save(path)
        with written(path) as partial:
            if path.suffix == ".safetensors":
                from safetensors.torch import save_file

                save_file(self._tensors(), partial, metadata={"method": self.method})
            else:
                self.show(**style).savefig(partial, bbox_inches="tight", dpi=150)
        return path

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {
            name: getattr(self, name) for name in ("relevance", "target", "logits", "content")
        }
        if self.pixels is not None:
            tensors["pixels"] = self.pixels
        return {name: t.detach().contiguous().cpu() for name, t in tensors.items()}

    def probabilities(self) -> Tensor:
        """Return the classes' probabilities (batch, classes), in float32.

        softmax(logits) where one class is right, sigmoid(logits) of a multi-label model, and what a
        model gives that ends in one of them itself. Raises TargetError where the model's scores
        have no probability: those of a regression, or one score whose meaning nobody names.
        """
        return self.scale.probabilities(self.logits.float())

    def probability(self, sample: int, index: int) -> float | None:
        """Return the probability of a class, of -1 that the only one is not; None without any."""
        return self.scale.probability(self.logits[sample].float(), index)

    def value(self, sample: int, index: int) -> float | None:
        """Return the score of a class that has no probability, else None."""
        return self.scale.value(self.logits[sample].float(), index)

    def said(self, sample: int, index: int, digits: int = 1) -> str:
        """Return what the model says of a class in words: "12.3%", or "score 1.23"."""
        return self.scale.said(self.logits[sample].float(), index, digits)
