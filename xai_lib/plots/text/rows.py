"""Texts with scores, made ready to draw: rows, what their numbers say, and characters made safe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from xai_lib.errors import InputError, OptionError, unknown_name
from xai_lib.explainers.registry import all_methods
from xai_lib.plots.signs import sign_of
from xai_lib.streams.words import Span, TextScores, words_of

if TYPE_CHECKING:
    from torch import Tensor

    from xai_lib.attribution import Attribution
    from xai_lib.streams.texts import TextLayout

LEVELS = ("word", "token")


@dataclass
class TextRow:
    """One text with one score a unit, and what the scores are of.

    title: a method or what else the row is called. target: the name of the class. probability: of
    that class, in [0, 1]; value: its score, where it has none. note: what a score's sign means.
    signed: whether a score can be negative; by default whether one is. chances: classes and their
    probabilities, to be shown as bars. class_specific: False where the scores are the same for
    every class. Raises InputError where scores and units do not fit together.
    """

    scores: TextScores
    title: str = ""
    target: str = ""
    probability: float | None = None
    note: str = ""
    signed: bool | None = None
    chances: tuple[tuple[str, float], ...] = ()
    class_specific: bool = True
    value: float | None = None

    def __post_init__(self):
        _check(self.scores)
        if self.signed is None:
            self.signed = any(v < 0 for v in self.values)

    @cached_property
    def values(self) -> list[float]:
        """The scores as numbers."""
        return self.scores.scores.detach().double().cpu().tolist()

    @cached_property
    def bound(self) -> float:
        """The end of the scale: the largest |score|; 0 where every score is zero."""
        return max((abs(v) for v in self.values if math.isfinite(v)), default=0.0)

    @property
    def heading(self) -> str:
        """Class and probability, or score, in words, or empty."""
        if not self.class_specific:
            about, name = "the same for every class", f"P({self.target})" if self.target else "P"
        else:
            about, name = f"for “{self.target}”" if self.target else "", "P"
        chance = "" if self.probability is None else f"{name} = {self.probability:.1%}"
        score = "" if self.value is None else f"score {number(self.value)}"
        return ", ".join(part for part in (about, chance, score) if part)

    def strength(self, score: float | None) -> float:
        """Return score / bound in [-1, 1]; 0 for a gap or a score that is no number."""
        if score is None or not math.isfinite(score) or not self.bound:
            return 0.0
        return score / self.bound


def attribution_texts(
    att: Attribution,
    level: str = "word",
    reduce: str = "max",
    sample: int | None = 0,
    specials: bool = False,
) -> list[TextRow]:
    """Return a row for each target of one sample, or of every sample (sample=None), by sample.

    level: "word" or "token"; reduce: how a word's pieces become its score (`att.words`). specials:
    show special tokens too, at token level. Raises OptionError for unknown names or samples.
    """
    if level not in LEVELS:
        raise unknown_name("level", level, LEVELS)
    found = att.words(reduce) if level == "word" else att.tokens(specials)
    if sample is not None and not (isinstance(sample, int) and 0 <= sample < len(found)):
        raise OptionError(f"sample is {sample!r}; expected a number from 0 to {len(found) - 1}.")
    known = all_methods().get(att.method)
    sign = None if known is None else sign_of(att.method, att.options)
    several = att.target.dim() == 2
    rows = []
    for i in range(len(found)) if sample is None else [sample]:
        for k, index in enumerate(att.target.reshape(-1, len(found))[:, i].tolist()):
            units = found[i]
            scores = TextScores(
                units.texts,
                units.labels,
                units.spans,
                units.segments,
                units.scores[k] if several else units.scores,
            )
            rows.append(
                TextRow(
                    scores,
                    att.method,
                    att.class_name(index),
                    att.probability(i, index),
                    sign.note if sign else "",
                    not sign.non_negative if sign else None,
                    class_specific=known is None or known.class_specific,
                    value=att.value(i, index),
                )
            )
    return rows


def rationale_row(text: str, rationale: Sequence[Span], title: str = "planted") -> TextRow:
    """Return a text whose words of evidence have the score 1 and all others 0.

    rationale: (start, end) spans of characters, as a `TextSample` holds them.
    """
    spans = tuple(words_of(text))
    marked = [any(max(a, c) < min(b, d) for c, d in rationale) for a, b in spans]
    labels = tuple(text[a:b] for a, b in spans)
    scores = torch.tensor(marked, dtype=torch.float32)
    units = TextScores((text,), labels, spans, (0,) * len(spans), scores)
    return TextRow(units, title, note="1 marks the words that decide the label.")


def numbered(layout: TextLayout, relevance: Tensor, place: int, k: int) -> TextScores:
    """Return the tokens of a text that only its numbers are known of."""
    shown = layout.present[place].nonzero()[:, 0]
    labels = [str(n) for n in layout.ids[place, shown].tolist()]
    spans, start = [], 0
    for label in labels:
        spans.append((start, start + len(label)))
        start += len(label) + 1
    row = (relevance[k] if relevance.dim() == 3 else relevance)[place, shown]
    return TextScores((" ".join(labels),), tuple(labels), tuple(spans), (0,) * len(labels), row)


def as_rows(rows) -> list[TextRow]:
    """Return rows of a TextRow, a TextScores, a list of them, or a {title: either}."""
    if isinstance(rows, TextRow | TextScores):
        rows = [rows]
    if isinstance(rows, Mapping):
        rows = [
            row if isinstance(row, TextRow) else TextRow(row, title=str(title))
            for title, row in rows.items()
        ]
    if not isinstance(rows, Sequence) or isinstance(rows, str) or not rows:
        raise InputError(
            f"rows is {type(rows).__name__}; expected TextScores, such as att.words() returns, or "
            "the rows of attribution_texts(att), at least one."
        )
    return [row if isinstance(row, TextRow) else TextRow(row) for row in rows]


def number(value: float) -> str:
    """Return a score in three digits, with a true minus."""
    return f"{value:.3g}".replace("-", "−")


def printable(text: str) -> str:
    """Return text with control characters made visible, so that none acts on a page or terminal.

    Line breaks, tabs and the marks of writing direction stay. Half a character becomes U+FFFD.
    """
    return text.translate(_VISIBLE).encode("utf-8", "replace").decode("utf-8")


def summary_notes(rows: Sequence[TextRow]) -> list[tuple[str, str]]:
    """Return (titles, note) for each different note, in order."""
    titles: dict[str, list[str]] = {}
    for row in rows:
        if row.note:
            titles.setdefault(row.note, []).append(row.title)
    return [(", ".join(dict.fromkeys(filter(None, who))), note) for note, who in titles.items()]


# U+2028 and U+2029 break lines in a page's scripts but are no line of a text; U+0085 likewise.
_VISIBLE = {c: 0x2400 + c for c in range(32) if chr(c) not in "\n\t\r"}
_VISIBLE |= {0x7F: 0x2421, **dict.fromkeys(range(0x80, 0xA0), 0xFFFD), 0x2028: 0x20, 0x2029: 0x20}


def _check(scores) -> None:
    if not isinstance(scores, TextScores):
        raise InputError(f"A row holds {type(scores).__name__}; expected TextScores.")
    if scores.scores.dim() != 1:
        raise InputError(
            f"The scores have the shape {tuple(scores.scores.shape)}; expected one a unit. Choose "
            "one target, or make a row of each with attribution_texts(att)."
        )
    counts = {len(part) for part in (scores.labels, scores.spans, scores.segments, scores.scores)}
    if len(counts) > 1:
        raise InputError(f"Labels, spans, segments and scores differ in number: {sorted(counts)}.")
    for (start, end), segment in zip(scores.spans, scores.segments, strict=True):
        inside = 0 <= segment < len(scores.texts) and 0 <= start <= end
        if not inside or end > len(scores.texts[segment]):
            raise InputError(f"A unit lies at {start} to {end} of text {segment}, outside of it.")
