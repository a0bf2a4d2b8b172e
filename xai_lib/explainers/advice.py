"""The advice of a refusal: methods that were run on this very model and input, and worked."""

from __future__ import annotations

from collections.abc import Callable, Container

from xai_lib.errors import MethodNotApplicableError, UnsupportedModelError, XAIError

# Tried in this order until some work: on attention maps, by rules, at the input, without gradient.
CANDIDATES = (
    "generic_attention",
    "attnlrp",
    "gradient_x_input",
    "rollout",
    "integrated_gradients",
    "occlusion",
    "raw_attention",
)
ENOUGH = 2

Refusal = MethodNotApplicableError | UnsupportedModelError


def advised(
    refusal: Refusal, refused: str, known: Container[str], works: Callable[[str], object]
) -> Refusal:
    """Return the refusal of the method `refused` with what works instead.

    known: names of methods that there are. works: runs one, and raises an XAIError where it is
    refused too.
    """
    reason = str(refusal).rstrip(".")
    found: list[str] = []
    for name in CANDIDATES:
        if name == refused or name not in known:
            continue
        try:
            works(name)
        except XAIError:
            continue
        found.append(f"{name!r}")
        if len(found) == ENOUGH:
            break
    if found:
        what = f"tried on this model and input, {' and '.join(found)} work{'s' * (len(found) == 1)}"
    else:
        what = "none of the methods that were tried on this model and input works"
    return type(refusal)(f"{reason}; {what}.")
