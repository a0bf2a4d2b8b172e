"""The explorer of attention heads: what each counts, and the model without some of them."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from xai_lib.attribution import Attribution
from xai_lib.errors import InputError, unknown_name
from xai_lib.explainers import registry
from xai_lib.heads.ranking import ORDERS
from xai_lib.heads.scores import METHODS
from xai_lib.plots import attribution_texts, displayable
from xai_lib.plots.heads import head_grids, head_panel, panel_height, scale_of
from xai_lib.plots.pairs import Drawn
from xai_lib.plots.sheet import Band, Panel, bar_panel, heat_panel, sheet_figure
from xai_lib.plots.text.rows import TextRow, number
from xai_lib.widgets.base import Sheets
from xai_lib.widgets.choice import Choice, Head, View, heat_of
from xai_lib.widgets.class_explorer import checked_top
from xai_lib.widgets.controls import head_controls
from xai_lib.widgets.head_grid import HeadGridBox
from xai_lib.widgets.ranked_heads import RankedHeads
from xai_lib.widgets.session import Session
from xai_lib.widgets.sources import sources_for


class HeadExplorer(Sheets):
    """Prune attention heads by their scores or by hand, and see what the model still knows.

    model, processor: as `xai.load` returns them for images, texts or questions. samples: images,
    texts or `QuestionSample`s, one, a list or {name: sample}. method: of the explanation;
    **options: passed to it. score: of the heads ("grad_x_attention", "lrp", "taylor", "random").
    target: class number or name, or None for what the whole model predicts. fraction, order: what
    is pruned at first ("negative": the least first). top: how many classes the bars show.
    A button a head, coloured by its score (red above zero, blue below) and marked ✕ where it is
    pruned, prunes it or restores it; the slider prunes a fraction by score. The explanation is that
    of the pruned model, for the class that the whole one was asked for. `explorer.choice` says what
    is shown, `explorer.mask()` is the mask, `explorer.figure()` draws all.
    Raises InputError, OptionError, TargetError, UnsupportedModelError.
    """

    def __init__(
        self,
        model: nn.Module,
        processor,
        samples,
        method: str = "generic_attention",
        score: str = "grad_x_attention",
        target: int | str | None = None,
        *,
        fraction: float = 0.0,
        order: str = "negative",
        top: int = 4,
        **options,
    ):
        """Score the heads of the first sample and make the controls."""
        known = registry.find(method, options)
        for kind, name, names in (("head score", score, METHODS), ("order", order, ORDERS)):
            if name not in names:
                raise unknown_name(kind, name, names)
        self.top = checked_top(top)
        self.session = Session(model, sources_for(processor, samples), options)
        self.ranked = RankedHeads(self.session)
        named = self.session.sources.named
        first = next(iter(named.values()))
        chosen = self.session.index(first, target)
        self.choice = Choice(first, known.name, chosen, score=score, order=order, fraction=fraction)
        self._choose()
        self.controls = head_controls(list(named), METHODS, method)
        self.controls.score.value, self.controls.order.value = score, order
        self.controls.fraction.value = fraction
        self.grid = HeadGridBox(self.ranked.scores(self.choice).sites, self._guarded("head"))
        self.controls.grids.children = [self.grid.box]
        self.controls.restore.on_click(lambda _: self._guarded("restoring")({"new": None}))
        self._start()

    def mask(self):
        """Return the `HeadMask` of what is pruned, for `xai.prune_heads`."""
        return self.ranked.mask(self.choice)

    def panels(self) -> list[Panel]:
        """Return the maps of the whole and the pruned model, and the bars of both."""
        found = []
        for name, view in self._views():
            found += [replace(panel, title=name) for panel in self._drawn(view.att)[0]]
        return [*found, self._bars()]

    def rows(self) -> list[TextRow]:
        """Return the coloured texts of the whole and of the pruned model."""
        found, target = [], self.session.target(self.choice)
        about = self.session.class_name(self.choice.source, target)
        scale = self.session.reading(self.choice.source).scale
        for name, view in self._views():
            chance = scale.probability(view.logits, target)
            value = scale.value(view.logits, target)
            # A map that no class changes is remembered of whichever class was asked for first.
            said = {"title": name, "target": about, "probability": chance, "value": value}
            found += [replace(row, **said) for row in self._drawn(view.att)[1]]
        return found

    def figure(self):
        """Return the matplotlib figure of what is shown, with the heads."""
        scores = self.ranked.scores(self.choice)
        grids = head_grids(scores, self.mask(), 0)
        side, bound = panel_height(grids), scale_of(grids)
        heads = Band([head_panel(grid, bound, side) for grid in grids], height=side)
        note = (
            f"Heads: {self.choice.score}, from −{number(bound)} (blue) to {number(bound)} (red); "
            "hatched ones are pruned."
        )
        bands = [heads, Band(self.panels(), self.rows())]
        return sheet_figure(bands, f"{self._name()}: {self.choice.method}", self.width, note)

    # -- one method per control -------------------------------------------------------------------

    def _on_sample(self, name: str) -> None:
        source = self.session.sources.named[name]
        self.session.reading(source)
        self._choose(source=source, target=None)
        self._offer_targets()

    def _on_head(self, head: Head) -> None:
        pruned = self.choice.pruned ^ {head}
        if pruned >= self.ranked.heads(self.choice):
            raise InputError("This is the last head; leave at least one.")
        self.choice = replace(self.choice, fraction=None, pruned=pruned)

    def _on_restoring(self, _) -> None:
        self._choose(fraction=0.0)
        self.controls.fraction.value = 0.0

    def _choose(self, **changes) -> None:
        """Change the choice; ranked again unless heads were chosen by hand."""
        choice = replace(self.choice, **changes)
        if choice.fraction is not None:
            choice = replace(choice, pruned=self.ranked.by_fraction(choice))
        # Scored before anything changes, so that a score that is refused changes nothing.
        self.ranked.scores(choice)
        self.choice = choice

    # -- from a choice to the picture -------------------------------------------------------------

    def _fill(self) -> None:
        self._offer_targets()

    def _offer_targets(self) -> None:
        found = self.session.offered(self.choice.source)
        self.controls.target.options = [self.controls.target.options[0], *found]
        self.controls.target.value = self.choice.target

    def _whole(self) -> View:
        return self.session.view(replace(self.choice, pruned=frozenset()))

    def _views(self) -> list[tuple[str, View]]:
        whole = ("whole model", self._whole())
        if not self.choice.pruned:
            return [whole]
        return [whole, ("pruned model", self.session.view(self.choice))]

    def _drawn(self, att: Attribution | None) -> tuple[list[Panel], list[TextRow]]:
        """Return the map and the coloured texts of an explanation of whichever streams."""
        if att is None:
            return [], []
        processor, source = self.session.processor, self.choice.source
        if len(att.layouts.parts) > 1:
            sample = self.session.sources.sample(source)
            drawn = Drawn(att, processor, sample.image, sample.boxes[None])
            return drawn.panels()[-1:], drawn.rows(answers=0)
        if att.layout.kind == "words":
            return [], attribution_texts(att)
        image = displayable(att.inputs[0].float(), processor)
        return [heat_panel("", image, heat_of(att))], []

    def _bars(self) -> Panel:
        source, target = self.choice.source, self.session.target(self.choice)
        scale = self.session.reading(source).scale
        before, after = (
            scale.probabilities(view.logits.cpu()) if scale.has_chances else view.logits.cpu()
            for view in (self._whole(), self.session.view(self.choice))
        )
        wanted = [target, int(after.argmax()), *before.argsort(descending=True).tolist()]
        shown = list(dict.fromkeys(wanted))[: max(self.top, 2)]
        shown.sort(key=lambda i: -float(before[i]))
        rows = [
            (self.session.class_name(source, i), float(before[i]), float(after[i])) for i in shown
        ]
        title = "probability" if scale.has_chances else "score"
        return bar_panel(title, rows, shown.index(target), not scale.has_chances)

    def _draw(self) -> None:
        # Explained first: buttons say nothing of a choice that cannot be shown.
        self.session.view(self.choice)
        self.grid.show(head_grids(self.ranked.scores(self.choice), self.mask(), 0))
        super()._draw()

    def _said(self) -> str:
        view, total = self.session.view(self.choice), len(self.ranked.heads(self.choice))
        source, target = self.choice.source, self.session.target(self.choice)
        name = self.session.class_name(source, int(view.logits.argmax()))
        how = "by hand" if self.choice.fraction is None else f"by {self.choice.score}"
        return (
            f"{self._name()}: {len(self.choice.pruned)} of {total} heads pruned {how}; "
            f"prediction {name}, {self.session.said(source, target, view.logits)}"
        )

    def _name(self) -> str:
        return self.session.sources.name(self.choice.source)
