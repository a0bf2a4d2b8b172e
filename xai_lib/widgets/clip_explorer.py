"""The explorer of models that score images with texts."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from xai_lib.errors import TargetError
from xai_lib.explainers import registry
from xai_lib.plots import Style
from xai_lib.plots.pairs import Drawn
from xai_lib.plots.regions import rgb
from xai_lib.plots.sheet import Band, Panel, heat_panel, image_panel, sheet_figure
from xai_lib.plots.text.rows import TextRow
from xai_lib.widgets.base import Sheets
from xai_lib.widgets.choice import Choice, Scored
from xai_lib.widgets.class_explorer import ClassExplorer, WithImages, checked_style
from xai_lib.widgets.controls import pair_controls
from xai_lib.widgets.named import short, text_lines_of, text_number
from xai_lib.widgets.session import Session
from xai_lib.widgets.sources import ScoredImages


class CLIPExplorer(Sheets, WithImages, ClassExplorer):
    """Choose an image and a text, and see what speaks for their score; drag to another text.

    model, processor: as `xai.load` returns them for CLIP-type models. images: as of
    `ImageExplorer`; texts: a list, or one string with a text a line; both can be changed.
    target, against: a text or its number; None for the text that fits best, and for no other text.
    With another text B, the maps of A, of B and of the difference of their scores A − B are shown,
    and a slider mixes the maps of A and B: (1 − t) A + t B. This is the map of the mixed score only
    where a method is linear in the score, as gradients are; A − B is computed as such, not as a
    difference of maps. `explorer.choice` says what is shown, `explorer.figure()` draws it.
    Raises InputError, OptionError, TargetError; a method that does not apply is told inside.
    """

    # Inches: five pictures side by side.
    width = 8.6

    def __init__(
        self,
        model: nn.Module,
        processor,
        images,
        texts,
        method: str = "transformer_attribution",
        target: int | str | None = None,
        against: int | str | None = None,
        *,
        opacity: float = Style.opacity,
        **options,
    ):
        """Read the images, score the texts and make the controls."""
        ScoredImages.check(processor)
        known = registry.find(method, options)
        self.style = checked_style(opacity)
        texts = text_lines_of(texts)
        self.session = Session(model, ScoredImages(processor, images), options)
        names = list(self.session.sources.named)
        chosen, other = text_number(texts, target), text_number(texts, against)
        first = Scored(names[0], texts)
        self.choice = Choice(first, known.name, chosen, against=other)
        if other is not None and other == self.session.target(self.choice):
            raise TargetError(f"against is {against!r}, the explained text itself.")
        self.controls = pair_controls(names, texts, method, self.style)
        self._start()

    def choices(self) -> list[Choice]:
        """Return what is explained: A, and with another text B also B and A − B."""
        a, b = self.session.target(self.choice), self.choice.against
        first = replace(self.choice, target=a, against=None)
        if b is None:
            return [first]
        return [first, replace(first, target=b), replace(first, against=b)]

    def panels(self) -> list[Panel]:
        """Return the pictures: the image and the map of each choice, and the mix of A and B."""
        found, drawn = [], [self._drawn(choice) for choice in self.choices()]
        for name, one in zip(("A", "B", "A − B"), drawn, strict=False):
            if one is not None:
                *images, heat = one.panels(self.style)
                found += images if not found else []
                found.append(replace(heat, title=name))
        if not found:
            found.append(image_panel("input", rgb(self._image())))
        t = self.controls.mix.value
        if self.choice.against is not None and drawn[0] is not None and drawn[1] is not None:
            (image, a), (_, b) = (one.heat(one.parts["image"]) for one in drawn[:2])
            name = f"{1 - t:.0%} A + {t:.0%} B"
            found.append(heat_panel(name, image, (1 - t) * a + t * b, self.style))
        return found

    def rows(self) -> list[TextRow]:
        """Return the coloured texts, the first with the probability of every text."""
        found, source = [], self.choice.source
        for name, choice in zip(("A", "B", "A − B"), self.choices(), strict=False):
            drawn = self._drawn(choice)
            if drawn is None:
                continue
            for place, row in enumerate(drawn.rows(self.controls.level.value, answers=0)):
                part = f"{name}: {'AB'[place]}" if choice.against is not None else name
                target = short(self.session.class_name(source, choice.target), 60)
                whole = choice.against is None
                found.append(
                    replace(
                        row,
                        title=part,
                        target=target if whole else "",
                        probability=row.probability if whole else None,
                        value=row.value if whole else None,
                    )
                )
        if found:
            bars = self.session.bars(source, range(len(source.texts)))
            found[0] = replace(found[0], chances=tuple((short(t, 60), c) for t, c in bars))
        return found

    def figure(self):
        """Return the matplotlib figure of what is shown."""
        title = f"{self._subject()}: {self.choice.method}"
        return sheet_figure([Band(self.panels(), self.rows())], title, self.width)

    # -- one method per control -------------------------------------------------------------------

    def _on_image(self, name: str) -> None:
        self._choose(source=self.choice.source._replace(image=name))
        self._offer_classes()

    def _on_texts(self, value: str) -> None:
        source = self.choice.source._replace(texts=text_lines_of(value))
        # Scored before anything changes, so that a text which is too long changes nothing.
        self.session.reading(source)
        self._choose(source=source, target=None, against=None)
        self._offer_classes()

    def _on_target(self, index: int | None) -> None:
        super()._on_target(index)
        self._offer_against()

    def _on_against(self, index: int | None) -> None:
        # A is held, or another image would let it become B.
        target = self.session.target(self.choice) if index is not None else self.choice.target
        self._choose(against=index, target=target)
        self.controls.mix.disabled = index is None

    # -- from a choice to the picture -------------------------------------------------------------

    def _offer_classes(self) -> None:
        super()._offer_classes()
        self._offer_against()

    def _offer_against(self) -> None:
        chosen, texts = self.session.target(self.choice), self.choice.source.texts
        if self.choice.against == chosen:
            self._choose(against=None)
        others = [(short(text), i) for i, text in enumerate(texts) if i != chosen]
        self.controls.against.options = [self.controls.against.options[0], *others]
        self.controls.against.value = self.choice.against
        self.controls.mix.disabled = self.choice.against is None

    def _drawn(self, choice: Choice) -> Drawn | None:
        att = self.session.view(choice).att
        return None if att is None else Drawn(att, self.session.processor)

    def _image(self):
        return self.session.sources.taken[self.choice.source.image]

    def _shown(self) -> list[Choice]:
        return self.choices()

    def _subject(self) -> str:
        return self.choice.source.image
