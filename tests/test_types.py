"""Annotations are checked: complete and resolvable in every room that is held to them."""

import importlib
import inspect
import pkgutil
import subprocess
import sys
import typing
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest
import torch
import type_checks
from beartype.roar import BeartypeCallHintViolation

import xai_lib
from xai_lib.rules.gate import safe_divide

# What is imported for its type alone, since its import takes long.
LATE = {"pandas": pandas}


def public_functions(room):
    """Yield the public functions of a room, with the methods of its public classes, by name."""
    package = importlib.import_module(f"xai_lib.{room}")
    found = pkgutil.walk_packages(package.__path__, package.__name__ + ".")
    for module in map(importlib.import_module, [package.__name__, *(m.name for m in found)]):
        for name, value in vars(module).items():
            if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
                continue
            if inspect.isclass(value):
                for part, method in vars(value).items():
                    method = getattr(method, "fget", None) or getattr(method, "__func__", method)
                    if inspect.isfunction(method) and not part.startswith("_"):
                        yield f"{module.__name__}.{name}.{part}", method
            elif inspect.isfunction(value):
                yield f"{module.__name__}.{name}", value


def bare_tensors(hint):
    """Whether a tensor without dtype and shape stands in an annotation, but as a callable's."""
    if typing.get_origin(hint) is Callable:
        return False
    return hint is torch.Tensor or any(map(bare_tensors, typing.get_args(hint)))


@pytest.mark.parametrize("room", type_checks.ROOMS)
def test_public_functions_say_what_they_take_and_return(room):
    lacking, shapeless = [], []
    for name, function in public_functions(room):
        hints = typing.get_type_hints(function, localns=LATE, include_extras=True)
        given = [p for p in inspect.signature(function).parameters if p not in ("self", "cls")]
        lacking += [f"{name}: {p}" for p in (*given, "return") if p not in hints]
        shapeless += [f"{name}: {p}" for p, hint in hints.items() if bare_tensors(hint)]
    assert not lacking
    assert not shapeless


def test_a_wrong_shape_or_type_is_found():
    with pytest.raises(BeartypeCallHintViolation):
        safe_divide(torch.ones(2), torch.ones(3))
    with pytest.raises(BeartypeCallHintViolation):
        safe_divide(torch.ones(2, dtype=torch.int64), torch.ones(2))


def test_users_are_told_of_the_types_and_pay_nothing_for_them():
    assert Path(xai_lib.__file__).with_name("py.typed").exists()
    code = "import sys, xai_lib; sys.exit('beartype' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
