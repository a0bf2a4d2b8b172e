"""The registry of evaluators: an evaluator is one file of this room, found by itself."""

from __future__ import annotations

import pkgutil
import typing
from collections.abc import Callable, Iterable
from dataclasses import fields
from importlib import import_module
from typing import Any, TypeVar

from xai_lib.errors import OptionError, unknown_name
from xai_lib.evaluators.base import Evaluator
from xai_lib.evaluators.specs import MethodSpec
from xai_lib.options import check_options

Kind = TypeVar("Kind", bound=type[Evaluator])

_EVALUATORS: dict[str, type[Evaluator]] = {}


def evaluator(name: str) -> Callable[[Kind], Kind]:
    """Register a dataclass, see `Evaluator`, as the evaluator `name`.

    Raises OptionError for a name that another module has taken.
    """

    def register(kind: Kind) -> Kind:
        # The same module may do it again: a cell of a notebook is run many times.
        taken = _EVALUATORS.get(name)
        if taken is not None and taken.__module__ != kind.__module__:
            raise OptionError(
                f"{taken.__module__} has an evaluator {name!r} already; choose another name."
            )
        kind.name = name
        _EVALUATORS[name] = kind
        return kind

    return register


def all_evaluators() -> dict[str, type[Evaluator]]:
    """Return every evaluator by name, in the order of the alphabet; this imports them all."""
    room = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules(import_module(room).__path__, f"{room}."):
        import_module(module.name)
    return dict(sorted(_EVALUATORS.items()))


def evaluator_class(name: str) -> type[Evaluator]:
    """Return the class of the evaluator `name`, or raise an OptionError with the nearest names."""
    known = all_evaluators()
    if name not in known:
        raise unknown_name("evaluator", name, known)
    return known[name]


def create(name: str, **options: Any) -> Evaluator:
    """Return the evaluator `name` with `options`, each checked against its annotated type."""
    kind: Any = evaluator_class(name)
    known = {f.name: f.default for f in fields(kind)}
    check_options(name, options, known, typing.get_type_hints(kind))
    return kind(**options)


def parse_methods_of(name: str, methods: str | Iterable[str]) -> list[MethodSpec]:
    """Return the specs of what the evaluator `name` evaluates, see `parse_methods`."""
    return evaluator_class(name).parse_methods(methods)
