"""Pictures of explanations of models of several streams: image or regions, and text, together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xai_lib.errors import InputError, MethodNotApplicableError, OptionError, unknown_name
from xai_lib.explainers.registry import all_methods
from xai_lib.plots.pictures import Style, displayable
from xai_lib.plots.regions import region_panel
from xai_lib.plots.sheet import PLAIN, Band, Panel, heat_panel, image_panel, sheet
from xai_lib.plots.signs import sign_of
from xai_lib.plots.style import DOUBLE, styled
from xai_lib.plots.text.rows import LEVELS, TextRow, numbered
from xai_lib.streams.targets import AGAINST
from xai_lib.streams.words import TextScores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from xai_lib.attribution import Attribution

COUNTED_AGAINST = "Relevance of the text that is explained against, with a minus sign."


@styled
def pair_figure(
    att: Attribution,
    processor=None,
    *,
    images: Sequence | None = None,
    boxes=None,
    level: str = "word",
    reduce: str = "max",
    style: Style = PLAIN,
    mode: str = "boxes",
    top: int = 3,
    answers: int = 3,
    title: str | None = None,
    width: float = DOUBLE,
) -> Figure:
    """Return a figure of a model of several streams: a band for each sample and target.

    An image of patches has its heat map, regions of a detector are drawn on the image (`mode`,
    `top`: see `region_figure`), and each text is a line of coloured words (`level`, `reduce`: see
    `attribution_texts`) with the likeliest `answers`. processor: of `xai.load`, to undo what it did
    to pixels and for names of answers. images: of each sample, for regions, whose model sees no
    image; without them the canvas is blank. boxes: (samples, regions, 4), where neither the model
    nor its inputs have them. title: by default the method. Raises InputError, OptionError, and
    MethodNotApplicableError where no stream can be drawn.
    """
    if level not in LEVELS:
        raise unknown_name("level", level, LEVELS)
    batch = len(att.logits)
    if images is not None and len(images) != batch:
        raise InputError(f"There are {len(images)} images for {batch} samples; expected one each.")
    targets = att.target.reshape(-1, batch)
    bands = []
    for i in range(batch):
        for k in range(len(targets)):
            image = None if images is None else images[i]
            drawn = Drawn(att, processor, image, boxes, i, k)
            bands.append(Band(drawn.panels(style, mode, top), drawn.rows(level, reduce, answers)))
    return sheet(bands, att.method if title is None else title, width)


class Drawn:
    """What is drawn of one sample i and target k of an attribution of several streams."""

    def __init__(self, att: Attribution, processor=None, image=None, boxes=None, i=0, k=0):
        if len(att.layouts.parts) == 1:
            raise InputError(f"The attribution is of one stream, {att.stream!r}; use att.show().")
        self.att, self.processor, self.image, self.boxes = att, processor, image, boxes
        self.i, self.k = i, k
        self.several = att.target.dim() == 2
        self.target = int(att.target.reshape(-1, len(att.logits))[k, i])
        self.parts = {name: att.part(name) for name in att.streams}
        if not self.texts and not any(self._drawable(part) for part in self.parts.values()):
            raise MethodNotApplicableError(
                "None of the model's streams is a text, an image or regions that could be drawn; "
                "att.streams has the numbers."
            )

    @property
    def texts(self) -> dict[str, Attribution]:
        """The streams that are texts, each of which is a row."""
        return {name: part for name, part in self.parts.items() if part.layout.kind == "words"}

    def panels(self, style: Style = PLAIN, mode: str = "boxes", top: int = 3) -> list[Panel]:
        """Return the pictures of all streams that can be drawn, in order (see `PANELS`)."""
        found = []
        for name, part in self.parts.items():
            if self._drawable(part):
                found += PANELS[part.layout.kind](self, name, part, style, mode, top)
        return found

    def patches(self, name: str, part: Attribution, style: Style, mode: str, top: int):
        """Return the panels of a stream of patches: the image, and its map over it."""
        image, heat = self.heat(part)
        return [image_panel("input", image), heat_panel(name, image, heat, style)]

    def regions(self, name: str, part: Attribution, style: Style, mode: str, top: int):
        """Return the panel of a stream of regions, on a blank canvas where no image is known."""
        title = name if self.image is not None else "regions"
        present, relevance = part.layout.present[self.i], self._relevance(part)
        places = self._places(part.layout)
        return [region_panel(title, self.image, places, relevance, present, mode=mode, top=top)]

    def heat(self, part: Attribution):
        """Return the image (H, W, 3) of a stream of patches and its map (H, W)."""
        image = displayable(part.inputs[self.i].float(), self._pixels())
        heat = part.pixels if part.layout.grid is None else part.heatmap()
        return image, (heat[self.k] if self.several else heat)[self.i].float().cpu()

    def rows(self, level: str = "word", reduce: str = "max", answers: int = 3) -> list[TextRow]:
        """Return a row of coloured text for each text."""
        if not isinstance(answers, int) or isinstance(answers, bool) or answers < 0:
            raise OptionError(f"answers is {answers!r}; expected how many to show, 0 or more.")
        method = all_methods().get(self.att.method)
        sign = None if method is None else sign_of(self.att.method, self.att.options)
        pairwise, found = self.pairwise, []
        for name, part in self.texts.items():
            chance, target = self.chance(), self.name(self.target)
            other = self.against()
            non_negative = sign is not None and sign.non_negative and name != AGAINST
            found.append(
                TextRow(
                    self._scores(part, level, reduce),
                    {AGAINST: "against", "text": "text" if pairwise else "question"}.get(
                        name, name
                    ),
                    "" if pairwise else target if other is None else f"{target} not {other}",
                    None if name == AGAINST else chance,
                    COUNTED_AGAINST if name == AGAINST else sign.note if sign else "",
                    None if sign is None else not non_negative,
                    () if pairwise or found else tuple(self._answers(answers)),
                    method is None or method.class_specific,
                    None if name == AGAINST else self.att.value(self.i, self.target),
                )
            )
        return found

    @property
    def pairwise(self) -> bool:
        """Whether the classes are the texts (CLIP), so that a text is explained and no answer."""
        ids = self.att.inputs.get("input_ids")
        pixels = self.att.inputs.get("pixel_values")
        if ids is None or pixels is None or "text" not in self.parts:
            return False
        if tuple(self.att.logits.shape) != (len(pixels), len(ids)):
            return False
        chosen = self.att.target.flatten()
        own = self.parts["text"].layout.ids
        return len(own) == len(chosen) and torch.equal(own, ids[chosen])

    def name(self, index: int) -> str:
        """Return the name of a class: the processor's, else the model's."""
        names = getattr(self.processor, "class_names", None)
        classes = self.att.logits.shape[1]
        if names and len(names) == classes > 1 and not self.pairwise:
            return names[index]
        return f"text {index}" if self.pairwise else self.att.class_name(index)

    def against(self) -> str | None:
        """Return the name of the class that the target is explained against, or None."""
        if self.att.against is None or self.target < 0:
            return None
        other = int(self.att.against.reshape(-1, len(self.att.logits))[self.k, self.i])
        return self.name(other) if other >= 0 else None

    def chance(self) -> float | None:
        """Return the probability of the target, None where it has none."""
        return self.att.probability(self.i, self.target)

    def _answers(self, count: int):
        if self.chance() is None:
            return ()
        chances = self.att.probabilities()[self.i]
        shown = chances.topk(min(count, len(chances))).indices.tolist()
        if count and self.target not in shown:
            shown.append(self.target)
        return ((self.name(j), float(chances[j])) for j in shown)

    def _drawable(self, part: Attribution) -> bool:
        """Whether a stream is an image: patches in a grid or pixels, regions with known boxes."""
        if part.layout.kind == "regions":
            return self._places(part.layout) is not None
        gridded = part.layout.kind == "patches" and part.layout.grid is not None
        return gridded or part.pixels is not None

    def _places(self, layout) -> Tensor | None:
        boxes = self.boxes if self.boxes is not None else layout.boxes
        if boxes is None:
            return None
        if len(boxes) != len(self.att.logits):
            raise InputError(
                f"boxes are of {len(boxes)} samples, the attribution of {len(self.att.logits)}."
            )
        return boxes[self.i]

    def _relevance(self, part: Attribution) -> Tensor:
        return (part.relevance[self.k] if part.relevance.dim() == 3 else part.relevance)[self.i]

    def _scores(self, part: Attribution, level: str, reduce: str) -> TextScores:
        layout = part.layout
        # A model that scores images with texts has a text for each target.
        place = self.i
        if len(layout.ids) > len(self.att.logits):
            place = self.k * len(self.att.logits) + self.i
        if layout.texts is None or layout.offsets is None:
            return numbered(layout, part.relevance, place, self.k)
        scores = part.words(reduce) if level == "word" else part.tokens(specials=True)
        found = scores[place]
        if found.scores.dim() == 2:
            found = TextScores(
                found.texts, found.labels, found.spans, found.segments, found.scores[self.k]
            )
        return found

    def _pixels(self):
        """Return what undoes the normalisation of pixels."""
        images = getattr(self.processor, "images", self.processor)
        return images if hasattr(images, "denormalize") else None


# The panels of a stream by its kind; texts are rows beside them.
PANELS = {"patches": Drawn.patches, "regions": Drawn.regions}
