"""The explorer of attention heads: what each counts, and the model without some of them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from xai_lib.errors import InputError, OptionError, unknown_name
from xai_lib.explainers import registry
from xai_lib.heads.ranking import ORDERS
from xai_lib.heads.scores import METHODS
from xai_lib.plots.heads import head_grids, head_panel, panel_height, scale_of
from xai_lib.plots.sheet import Band, Panel, bar_panel, sheet_figure
from xai_lib.plots.text.html import text_html
from xai_lib.plots.text.rows import TextRow, number
from xai_lib.widgets.base import Live
from xai_lib.widgets.head_grid import HeadGridBox
from xai_lib.widgets.head_state import Head, HeadChoice, HeadSession, picture_of, toggled
from xai_lib.widgets.picture import png
from xai_lib.widgets.stream_controls import HeadControls

WIDTH = 6.9


class HeadExplorer(Live):
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
        if not isinstance(top, int) or isinstance(top, bool) or top < 1:
            raise OptionError(f"top is {top!r}; expected how many classes to show, 1 or more.")
        self.session, self.top = HeadSession(model, processor, samples, options), top
        first = next(iter(self.session.samples))
        chosen = self.session.index(first, target)
        self.choice = HeadChoice(first, known.name, score, order, fraction, chosen)
        pruned = self.session.by_fraction(self.choice, fraction)
        self.choice = replace(self.choice, pruned=pruned)
        self.controls = HeadControls.made(list(self.session.samples), METHODS, method)
        self.controls.score.value, self.controls.order.value = score, order
        self.controls.fraction.value = fraction
        self.grid = HeadGridBox(self.session.scores(self.choice).sites, self._guarded("head"))
        self.controls.grids.children = [self.grid.box]
        self.controls.restore.on_click(lambda _: self._guarded("restoring")({"new": None}))
        self._start()

    def mask(self):
        """Return the `HeadMask` of what is pruned, for `xai.prune_heads`."""
        return self.session.mask(self.choice)

    def panels(self) -> list[Panel]:
        """Return the maps of the whole and the pruned model, and the bars of both."""
        found = []
        for name, view in self._views():
            if view.att is not None:
                panels, _ = picture_of(self.session, self.choice, view.att)
                found += [replace(panel, title=name) for panel in panels[-1:]]
        return [*found, self._bars()]

    def rows(self) -> list[TextRow]:
        """Return the coloured texts of the whole and of the pruned model."""
        found = []
        for name, view in self._views():
            if view.att is not None:
                _, rows = picture_of(self.session, self.choice, view.att)
                found += [replace(row, title=name) for row in rows]
        return found

    def figure(self):
        """Return the matplotlib figure of what is shown, with the heads."""
        scores = self.session.scores(self.choice)
        grids = head_grids(scores, self.mask(), 0)
        side, bound = panel_height(grids), scale_of(grids)
        heads = Band([head_panel(grid, bound, side) for grid in grids], height=side)
        note = (
            f"Heads: {self.choice.score}, from −{number(bound)} (blue) to {number(bound)} (red); "
            "hatched ones are pruned."
        )
        bands = [heads, Band(self.panels(), self.rows())]
        return sheet_figure(bands, f"{self.choice.sample}: {self.choice.method}", WIDTH, note)

    # -- one method per control -------------------------------------------------------------------

    def _on_sample(self, name: str) -> None:
        self.session.reading(name)
        self._change(sample=name, target=None)
        self._offer_targets()

    def _on_target(self, index: int | None) -> None:
        self._change(target=index)

    def _on_method(self, method: str) -> None:
        self._change(method=method)

    def _on_score(self, score: str) -> None:
        self._change(score=score)

    def _on_order(self, order: str) -> None:
        self._change(order=order)

    def _on_fraction(self, fraction: float) -> None:
        self._change(fraction=fraction)

    def _on_head(self, head: Head) -> None:
        pruned = toggled(self.choice.pruned, head)
        if pruned >= self.session.heads(self.choice):
            raise InputError("This is the last head; leave at least one.")
        self.choice = replace(self.choice, fraction=None, pruned=pruned)

    def _on_restoring(self, _) -> None:
        self._change(fraction=0.0)
        self.controls.fraction.value = 0.0

    def _change(self, **changes) -> None:
        """Change the choice; ranked again unless heads were chosen by hand."""
        choice = replace(self.choice, **changes)
        if choice.fraction is not None:
            choice = replace(choice, pruned=self.session.by_fraction(choice, choice.fraction))
        self.session.scores(choice)
        self.choice = choice

    # -- from a choice to the picture -------------------------------------------------------------

    def _fill(self) -> None:
        self._offer_targets()

    def _offer_targets(self) -> None:
        source = self.choice.source
        chances = self.session.probabilities(source)
        found = [(f"{self.session.class_name(i)}  {chances[i]:.1%}", i)
                 for i in self.session.ranked(source)]  # fmt: skip
        self.controls.target.options = [self.controls.target.options[0], *found]
        self.controls.target.value = self.choice.target

    def _views(self):
        whole = ("whole model", self.session.whole(self.choice))
        if not self.choice.pruned:
            return [whole]
        return [whole, ("pruned model", self.session.view(self.choice))]

    def _bars(self) -> Panel:
        before, after = (
            torch.softmax(view.logits.cpu(), -1)
            for view in (self.session.whole(self.choice), self.session.view(self.choice))
        )
        target = self.session.target(self.choice)
        wanted = [target, int(after.argmax()), *before.argsort(descending=True).tolist()]
        shown = list(dict.fromkeys(wanted))[: max(self.top, 2)]
        shown.sort(key=lambda i: -float(before[i]))
        rows = [(self.session.class_name(i), float(before[i]), float(after[i])) for i in shown]
        return bar_panel("probability", rows, shown.index(target))

    def _draw(self) -> str:
        self.session.view(self.choice)
        scores = self.session.scores(self.choice)
        self.grid.show(head_grids(scores, self.mask(), 0))
        self.controls.picture.value = png(sheet_figure([Band(self.panels())], "", WIDTH))
        rows = self.rows()
        self.controls.page.value = text_html(rows) if rows else ""
        return self._said()

    def _refusal(self) -> str:
        return self.session.view(self.choice).refusal

    def _said(self) -> str:
        view, total = self.session.view(self.choice), len(self.session.heads(self.choice))
        chances = torch.softmax(view.logits, -1)
        answer, target = int(chances.argmax()), self.session.target(self.choice)
        how = "by hand" if self.choice.fraction is None else f"by {self.choice.score}"
        name, asked = self.session.class_name(answer), self.session.class_name(target)
        return (
            f"{self.choice.sample}: {len(self.choice.pruned)} of {total} heads pruned {how}; "
            f"prediction {name}, P({asked}) = {float(chances[target]):.1%}"
        )
