"""Text heat maps as LaTeX that pdflatex compiles: a coloured box a unit, all text escaped."""

from __future__ import annotations

import re

from xai_lib.plots.text.colours import RGB, colour, ink
from xai_lib.plots.text.escapes import escaped
from xai_lib.plots.text.pieces import Piece, pieces
from xai_lib.plots.text.rows import TextRow, as_rows, number, summary_notes

PACKAGES = r"""\usepackage[T1]{fontenc}
\usepackage{xcolor}
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
"""
# \providecommand: a document may hold many fragments, and may define its own look.
MACROS = r"""\providecommand{\xaiunit}[3]{%
  {\fboxsep=0.6pt\colorbox[RGB]{#1}{\color[RGB]{#2}\strut #3}}}
\providecommand{\xaimissing}[1]{{\tiny\ttfamily U+#1}}
"""
# No box breaks over a line's end, so a longer unit becomes several.
LONGEST = 20


def text_latex(rows, title: str = "", document: bool = False) -> str:
    r"""Return rows as LaTeX: a block a row with its text, coloured unit by unit.

    rows: see `as_rows`. A fragment for \input needs \usepackage[T1]{fontenc} and {xcolor};
    document: a whole document instead. Red is positive, blue negative; each row has a scale of its
    own, stated with what the sign means. Line breaks and runs of spaces stay. See `escapes`
    on characters that pdflatex cannot print.
    """
    rows = as_rows(rows)
    parts = [MACROS, "\\begingroup\\raggedright\\setlength{\\parindent}{0pt}\n"]
    if title:
        parts.append(f"\\textbf{{{escaped(title)}}}\\par\n")
    parts += map(_block, rows)
    for who, note in summary_notes(rows):
        label = f"\\textbf{{{escaped(who)}}}. " if who and len(rows) > 1 else ""
        parts.append(f"{{\\footnotesize {label}{escaped(note)}\\par}}\n")
    parts.append("\\endgroup\n")
    body = "".join(parts)
    if not document:
        return "% In the preamble: \\usepackage[T1]{fontenc} \\usepackage{xcolor}\n" + body
    return (
        f"\\documentclass{{article}}\n{PACKAGES}\\pagestyle{{empty}}\n"
        f"\\begin{{document}}\n{body}\\end{{document}}\n"
    )


def _block(row: TextRow) -> str:
    name = f"\\textbf{{{escaped(row.title)}}} " if row.title else ""
    low = escaped(f"−{number(row.bound)}") if row.signed and row.bound else "0"
    steps = (-1.0, -0.5, 0.0, 0.5, 1.0) if row.signed else (0.0, 0.5, 1.0)
    chips = "".join(_box(colour(step), colour(step), "~") for step in steps)
    scale = f"{low}~{chips}~{escaped(number(row.bound))}"
    head = f"{name}{escaped(row.heading)}\\hfill{{\\footnotesize {scale}}}\\par\n"
    texts = "".join(f"{_text(row, cut)}\\par\n" for cut in pieces(row))
    return f"{head}{texts}\\smallskip\n"


def _text(row: TextRow, cut: list[Piece]) -> str:
    parts = []
    for piece in cut:
        if piece.units:
            background = colour(row.strength(piece.score))
            for place in range(0, len(piece.text), LONGEST):
                part = escaped(piece.text[place : place + LONGEST])
                # A line of its own each: TeX reads lines of some 200,000 characters at most.
                parts.append(_box(background, ink(background), part) + "\\allowbreak{}%\n")
        else:
            parts += map(_between, re.findall(r"\r\n|[\n\r]| +|\t|[^\n\r\t ]+", piece.text))
    return "".join(parts)


def _between(run: str) -> str:
    """Return what stands between units: a line break, spaces that keep their number, or text."""
    if run in ("\r\n", "\n", "\r"):
        return "\\mbox{}\\newline\n"
    if run == "\t":
        return "\\mbox{}\\hspace*{2em}"
    return "\\mbox{}" + "~" * (len(run) - 1) + " " if run.isspace() else escaped(run)


def _box(background: RGB, foreground: RGB, text: str) -> str:
    return f"\\xaiunit{{{_channels(background)}}}{{{_channels(foreground)}}}{{{text}}}"


def _channels(rgb: RGB) -> str:
    return ",".join(map(str, rgb))
