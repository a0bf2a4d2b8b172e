"""Methods as a command line names them: `rollout`, `rollout:start_layer=1`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from xai_lib.api import COMPAT, FIRST_TOKEN
from xai_lib.errors import OptionError, unknown_name
from xai_lib.explainers import registry
from xai_lib.options import parse_pair


@dataclass(frozen=True)
class MethodSpec:
    """One method and its options; `label` is what tables call it."""

    label: str
    name: str
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> MethodSpec:
        """Read "name:option=value:option=value"; values are JSON or else text."""
        name, *pairs = text.split(":")
        given = [parse_pair(pair, "rollout:start_layer=1") for pair in pairs]
        options = dict(given)
        if len(options) < len(given):
            raise OptionError(f"{text!r} gives an option twice; give each once.")
        if options.get("compat") not in COMPAT:
            raise unknown_name("compat", options["compat"], ("reference",))
        if options.get("first_token", "keep") not in FIRST_TOKEN:
            raise unknown_name("first_token", options["first_token"], FIRST_TOKEN)
        general = ("compat", "first_token")
        registry.find(name, {k: v for k, v in options.items() if k not in general})
        return cls(text, name, options)

    @property
    def class_specific(self) -> bool:
        return registry.all_methods()[self.name].class_specific


def parse_methods(methods: str | Iterable[str]) -> list[MethodSpec]:
    """Return the specs of a list, or of a comma-separated string; "all" stands for every method.

    All of them are checked before any is returned, so that a misspelt last one costs nothing.
    """
    listed: Sequence[str] = methods.split(",") if isinstance(methods, str) else list(methods)
    texts = [text.strip() for text in listed if text.strip()]
    if texts == ["all"]:
        texts = list(registry.all_methods())
    if not texts:
        raise OptionError("No method is named: expected some of `xai methods`, or 'all'.")
    twice = sorted({text for text in texts if texts.count(text) > 1})
    if twice:
        raise OptionError(f"{', '.join(twice)} is named twice; name each method once.")
    return [MethodSpec.parse(text) for text in texts]
