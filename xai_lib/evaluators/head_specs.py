"""Head scores as a command line names them: `taylor`, `taylor:quantity=loss`."""

from __future__ import annotations

from collections.abc import Iterable

from xai_lib.errors import OptionError, unknown_name
from xai_lib.evaluators.specs import MethodSpec
from xai_lib.heads.scores import METHODS, QUANTITIES
from xai_lib.options import parse_pair

OPTIONS = {"quantity": QUANTITIES, "compat": ("reference",)}


def parse_head_scores(methods: str | Iterable[str]) -> list[MethodSpec]:
    """Return the specs of head scores; "all" stands for every one of `heads.scores.METHODS`."""
    listed = methods.split(",") if isinstance(methods, str) else list(methods)
    texts: list[str] = [text.strip() for text in listed if text.strip()]
    if texts == ["all"]:
        texts = list(METHODS)
    if not texts:
        raise OptionError(f"No head score is named: expected some of {', '.join(METHODS)}.")
    twice = sorted({text for text in texts if texts.count(text) > 1})
    if twice:
        raise OptionError(f"{', '.join(twice)} is named twice; name each score once.")
    return [_parse(text) for text in texts]


def _parse(text: str) -> MethodSpec:
    name, *pairs = text.split(":")
    if name not in METHODS:
        raise unknown_name("head score", name, METHODS)
    options = dict(parse_pair(pair, "taylor:quantity=loss") for pair in pairs)
    for option, value in options.items():
        if option not in OPTIONS:
            raise unknown_name("option", option, OPTIONS)
        if value not in OPTIONS[option]:
            raise unknown_name(option, value, OPTIONS[option])
    return MethodSpec(text, name, options)
