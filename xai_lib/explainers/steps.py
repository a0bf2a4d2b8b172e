"""Steps of explainers that published code takes otherwise than its paper.

An explainer reads like its formula. Where code that was published with it departs from that, the
departure stands in `published/`, a module a repository, registered for a step by name; `step` puts
it in the place of ours under `compat="reference"`. docs/conventions.md's table is printed from the
registrations.
"""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, TypeVar

from xai_lib.passes.call import Call

# What a step is: what a departure puts in its place is of the same kind.
Ours = TypeVar("Ours")
Departing = TypeVar("Departing")


@dataclass(frozen=True)
class Departure:
    """One step that published code takes otherwise, and what docs/conventions.md says of it.

    home: the module of the repository. value: what stands in the place of ours, a function or a
    setting. when: whether the code was
    written for such a call.
    """

    home: str
    step: str
    value: Any
    when: Callable[[Call], bool]
    methods: str
    default: str
    reference: str


_DEPARTURES: list[Departure] = []


def departs(
    step: str,
    *,
    methods: str = "",
    default: str = "",
    reference: str = "",
    when: Callable[[Call], bool] = lambda call: True,
) -> Callable[[Departing], Departing]:
    """Register a function, or a setting, as what published code does at `step`.

    methods, default, reference: its row of the table, where another departure does not tell it.
    """

    home = sys._getframe(1).f_globals["__name__"]

    def register(value: Departing) -> Departing:
        _DEPARTURES.append(Departure(home, step, value, when, methods, default, reference))
        return value

    return register


def departures() -> list[Departure]:
    """Return all departures, by repository and in the order in which each lists them."""
    _load()
    return sorted(_DEPARTURES, key=lambda d: d.home)


@cache
def _load() -> None:
    published = import_module("xai_lib.explainers.published")
    for module in sorted(m.name for m in pkgutil.iter_modules(published.__path__)):
        import_module(f"{published.__name__}.{module}")


def step(call: Call, name: str, ours: Ours) -> Ours:
    """Return what to do at a step: ours, or under compat="reference" what published code does."""
    if not call.reference:
        return ours
    found = (d.value for d in departures() if d.step == name and d.when(call))
    return next(found, ours)


def conventions() -> str:
    """Return the table of docs/conventions.md in Markdown: where default and reference differ."""
    lines = ['| methods | default | `compat="reference"` |', "|---|---|---|"]
    lines += [f"| {d.methods} | {d.default} | {d.reference} |" for d in departures() if d.methods]
    return "\n".join(lines)
