r"""Text heat maps as LaTeX that pdflatex compiles: a coloured box a unit, every character escaped.

The output is plain ASCII. What the T1 encoding has is written as its command; letters with marks it
has not lose all but one of them; other characters with an ASCII form ("ﬁ", "１") take that one; the
rest (most emoji, CJK, Arabic, Cyrillic ...) print as the placeholder \xaimissing{1F600}, the
character's number in small type.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

from xai_lib.plots.text.colours import RGB, colour, ink
from xai_lib.plots.text.pieces import Piece, pieces
from xai_lib.plots.text.rows import TextRow, as_rows, number, printable, summary_notes

PACKAGES = r"""\usepackage[T1]{fontenc}
\usepackage{xcolor}
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
"""
# \providecommand: a document may hold many fragments, and may define its own look.
MACROS = r"""\providecommand{\xaiunit}[3]{%
  {\fboxsep=0.6pt\colorbox[RGB]{#1}{\color[RGB]{#2}\strut #3}}}
\providecommand{\xaimissing}[1]{{\tiny\ttfamily U+#1}}
"""
SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # By number: babel makes the quotation mark a command in some languages.
    '"': r"\symbol{34}",
    "`": r"\textasciigrave{}",
    "\u00a0": "~",
    "\u00a1": r"\textexclamdown{}",
    "\u00bf": r"\textquestiondown{}",
    "\u00a3": r"\textsterling{}",
    "\u00a7": r"\S{}",
    "\u00b6": r"\P{}",
    "\u00a9": r"\copyright{}",
    "\u00ab": r"\guillemotleft{}",
    "\u00bb": r"\guillemotright{}",
    "\u00c6": r"\AE{}",
    "\u00d8": r"\O{}",
    "\u00df": r"\ss{}",
    "\u00e6": r"\ae{}",
    "\u00f8": r"\o{}",
    "\u0131": r"\i{}",
    "\u0141": r"\L{}",
    "\u0142": r"\l{}",
    "\u0152": r"\OE{}",
    "\u0153": r"\oe{}",
    "\u2013": r"\textendash{}",
    "\u2014": r"\textemdash{}",
    "\u2018": r"\textquoteleft{}",
    "\u2019": r"\textquoteright{}",
    "\u201a": r"\quotesinglbase{}",
    "\u201c": r"\textquotedblleft{}",
    "\u201d": r"\textquotedblright{}",
    "\u201e": r"\quotedblbase{}",
    "\u2022": r"\textbullet{}",
    "\u2026": r"\textellipsis{}",
    "\u00b0": r"\ensuremath{^{\circ}}",
    "\u00b1": r"\ensuremath{\pm}",
    "\u00b7": r"\ensuremath{\cdot}",
    "\u00d7": r"\ensuremath{\times}",
    "\u00f7": r"\ensuremath{\div}",
    "\u20ac": r"\texteuro{}",
    "\u2190": r"\ensuremath{\leftarrow}",
    "\u2192": r"\ensuremath{\rightarrow}",
    "\u2212": r"\ensuremath{-}",
    "\u2264": r"\ensuremath{\leq}",
    "\u2265": r"\ensuremath{\geq}",
}
ACCENTS = {
    "\u0300": r"\`",
    "\u0301": r"\'",
    "\u0302": r"\^",
    "\u0303": r"\~",
    "\u0304": r"\=",
    "\u0306": r"\u",
    "\u0307": r"\.",
    "\u0308": r"\"",
    "\u030a": r"\r",
    "\u030b": r"\H",
    "\u030c": r"\v",
    "\u0327": r"\c",
    "\u0328": r"\k",
}
# Joined by the fonts into a dash or another quotation mark where they follow each other.
LIGATURES = "-',"
# No box breaks over a line's end, so a longer unit becomes several.
LONGEST = 20


def text_latex(rows, title: str = "", document: bool = False) -> str:
    r"""Return rows as LaTeX: a block a row with its text, coloured unit by unit.

    rows: see `as_rows`. A fragment for \input needs \usepackage[T1]{fontenc} and {xcolor};
    document: a whole document instead. Red is positive, blue negative; each row has a scale of its
    own, stated with what the sign means. Line breaks and runs of spaces stay. See the module on
    characters that pdflatex cannot print.
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


def escaped(text: str) -> str:
    """Return text as LaTeX that prints it: ASCII, on one line, with no character that acts."""
    text = unicodedata.normalize("NFC", printable(text)).translate(_SPACES)
    parts = []
    for character, following in pairwise(text + "\0"):
        if character in SPECIAL:
            parts.append(SPECIAL[character])
        elif character.isascii():
            joined = character in LIGATURES and following == character
            parts.append(f"{character}{{}}" if joined else character)
        else:
            parts.append(_foreign(character))
    return "".join(parts)


_SPACES = dict.fromkeys(map(ord, "\n\r\t"), " ")


def _foreign(character: str) -> str:
    base, *marks = unicodedata.normalize("NFD", character)
    if base.isascii() and base.isalpha() and marks:
        known = [ACCENTS[mark] for mark in marks if mark in ACCENTS]
        return f"{known[0]}{{{base}}}" if known else base
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return ""
    plain = unicodedata.normalize("NFKD", character)
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    if plain.isascii() and plain.strip():
        return escaped(plain)
    return " " if character.isspace() else f"\\xaimissing{{{ord(character):04X}}}"


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
