"""A button for each attention head, coloured by its score, marked where it is pruned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

import ipywidgets as w
import numpy as np

from xai_lib.heads.ranking import ScoredSite
from xai_lib.plots.heads import HeadGrid, scale_of, site_label
from xai_lib.plots.text.colours import as_hex, colour
from xai_lib.plots.text.rows import number

# Shades of a strength from -1 to 1. Pale enough that dark letters stand out on all of them.
STEPS, PALE, GONE = 8, 0.55, "#cbd5e1"


class HeadGridBox:
    """`box` holds a grid of buttons a stream; a click calls `changed({"new": (call, head)})`.

    Widgets of both supported versions of ipywidgets: a plain button has a colour in either.
    """

    def __init__(self, sites: Sequence[ScoredSite], changed: Callable[[dict], None]):
        """Make a button for each head of `sites`."""
        self.buttons: dict[tuple[int, int], w.Button] = {}
        # Shared, since a model of many heads would have as many layouts and styles otherwise.
        layout = w.Layout(width="46px", height="26px", margin="1px", padding="0")
        self._styles = {
            step: _style(as_hex(colour(PALE * step / STEPS))) for step in range(-STEPS, STEPS + 1)
        }
        self._gone = _style(GONE)
        columns = []
        for stream in dict.fromkeys(site.stream for site in sites):
            rows = [site for site in sites if site.stream == stream]
            width = max(site.heads for site in rows)
            cells: list[w.Widget] = []
            for site in rows:
                cells.append(w.HTML(escape(site_label(site)), layout=w.Layout(margin="0 8px 0 0")))
                cells += [self._button(site, head, layout, changed) for head in range(site.heads)]
                cells += [w.HTML() for _ in range(width - site.heads)]
            template = f"max-content repeat({width}, 48px)"
            grid = w.GridBox(cells, layout=w.Layout(grid_template_columns=template))
            columns.append(w.VBox([grid], layout=w.Layout(margin="0 24px 8px 0")))
        self.box = w.HBox(columns, layout=w.Layout(flex_flow="row wrap"))

    def show(self, grids: Sequence[HeadGrid]) -> None:
        """Colour the buttons by the scores of `grids` and mark the heads that are pruned."""
        bound = scale_of(list(grids))
        for grid in grids:
            for site, values, kept in zip(grid.sites, grid.values, grid.kept, strict=True):
                for head in range(site.heads):
                    button = self.buttons[site.call, head]
                    self._show(button, site, head, values[head], bool(kept[head]), bound)

    def _button(self, site: ScoredSite, head: int, layout: w.Layout, changed) -> w.Button:
        button = w.Button(layout=layout, disabled=not site.reached)
        button.on_click(lambda _, place=(site.call, head): changed({"new": place}))
        self.buttons[site.call, head] = button
        return button

    def _show(self, button, site: ScoredSite, head: int, value, kept: bool, bound: float) -> None:
        where = f"{site_label(site)}, head {head}"
        if np.isnan(value):
            button.description, button.tooltip = "–", f"{where}: the prediction does not read it"
            button.style = self._gone
            return
        # The mark says it as well as the colour, for whoever sees or prints none.
        button.description = str(head) if kept else f"✕ {head}"
        state = "click to prune" if kept else "pruned, click to restore"
        button.tooltip = f"{where}: score {number(float(value))}, {state}"
        button.style = self._styles[round(STEPS * float(value) / bound)] if kept else self._gone


def _style(background: str) -> w.ButtonStyle:
    style = w.ButtonStyle(button_color=background)
    if style.has_trait("text_color"):
        # Said, or a dark theme would write white on pale colours. ipywidgets 7 knows no such trait.
        style.text_color = "#0f172a"
    return style
