"""What the sign of a score means: facts that each method states where it is registered.

Stated beside the method, not read off its numbers: a map that happens to have no negative score is
not thereby one that cannot have any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Sign:
    """non_negative: by construction. meaning: of the score, and of a negative one where it occurs.

    variants: ((option, value), sign), what it is instead where the method has that option.
    """

    non_negative: bool
    meaning: str
    variants: tuple[tuple[tuple[str, object], Sign], ...] = ()

    def but(self, other: Sign, **option: object) -> Sign:
        """Return this sign with another one for `option=value`."""
        (where,) = option.items()
        return replace(self, variants=(*self.variants, (where, other)))

    def of(self, options: Mapping[str, object]) -> Sign:
        """Return the sign under a method's options."""
        found = (sign for (name, value), sign in self.variants if options.get(name) == value)
        return next(found, self)

    @property
    def note(self) -> str:
        """One sentence for a legend."""
        kind = "Non-negative by construction" if self.non_negative else "Signed"
        return f"{kind}: {self.meaning}."


def non_negative(meaning: str) -> Sign:
    """Return the sign of scores that no model and no input can make negative."""
    return Sign(non_negative=True, meaning=meaning)


def signed(meaning: str) -> Sign:
    """Return the sign of scores of both signs; the meaning says what a negative one is."""
    return Sign(non_negative=False, meaning=meaning)


# Of several methods each.
ATTENTION = non_negative(
    "attention says how much a token is looked at, not for which class it speaks"
)
POSITIVE_PART = non_negative(
    "only what supports the class is kept (negative parts are set to zero layer by layer), so "
    "evidence against it is not shown"
)
POSITIVE_RELEVANCE = non_negative(
    "only positive relevance of the attention is kept, so evidence against the class is not shown"
)
MAGNITUDE = non_negative(
    "the size of the gradient, how strongly the logit reacts to the token, whether up or down"
)
DIRECTION = signed(
    "the sum of the gradient's components; below zero the logit falls when all of them rise, which "
    "alone says nothing of evidence against the class"
)
