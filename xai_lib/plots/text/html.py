"""Text heat maps as HTML: exact text, explicit colours, no script and nothing from elsewhere."""

from __future__ import annotations

from html import escape

from xai_lib.plots.text.colours import CHOSEN, INK, OTHER, as_hex, colour, ink
from xai_lib.plots.text.pieces import pieces
from xai_lib.plots.text.rows import TextRow, as_rows, number, printable, summary_notes

# Every colour is said, so that a page in dark mode changes neither paper nor ink.
CARD = (
    "background:#ffffff;color:#1e293b;border:1px solid #cbd5e1;border-radius:6px;padding:10px 14px;"
    "margin:4px 0;font:15px/1.75 system-ui,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;"
    "max-width:900px;box-sizing:border-box;color-scheme:light"
)
TEXT = "white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:isolate;margin:2px 0 8px"
SMALL = "font-size:12px;line-height:1.4;color:#475569"
CHIP = "font-size:11px;margin:0 3px;border:1px solid #94a3b8;border-radius:3px"


def text_html(rows, title: str = "", columns: int = 1) -> str:
    """Return rows as one HTML element: a block a row with its text, coloured unit by unit.

    rows: see `as_rows`; columns: how many stand side by side. Red is positive, blue negative, white
    zero; each row has a scale of its own from -max|score| to max|score|, which its legend states
    with what the sign means. Tooltips hold the numbers. All text is escaped and keeps its white
    space; each text takes the direction of its own script, isolated from what surrounds it.
    """
    rows = as_rows(rows)
    head = f'<div style="font-weight:600"><bdi>{_safe(title)}</bdi></div>' if title else ""
    wide = CARD if columns == 1 else f"{CARD};max-width:1200px"
    grid = f"display:grid;gap:0 24px;grid-template-columns:repeat({columns},minmax(0,1fr))"
    blocks = f'<div style="{grid}">{"".join(map(_block, rows))}</div>'
    return f'<div style="{wide}">{head}{blocks}{_notes(rows)}</div>'


def _block(row: TextRow) -> str:
    name = f"<b><bdi>{_safe(row.title)}</bdi></b> " if row.title else ""
    about = f"<bdi>{_safe(row.heading)}</bdi>" if row.heading else ""
    head = f'<div style="font-size:13px;display:flow-root">{name}{about} {_scale(row)}</div>'
    texts = (f'<div dir="auto" style="{TEXT}">{_text(row, cut)}</div>' for cut in pieces(row))
    return f"<section>{head}{''.join(texts)}{_bars(row)}</section>"


def _text(row: TextRow, cut) -> str:
    return "".join(_unit(row, piece) if piece.units else _safe(piece.text) for piece in cut)


def _unit(row: TextRow, piece) -> str:
    background = colour(row.strength(piece.score))
    style = f"background:{as_hex(background)};color:{as_hex(ink(background))}"
    if piece.special:
        style += f";{CHIP}"
    title = escape(printable(piece.told).replace("\n", " "), quote=True)
    # No element of its own direction: the words of a sentence are ordered together.
    return f'<span style="{style}" title="{title}">{_safe(piece.text)}</span>'


def _scale(row: TextRow) -> str:
    if not len(row.scores):
        return ""
    shades = [as_hex(colour(s / 4)) for s in (range(-4, 5) if row.signed else range(0, 5))]
    chips = "".join(
        f'<span style="background:{shade};color:{shade}">&nbsp;&nbsp;</span>' for shade in shades
    )
    low = f"−{number(row.bound)}" if row.signed and row.bound else "0"
    return (
        f'<span style="{SMALL};float:right;white-space:nowrap" '
        f'title="colour scale: largest |score| of this row">{low} '
        f'<span style="border:1px solid #cbd5e1">{chips}</span> {number(row.bound)}</span>'
    )


def _bars(row: TextRow) -> str:
    lines = []
    for name, chance in row.chances:
        shade = CHOSEN if name == row.target else OTHER
        bar = f"display:inline-block;height:10px;width:{100 * chance:.1f}%;background:{shade}"
        lines.append(
            f'<div style="display:flex;gap:8px;align-items:center">'
            f'<span style="width:32%;color:{CHOSEN if name == row.target else INK};'
            f'overflow:hidden;text-overflow:ellipsis;white-space:nowrap"><bdi>{_safe(name)}</bdi></span>'
            f'<span style="flex:1"><span style="{bar}"></span></span>'
            f'<span style="width:52px;text-align:right">{chance:.1%}</span></div>'
        )
    if not lines:
        return ""
    return f'<div style="{SMALL};max-width:420px;margin-bottom:8px">{"".join(lines)}</div>'


def _notes(rows: list[TextRow]) -> str:
    found = summary_notes(rows)
    if not found:
        return ""
    several = len(found) > 1
    lines = (
        f"<div>{f'<b><bdi>{_safe(who)}</bdi></b>. ' if several and who else ''}{_safe(note)}</div>"
        for who, note in found
    )
    return (
        f'<div style="{SMALL};border-top:1px solid #e2e8f0;padding-top:4px">{"".join(lines)}</div>'
    )


def _safe(text: str) -> str:
    return escape(printable(text), quote=True)
