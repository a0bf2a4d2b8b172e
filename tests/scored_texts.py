"""Texts with scores made by hand, and texts that try to break what shows them."""

import torch

from xai_lib.plots import TextRow
from xai_lib.streams.words import TextScores, words_of

NASTY = (
    "\\end{document} \\input{x} $x^2$ 50% & #1 _a_ ~t^ {brace} <b>\"bold\"</b> 'q' ``d'' -- ---\n"
    "zweite   Zeile\tTab é ñ ü ő ž ą ł ø ß œ ế – — “q” €5 £3 ° × ± → 日本語 \U0001f600 "
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05e2\u05d1\u05e8\u05d9\u05ea Привет ﬁ ①\r\n\n"
    "</div><script>alert(1)</script> \x00\x1b[31m e\u0301 !` ?` [x] * \\\\ "
    "javascript:alert(1) &amp; ,, << >> a\u202eb"
)


def scores_of(*texts, values=None, seed=0):
    """Return TextScores of the words of one or two texts; random scores by default."""
    spans = [(number, span) for number, text in enumerate(texts) for span in words_of(text)]
    drawn = torch.randn(len(spans), generator=torch.Generator().manual_seed(seed))
    return TextScores(
        tuple(texts),
        tuple(texts[number][start:end] for number, (start, end) in spans),
        tuple(span for _, span in spans),
        tuple(number for number, _ in spans),
        drawn if values is None else torch.tensor(values, dtype=torch.float64),
    )


def row_of(*texts, values=None, seed=0, **fields):
    """Return a TextRow of `scores_of`."""
    return TextRow(scores_of(*texts, values=values, seed=seed), **fields)
