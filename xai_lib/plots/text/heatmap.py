"""Rows of scored text as one object: shown in notebooks, saved as a page, LaTeX or a picture."""

from __future__ import annotations

import io
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xai_lib.files.writing import saveable, write_text, written
from xai_lib.plots.text.figure import text_figure
from xai_lib.plots.text.html import text_html
from xai_lib.plots.text.latex import text_latex
from xai_lib.plots.text.rows import as_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = (".png", ".pdf", ".svg")
SUFFIXES = (".html", ".tex", *PICTURES)
DPI = 150


@dataclass
class TextHeatmap:
    """Scored texts, displayed as HTML where HTML is shown and as a picture everywhere else.

    rows: see `as_rows`; a cell's last line of a notebook displays the object.
    """

    rows: object
    title: str = ""

    def __post_init__(self):
        self.rows = tuple(as_rows(self.rows))

    def html(self) -> str:
        """Return the rows as an HTML element (`text_html`)."""
        return text_html(self.rows, self.title)

    def latex(self, document: bool = False) -> str:
        """Return the rows as LaTeX (`text_latex`)."""
        return text_latex(self.rows, self.title, document)

    def figure(self, **layout) -> Figure:
        """Return the rows as a matplotlib figure (`text_figure`)."""
        return text_figure(self.rows, self.title, **layout)

    def save(self, path: str | Path) -> Path:
        """Save as .html (a whole page), .tex (a whole document), .png, .pdf or .svg.

        Whole or not at all. Raises OptionError for another suffix, InputError for a missing folder.
        """
        path = saveable(path, SUFFIXES)
        if path.suffix == ".html":
            write_text(path, page(self.html()))
        elif path.suffix == ".tex":
            write_text(path, self.latex(document=True))
        else:
            with written(path) as partial:
                self.figure().savefig(partial, format=path.suffix[1:], dpi=DPI)
        return path

    def _repr_mimebundle_(self, include=None, exclude=None):
        figure = self.figure()
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=DPI)
        encoded = b64encode(picture.getvalue()).decode()
        width, height = (round(100 * inches) for inches in figure.get_size_inches())
        # GitHub shows the HTML of a notebook without any style, which hides no element there: a
        # reader who gets no colours gets the picture.
        hidden = f'<img style="display:none" alt="" src="data:image/png;base64,{encoded}">'
        data = {
            "text/html": self.html() + hidden,
            "image/png": encoded,
            "text/plain": "\n".join(" ".join(row.scores.texts) for row in self.rows),
        }
        return data, {"image/png": {"width": width, "height": height}}


def page(body: str) -> str:
    """Return a whole HTML page of an element."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Text heat map</title>'
        f'</head>\n<body style="background:#ffffff">{body}</body></html>\n'
    )
