"""Clauses of the generated reviews: judgements with deciding words marked, and distractors."""

from __future__ import annotations

from dataclasses import dataclass

from xai_lib.datasets.worlds.lexicon import (
    ADJECTIVES,
    EFFECTS,
    FEELINGS,
    INTENSIFIERS,
    LIKINGS,
    OTHERS,
    PERSONS,
    SOFTENERS,
    VERDICTS,
    WEATHER,
)
from xai_lib.datasets.worlds.wording import Draw, marked

_SUBJECT_FRAMES = (
    "{subject} was {phrase}",
    "{subject} is {phrase}",
    "I found {subject} {phrase}",
    "to me {subject} seemed {phrase}",
    "{subject} turned out to be {phrase}",
    "{subject} felt {phrase} from start to finish",
    "in my view {subject} is {phrase}",
    "{subject}, I must say, was {phrase}",
    "{subject} struck me as {phrase}",
    "{subject} remained {phrase} until the end",
    "I would call {subject} {phrase}",
    "after a while {subject} looked {phrase}",
)


@dataclass(frozen=True)
class Opinion:
    """What one clause says: sign (+1 or -1), whether strongly, and whether by a negation."""

    sign: int
    strong: bool
    negated: bool


def any_opinion(draw: Draw) -> Opinion:
    """Return an opinion that is drawn without regard to a label."""
    return Opinion(draw.pick((1, -1)), draw.chance(0.5), draw.chance(0.35))


def clause_of(draw: Draw, opinion: Opinion, subject: str, thing: str | None) -> str:
    """Return a clause that states the opinion of the subject, its deciding phrases marked.

    The frame is drawn without regard to the opinion: what stands around the marks says nothing.
    """
    kind = draw.pick(("adjective",) * 5 + ("feeling", "effect", "verdict", "attribute"))
    if kind == "attribute" and thing is None:
        kind = "adjective"
    sign, strong, negated = opinion.sign, opinion.strong, opinion.negated
    said = -sign if negated else sign
    # A negated strong word is weak; strength then comes from "at all".
    power = draw.chance(0.3) and not strong if negated else strong
    after = f" {marked('at all')}" if negated and strong else ""
    if kind == "feeling":
        past, base, _ = draw.pick(FEELINGS[said, power])
        if not negated:
            return f"I {marked(past)} {subject}"
        verb = draw.pick((f"did {marked(f'not {base}')}", marked(f"never {past}")))
        return f"I {verb} {subject}{after}"
    if kind == "effect":
        past, base = draw.pick(EFFECTS[said, power])
        if not negated:
            return f"{subject} {marked(past)} me"
        verb = draw.pick((f"did {marked(f'not {base}')}", marked(f"never {past}")))
        return f"{subject} {verb} me{after}"
    if kind == "verdict":
        noun = marked(draw.pick(VERDICTS[said, power]))
        if not negated:
            return f"{subject} was a {noun}"
        negator = draw.pick((f"{marked('not')} a", marked("no")))
        return f"{subject} was {negator} {noun}{after}"
    phrase = _phrase(draw, said, strong, negated, power, starts="a" if kind == "attribute" else "")
    if kind == "attribute":
        article = f"{marked('not')} a" if negated else "a"
        frame = draw.pick(("for me it is {} {} {}", "this {2} is {0} {1} one", "it was {} {} {}"))
        return frame.format(article, marked(phrase), thing) + after
    if negated:
        negator = draw.pick(("not", "never") if strong else ("not", "never", "hardly", "far from"))
        phrase = f"{negator} {phrase}"
    return draw.pick(_SUBJECT_FRAMES).format(
        subject=subject, phrase=marked(phrase + (" at all" if after else ""))
    )


def _phrase(draw, said: int, strong: bool, negated: bool, power: bool, starts: str) -> str:
    """Return an adjective, softened or intensified where that fits; none with a vowel after "a"."""

    def fitting(words):
        return [word for word in words if not starts or word[0] not in "aeiou"]

    if negated:
        return draw.pick(fitting(ADJECTIVES[said, power]))
    if strong and draw.chance(0.5):
        mild = draw.pick(ADJECTIVES[said, False])
        return f"{draw.pick(fitting(INTENSIFIERS))} {mild}"
    if not strong and draw.chance(0.3):
        return f"{draw.pick(fitting(SOFTENERS))} {draw.pick(ADJECTIVES[said, False])}"
    return draw.pick(fitting(ADJECTIVES[said, strong]))


def distractor(draw: Draw, thing: str) -> str:
    """Return a sentence that judges something else, or in which somebody else judges."""
    opinion = any_opinion(draw)
    kind = draw.pick(("other", "other", "previous", "liking", "because"))
    if kind == "liking":
        verb = draw.pick(FEELINGS[opinion.sign, opinion.strong])[2]
        return f"{draw.pick(PERSONS)} {verb} {draw.pick(LIKINGS)}."
    if kind == "because":
        adjective = draw.pick(ADJECTIVES[opinion.sign, opinion.strong])
        time = draw.pick(("we came late", "we left early", "we changed our plans"))
        return f"because of the {adjective} {draw.pick(WEATHER)} {time}."
    if kind == "previous":
        subject = draw.pick((f"my previous {thing}", f"the {thing} we tried last year"))
    else:
        subject = draw.pick(OTHERS)
    return f"{clause_of(draw, opinion, subject, None)}."
