"""Named options from keywords or from text: key=value pairs, checked against annotated types."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping

from xai_lib.errors import OptionError, unknown_name


def parse_pair(text: str, example: str = "start_layer=4") -> tuple[str, object]:
    """Return (key, value) of "key=value"; the value is JSON (3, 0.5, true, null) or else text."""
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise OptionError(f"{text!r} is not key=value, as in {example}.")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def check_options(
    owner: str,
    options: Mapping[str, object],
    defaults: Mapping[str, object],
    expected: Mapping[str, object],
) -> None:
    """Raise an OptionError for an option that `owner` does not know or whose type is another.

    expected: type annotations by option name.
    """
    for option, value in options.items():
        if option not in defaults:
            raise unknown_name(f"option of {owner!r},", option, defaults)
        if not _fits(value, expected[option]):
            raise OptionError(
                f"{option} is {value!r}; expected {_in_words(expected[option])}. "
                f"The default of {owner!r} is {defaults[option]!r}."
            )


def check_range(name: str, value: object, low: int, high: int, hint: str) -> int:
    """Return the integer `value` if low <= value <= high, else raise an OptionError."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise OptionError(f"{name} is {value!r}; expected an integer from {low} to {high}: {hint}")
    return value


def _fits(value, expected) -> bool:
    """Whether a value has the annotated type; True is no number, but 1 is a float."""
    allowed = typing.get_args(expected) or (expected,)
    if isinstance(value, bool):
        return bool in allowed
    return isinstance(value, allowed) or (float in allowed and isinstance(value, int))


def _in_words(expected) -> str:
    words = {types.NoneType: "None", float: "a number", int: "an integer", str: "a name"}
    words |= {bool: "True or False"}
    allowed = typing.get_args(expected) or (expected,)
    # A tensor of some shape is a tensor.
    plain = (getattr(kind, "array_type", kind) for kind in allowed)
    return " or ".join(words.get(kind, f"a {kind.__name__}") for kind in plain)
