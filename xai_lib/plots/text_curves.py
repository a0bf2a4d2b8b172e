"""Curves of texts: words deleted, tokens perturbed, words kept as rationale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pandas import DataFrame

from xai_lib.plots.curves import drawn_curves
from xai_lib.plots.style import styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def word_deletion_curves(
    frame: DataFrame,
    published: DataFrame | None = None,
    x: Sequence[float] | None = None,
    panels: Sequence[str] = (),
) -> Figure:
    """Return accuracy over the number of deleted words (Wu & Ong 2021, section 3.2.2).

    frame: columns method, `panels`, step, value, low, high; accuracy in [0, 1]. x: words deleted at
    step 0, 1, ...; by default step + 1. published: columns method, `panels`, step, value, drawn
    as thin dashes in the colour of the same method; a method that `frame` lacks is left out.
    """
    x = range(1, int(frame["step"].max()) + 2) if x is None and "step" in frame else x
    label = "tokens deleted (k)"
    figure = drawn_curves(frame, None, x, panels, label, "accuracy (%)", percent=True, counted=True,
                     published=published)  # fmt: skip
    return _whole_numbers(figure)


@styled
def text_perturbation_curves(
    frame: DataFrame,
    auc: DataFrame | None = None,
    x: Sequence[float] | None = None,
    panels: Sequence[str] = ("order",),
    published: DataFrame | None = None,
) -> Figure:
    """Return accuracy over the share of tokens removed, a panel each order.

    frame, auc, x: as of `perturbation_curves`; x is the share removed, in [0, 1], at each step.
    published: as of `word_deletion_curves`.
    """
    return drawn_curves(frame, auc, x, panels, "tokens removed (%)", "accuracy (%)", percent=True,
                   published=published)  # fmt: skip


@styled
def rationale_curves(
    frame: DataFrame,
    x: Sequence[float] | None = None,
    panels: Sequence[str] = (),
    ylabel: str = "token F1 (%)",
    published: DataFrame | None = None,
) -> Figure:
    """Return token F1 over the number k of words kept as rationale (ERASER's evidence).

    frame: columns method, `panels`, step, value, low, high; F1 in [0, 1]. x: k at step 0, 1, ...,
    such as 5, 10, ..., 80. published: as of `word_deletion_curves`.
    """
    label = "words kept (k)"
    figure = drawn_curves(frame, None, x, panels, label, ylabel, percent=True, counted=True,
                          published=published)  # fmt: skip
    return _whole_numbers(figure)


def _whole_numbers(figure: Figure) -> Figure:
    from matplotlib.ticker import MaxNLocator

    for axes in figure.axes:
        if axes.lines and axes.axison:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    return figure
