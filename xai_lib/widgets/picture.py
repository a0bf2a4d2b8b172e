"""The picture of an explorer: the image, the map over it, and the likeliest classes."""

from __future__ import annotations

import io
import textwrap

import torch

from xai_lib.plots import Style, colours, displayable, overlay
from xai_lib.widgets.choice import Choice
from xai_lib.widgets.session import Session

WIDTH, HEIGHT, DPI = 9.6, 4.05, 110
# Left, bottom, width, height. Fixed, so that nothing moves when another method or class is chosen.
PLACES = ((0.01, 0.13, 0.31, 0.735), (0.345, 0.13, 0.31, 0.735), (0.81, 0.13, 0.18, 0.735))
CHOSEN, OTHER, INK, PALE = "#c2410c", "#94a3b8", "#1e293b", "#64748b"


def draw(session: Session, choice: Choice, style: Style, top: int = 5):
    """Return the matplotlib figure of a choice: image, map, bars of the `top` likeliest classes.

    Made without pyplot, so that no backend opens or displays it a second time.
    """
    from matplotlib.figure import Figure

    view = session.view(choice)
    pixels = session.inputs(choice.source)["pixel_values"][0]
    image = displayable(pixels.float(), session.processor)
    figure = Figure(figsize=(WIDTH, HEIGHT))
    left, middle, right = (figure.add_axes(place) for place in PLACES)
    _titled(left, choice.source, "input")
    left.imshow(image, interpolation="nearest")
    _titled(middle, view.title, view.note)
    heat = view.heat
    if heat is None:
        _sentence(middle, view.refusal, image.shape)
    else:
        middle.imshow(overlay(image, heat, style), interpolation="nearest")
        _scale(middle, heat, style, view.quantity)
    _bars(right, session, choice, top)
    return figure


def png(figure) -> bytes:
    """Return the figure as PNG, at a resolution that is sharp on the screen it is shown on."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white")
    return buffer.getvalue()


def short(text: str, length: int) -> str:
    """Return the first of several synonyms, cut to `length` characters."""
    first = text.split(", ")[0]
    return first if len(first) <= length else first[: length - 1].rstrip() + "…"


def _titled(axes, title: str, note: str) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    # A class called "$x$" is a name, not a formula.
    axes.set_title(short(title, 28), fontsize=11, color=INK, pad=22, parse_math=False)
    axes.text(
        0.5,
        1.03,
        textwrap.shorten(note, 46, placeholder=" …"),
        transform=axes.transAxes,
        ha="center",
        fontsize=8.5,
        color=PALE,
        parse_math=False,
    )


def _sentence(axes, text: str, shape: tuple[int, ...]) -> None:
    axes.set(xlim=(0, shape[1]), ylim=(shape[0], 0), aspect="equal", facecolor="#f8fafc")
    axes.text(
        0.5,
        0.5,
        textwrap.fill(text, 36),
        transform=axes.transAxes,
        ha="center",
        va="center",
        fontsize=7.5,
        color=INK,
        parse_math=False,
    )


def _scale(axes, heat: torch.Tensor, style: Style, quantity: str) -> None:
    """Draw the colours of the map, from its lowest to its highest value, below it."""
    signed = style.signed if style.signed is not None else bool((heat < 0).any())
    high = float(heat.abs().max() if signed else heat.max())
    low = -high if signed else float(heat.min())
    ramp, _ = colours(torch.linspace(low, high, 128)[None], style)
    bar = axes.inset_axes((0, -0.075, 1, 0.035))
    bar.imshow(ramp, aspect="auto", extent=(0, 1, 0, 1))
    bar.set(yticks=[], xticks=[0, 0.5, 1])
    bar.set_xticklabels([f"{low:.2g}", "0" if signed else "", f"{high:.2g}"])
    bar.tick_params(labelsize=8, length=0, colors=PALE)
    for label, side in zip(bar.get_xticklabels(), ("left", "center", "right"), strict=True):
        label.set_horizontalalignment(side)
    bar.set_xlabel(quantity, labelpad=1 if signed else -9, fontsize=8, color=PALE)
    bar.spines[:].set_visible(False)


def _bars(axes, session: Session, choice: Choice, top: int) -> None:
    reading, chosen = session.reading(choice.source), session.target(choice)
    shown = session.likeliest(choice, top)
    scale, scores = reading.scale, reading.logits
    # Values are told, not drawn: they have no common end.
    values = [scale.probability(scores, i) or 0.0 for i in shown]
    axes.barh(
        range(len(shown)),
        values,
        color=[CHOSEN if i == chosen else OTHER for i in shown],
        height=0.62,
    )
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.28), xticks=[])
    axes.spines[:].set_visible(False)
    named = [short(session.class_name(choice.source, i), 17) for i in shown]
    axes.set_yticks(range(len(shown)), named)
    axes.tick_params(left=False, labelsize=9)
    for label, i in zip(axes.get_yticklabels(), shown, strict=True):
        label.set(color=CHOSEN if i == chosen else INK, parse_math=False)
    for row, value in enumerate(values):
        axes.text(
            value + 0.02, row, scale.said(scores, shown[row]), va="center", fontsize=8.5, color=INK
        )
    title = "probability" if scale.has_chances else "score"
    axes.set_title(title, fontsize=11, color=INK, pad=22, loc="left")
