"""How a figure tells what the sign of a score means, which each method itself states."""

from __future__ import annotations

from collections.abc import Mapping

from xai_lib.errors import unknown_name
from xai_lib.explainers.registry import all_methods
from xai_lib.explainers.signs import Sign


def sign_of(method: str, options: Mapping[str, object] | None = None) -> Sign:
    """Return what a score's sign means for a method under its options.

    method: a registered name, or a label such as "gradient:reduce=sum". Raises OptionError for an
    unknown one.
    """
    name, *pairs = method.split(":")
    known = all_methods()
    if name not in known:
        raise unknown_name("method", name, known)
    written = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    return known[name].sign.of(known[name].options | written | dict(options or {}))


def sign_note(method: str, options: Mapping[str, object] | None = None) -> str:
    """Return the sentence of a legend that says what a score's sign means (see `sign_of`)."""
    return sign_of(method, options).note
