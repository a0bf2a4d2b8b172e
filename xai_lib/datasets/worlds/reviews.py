"""Generated reviews whose rationale is known: the words that state the reviewer's own opinion."""

from __future__ import annotations

from collections.abc import Iterable

from xai_lib.datasets.base import TextSample
from xai_lib.datasets.worlds.lexicon import (
    ADJECTIVES,
    EFFECTS,
    FEELINGS,
    FILLER,
    INTENSIFIERS,
    NEGATORS,
    THINGS,
    VERDICTS,
)
from xai_lib.datasets.worlds.review_clauses import Opinion, any_opinion, clause_of, distractor
from xai_lib.datasets.worlds.wording import Draw, free_words, joined, unmarked
from xai_lib.errors import InputError, OptionError

REVIEW_CLASSES = ("negative", "positive")
REVIEW_CLASSES_5 = ("very negative", "negative", "mixed", "positive", "very positive")
MOST_OPINIONS = 3
_FEWEST_WORDS, _MOST_WORDS = 22, 40

# The sign and strength of every word that judges, in all its forms.
_SIGNS: dict[str, tuple[int, bool]] = {
    form: degree
    for lexicon in (ADJECTIVES, FEELINGS, EFFECTS, VERDICTS)
    for degree, entries in lexicon.items()
    for entry in entries
    for form in ([entry] if isinstance(entry, str) else entry)
}
_OPENINGS = (
    "{{Who}} and I {verb} this {thing} {{when}}.",
    "I {verb} this {thing} {{when}}.",
    "{{When}} I {verb} the {thing} with {{who}}.",
    "This is about the {thing} that I {verb} {{when}}.",
)
_LINKS = ("but", "yet", "but above all", "but what counts more,", "but more than that,")


def degrees_of(phrases: Iterable[str]) -> list[tuple[int, bool]]:
    """Return (sign, strong) of each opinion that the phrases of a rationale state, in order.

    The words are read from left to right. A word that judges has a sign and a strength. A negator
    before it turns the sign and makes it weak; an intensifier before it makes it strong; "at all"
    after it makes it strong. Every other word counts for nothing.
    """
    found: list[tuple[int, bool]] = []
    negated = intense = False
    words = " ".join(phrases).lower().split()
    for i, word in enumerate(words):
        if word in NEGATORS or words[i : i + 2] == ["far", "from"]:
            negated = True
        elif word in INTENSIFIERS:
            intense = True
        elif word in _SIGNS:
            sign, strong = _SIGNS[word]
            found.append((-sign, False) if negated else (sign, strong or intense))
            negated = intense = False
        elif words[i : i + 2] == ["at", "all"] and found:
            found[-1] = (found[-1][0], True)
    return found


def review_label(phrases: Iterable[str], classes: int = 2) -> int:
    """Return the label of a review from the phrases of its rationale alone.

    Two classes: the sign that all opinions share. Five: 2 (mixed) where opinions of both signs
    stand, else the shared sign, and the outer class if one of them is strong.
    """
    degrees = degrees_of(phrases)
    signs = {sign for sign, _ in degrees}
    if not signs or (classes == 2 and len(signs) > 1):
        raise InputError(f"The opinions {degrees} decide no label of {classes} classes.")
    if classes == 2:
        return int(signs == {1})
    if len(signs) == 2:
        return 2
    return 2 + signs.pop() * (1 + any(strong for _, strong in degrees))


class Reviews:
    """A seeded set of n reviews; review i depends on the seed and i alone.

    A review speaks of one thing (a film, a phone ...) in 3 to 6 sentences. Its label is a function
    of its rationale alone (`review_label`): of the phrases with which the reviewer judges the thing
    or a part of it, negators and intensifiers included. The planted rules:

    - negation turns a judgement: "not good" is negative, "never bored me" positive;
    - contrast: of "the acting was dull, but the story is wonderful" only what follows the "but"
      (or "yet") decides; the sign of what stands before is drawn independently of the label;
    - what is said of other things ("the weather that day was terrible", "my brother hates rain",
      "my previous phone was superb") decides nothing and is drawn independently of the label.

    So the text outside the rationale is independent of the label. classes: 2, or 5 with degrees
    and mixed reviews (2 or 3 opinions each, so that their number says nothing). opinions: how many
    judgements, 1 to 3, drawn by default. negated, contrast: True or False makes every or no
    judgement negated or contrasted; None draws them.

    >>> sample = Reviews(8, seed=0)[3]
    >>> [sample.text[a:b] for a, b in sample.rationale]
    """

    def __init__(
        self,
        n: int,
        seed: object = 0,
        classes: int = 2,
        opinions: int | None = None,
        negated: bool | None = None,
        contrast: bool | None = None,
    ):
        if n < 1:
            raise InputError(f"Reviews need n >= 1, got n={n}.")
        if classes not in (2, 5):
            raise OptionError(f"classes={classes!r} is not possible: give 2 or 5.")
        if opinions not in (None, *range(1 if classes == 2 else 2, MOST_OPINIONS + 1)):
            raise OptionError(
                f"opinions={opinions!r} is not possible with {classes} classes: give "
                f"{1 if classes == 2 else 2} to {MOST_OPINIONS}, or None."
            )
        self.n, self.seed, self.classes, self.opinions = n, seed, classes, opinions
        self.negated, self.contrast = negated, contrast
        self.class_names = REVIEW_CLASSES if classes == 2 else REVIEW_CLASSES_5

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> TextSample:
        index = range(self.n)[index]
        draw = Draw("review", self.seed, self.classes, index)
        label = draw.pick(range(self.classes))
        count = draw.pick(range(1 if self.classes == 2 else 2, MOST_OPINIONS + 1))
        opinions = self._opinions(draw, label, self.opinions or count)
        thing = draw.pick(tuple(THINGS))
        parts = draw.some(THINGS[thing][1].split(", "), 2 * MOST_OPINIONS)
        text, rationale = joined(_sentences(draw, thing, parts, opinions, self.contrast))
        return TextSample(f"review-{index:05d}", text, label=label, rationale=rationale)

    def _opinions(self, draw: Draw, label: int, count: int) -> list[Opinion]:
        if self.classes == 2:
            signs = [2 * label - 1] * count
            strong = [draw.chance(0.5) for _ in signs]
        elif label == 2:
            signs = draw.some([1, -1, draw.pick((1, -1))][:count], count)
            strong = [draw.chance(0.5) for _ in signs]
        else:
            signs = [1 if label > 2 else -1] * count
            # At least one strong judgement in the outer classes, none in the inner ones.
            forced = draw.pick(range(count))
            strong = [label in (0, 4) and (i == forced or draw.chance(0.5)) for i in range(count)]
        found = []
        for sign, is_strong in zip(signs, strong, strict=True):
            drawn = draw.chance(0.35)
            found.append(Opinion(sign, is_strong, drawn if self.negated is None else self.negated))
        return found


def _sentences(draw, thing: str, parts: list[str], opinions: list[Opinion], contrast) -> list[str]:
    """Return marked sentences: judgements in random order among distractors and filler."""
    judged, simple = [], []
    for i, opinion in enumerate(opinions):
        clause = clause_of(draw, opinion, f"the {parts[2 * i]}", thing)
        drawn = draw.chance(0.3)
        simple.append(not (drawn if contrast is None else contrast))
        if not simple[-1]:
            before = unmarked(clause_of(draw, any_opinion(draw), f"the {parts[2 * i + 1]}", thing))
            clause = f"{before}, {draw.pick(_LINKS)} {clause}"
        judged.append(clause)
    if all(simple[-2:]) and len(judged) > 1 and draw.chance(0.4):
        judged[-2:] = [f"{judged[-2]}, {draw.pick(('and', 'while'))} {judged[-1]}"]
    verb, _, facts = THINGS[thing]
    opening = draw.filled(draw.pick(_OPENINGS).format(verb=verb, thing=thing))
    judged = [f"{clause}." for clause in judged]
    rest = [unmarked(distractor(draw, thing)) for _ in range(draw.pick((0, 1, 1, 2)))]
    rest += [draw.filled(filler) for filler in draw.some((*FILLER, *facts), 6)]
    # Only words outside the rationale count here, so that the length says nothing of the label.
    room = _MOST_WORDS - free_words([opening, *judged])
    wanted = draw.pick(range(_FEWEST_WORDS, _MOST_WORDS)) - _MOST_WORDS + room
    chosen: list[str] = []
    for sentence in rest:
        words = len(" ".join([*chosen, sentence]).split())
        too_few = len(chosen) + len(judged) < 2
        if too_few or (words <= room and len(chosen) + len(judged) < 5 and words <= wanted + 8):
            chosen.append(sentence)
    return [opening, *draw.some([*judged, *chosen], len(judged) + len(chosen))]
