r"""Text as LaTeX that pdflatex prints: plain ASCII, every character escaped.

Of pylatexenc's commands those are used that LaTeX has without a package, under the T1 encoding.
Letters with marks it has not lose all but one of them; other characters with an ASCII form ("ﬁ",
"１") take that one; the rest (most emoji, CJK, Arabic, Cyrillic ...) print as the placeholder
\xaimissing{1F600}, the character's number.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

from pylatexenc.latexencode import get_builtin_uni2latex_dict

from xai_lib.plots.text.rows import printable

KNOWN = get_builtin_uni2latex_dict() | {
    # By number: babel makes the quotation mark a command in some languages.
    ord('"'): r"\symbol{34}",
    ord("`"): r"\textasciigrave",
    ord("<"): r"\textless",
    ord(">"): r"\textgreater",
    ord("|"): r"\textbar",
}
# What LaTeX itself prints: letters and signs of T1, and a little mathematics.
PLAIN = re.compile(
    r"""[ -~]|\\[{}$&#%_]|\\symbol\{34\}
    |\\(?:AE|OE|O|L|ae|oe|o|l|ss|i
        |text(?:asciicircum|asciigrave|asciitilde|backslash|bar|bullet|copyright|degree|div
               |ellipsis|emdash|endash|euro|exclamdown|greater|leftarrow|less|paragraph
               |periodcentered|questiondown|quotedblleft|quotedblright|quoteleft|quoteright
               |registered|rightarrow|section|sterling|times|trademark)
        |guillemot(?:left|right)|quotedblbase|quotesinglbase)
    |\\ensuremath\{(?:-|\\(?:pm|cdot|leq|geq|neq|approx|infty|sum|alpha|beta|gamma|delta|epsilon
        |zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|pi|rho|sigma|tau|upsilon|phi|chi|psi|omega
        |Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Upsilon|Phi|Psi|Omega))\}""",
    re.VERBOSE,
)
# pylatexenc lacks some letters with these marks, and has others wrong.
ACCENTS = {
    "\u0300": r"\`", "\u0301": r"\'", "\u0302": r"\^", "\u0303": r"\~", "\u0304": r"\=",
    "\u0306": r"\u", "\u0307": r"\.", "\u0308": r'\"', "\u030a": r"\r", "\u030b": r"\H",
    "\u030c": r"\v", "\u0327": r"\c", "\u0328": r"\k",
}  # fmt: skip
# Joined by the fonts into a dash or another quotation mark where they follow each other.
LIGATURES = "-',"
SPACES = dict.fromkeys(map(ord, "\n\r\t"), " ")


def escaped(text: str) -> str:
    """Return text as LaTeX that prints it: ASCII, on one line, with no character that acts."""
    text = unicodedata.normalize("NFC", printable(text)).translate(SPACES)
    parts = []
    for character, following in pairwise(text + "\0"):
        joined = character in LIGATURES and following == character
        parts.append(f"{character}{{}}" if joined else _command(character))
    return "".join(parts)


def _command(character: str) -> str:
    known = KNOWN.get(ord(character), character)
    if PLAIN.fullmatch(known):
        # Braces end a name, which the next letter would go on with.
        return f"{known}{{}}" if re.search(r"\\[A-Za-z]+$", known) else known
    base, *marks = unicodedata.normalize("NFD", character)
    if base.isascii() and base.isalpha() and marks:
        accent = next((ACCENTS[mark] for mark in marks if mark in ACCENTS), "")
        return f"{accent}{{{base}}}" if accent else base
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return ""
    plain = unicodedata.normalize("NFKD", character)
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    if plain.isascii() and plain.strip():
        return escaped(plain)
    return " " if character.isspace() else f"\\xaimissing{{{ord(character):04X}}}"
