"""What the sign of a score means: which methods are non-negative by construction, method by method.

A table beside the methods, not a test of the numbers: a map that happens to have no negative score
is not thereby one that cannot have any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from xai_lib.errors import unknown_name
from xai_lib.explainers import registry


@dataclass(frozen=True)
class Sign:
    """non_negative: by construction. meaning: of the score, and of a negative one where it occurs.

    unless: of the method's options, whether they make it what it otherwise is not.
    """

    non_negative: bool
    meaning: str
    otherwise: Sign | None = None
    unless: Callable[[Mapping[str, object]], bool] = lambda options: False

    def of(self, options: Mapping[str, object]) -> Sign:
        """Return the sign under a method's options."""
        return self.otherwise if self.otherwise is not None and self.unless(options) else self

    @property
    def note(self) -> str:
        """One sentence for a legend."""
        kind = "Non-negative by construction" if self.non_negative else "Signed"
        return f"{kind}: {self.meaning}."


ATTENTION = Sign(
    True, "attention says how much a token is looked at, not for which class it speaks"
)
POSITIVE_PART = Sign(
    True,
    "only what supports the class is kept (negative parts are set to zero layer by layer), so "
    "evidence against it is not shown",
)
POSITIVE_RELEVANCE = Sign(
    True,
    "only positive relevance of the attention is kept, so evidence against the class is not shown",
)
MAGNITUDE = Sign(
    True,
    "the size of the gradient, how strongly the logit reacts to the token, whether up or down",
)
DIRECTION = Sign(
    False,
    "the sum of the gradient's components; below zero the logit falls when all of them rise, which "
    "alone says nothing of evidence against the class",
)
PRODUCT = Sign(
    False,
    "the first-order contribution to the logit; a negative score lowers the logit of the class",
)
SQUARED_PRODUCT = Sign(
    True, "the squared length of gradient times input; for or against the class is not told apart"
)


def _sums(options: Mapping[str, object]) -> bool:
    return options.get("reduce") == "sum"


def _lengths(options: Mapping[str, object]) -> bool:
    return options.get("reduce") not in (None, "sum")


def _as_reference(options: Mapping[str, object]) -> bool:
    return options.get("compat") == "reference"


SIGNS: dict[str, Sign] = {
    "raw_attention": ATTENTION,
    "rollout": ATTENTION,
    "lat": ATTENTION,
    "attn_gradcam": POSITIVE_PART,
    "generic_attention": POSITIVE_PART,
    "transformer_attribution": POSITIVE_PART,
    "bi_head": POSITIVE_PART,
    "bi_token": POSITIVE_PART,
    "lrp_rollout": POSITIVE_RELEVANCE,
    "partial_lrp": POSITIVE_RELEVANCE,
    "lrp": Sign(
        False,
        "the token's share of the class's relevance; a negative score is relevance that a sum or "
        "product gave to the smaller of two opposing parts, and counts against the class",
    ),
    "lrp_alpha_beta": Sign(
        True,
        "the summed size of the relevance of a token's embedding; for or against the class is not "
        "told apart",
        Sign(
            False,
            "the token's share of what relevance starts from, by default the logit, whose sign all "
            "scores have for an alpha from 0 to 1: a negative score is not evidence against the "
            "class but a share of a negative logit",
        ),
        _sums,
    ),
    "random": Sign(True, "drawn at random as a control, it means nothing"),
    "attnlrp": Sign(
        False, "the token's contribution to the logit; a negative score lowers it (AttnLRP's rules)"
    ),
    "gradient": Sign(True, MAGNITUDE.meaning, DIRECTION, _sums),
    "smoothgrad": Sign(True, MAGNITUDE.meaning, DIRECTION, _sums),
    "gradient_sensitivity": MAGNITUDE,
    "gradient_x_input": Sign(False, PRODUCT.meaning, SQUARED_PRODUCT, _lengths),
    "integrated_gradients": Sign(
        False,
        "scores add up to the logit minus that of the baseline; a negative score lowers the logit "
        "of the class",
        Sign(
            False,
            "the sum of the gradient's components, averaged on the way from the baseline and not "
            "times the input; a negative score alone says nothing of evidence against the class",
        ),
        _as_reference,
    ),
}


def sign_of(method: str, options: Mapping[str, object] | None = None) -> Sign:
    """Return what a score's sign means for a method under its options.

    method: a registered name, or a label such as "gradient:reduce=sum". Raises OptionError for a
    method that has no entry.
    """
    name, *pairs = method.split(":")
    if name not in SIGNS:
        raise unknown_name("method", name, SIGNS)
    known = registry.all_methods()
    given = dict(known[name].options) if name in known else {}
    given |= dict(pair.split("=", 1) for pair in pairs if "=" in pair) | dict(options or {})
    return SIGNS[name].of(given)


def sign_note(method: str, options: Mapping[str, object] | None = None) -> str:
    """Return the sentence of a legend that says what a score's sign means (see `sign_of`)."""
    return sign_of(method, options).note
