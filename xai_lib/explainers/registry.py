"""The registry of explainers: each one's family, citation, sign, needs and options.

`@explainer` on a function is all that makes it a method: its module is found where it lies, and
tables, legends and the looks of figures come from here.
"""

from __future__ import annotations

import inspect
import pkgutil
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from xai_lib import explainers
from xai_lib.errors import OptionError, unknown_name
from xai_lib.explainers.citations import citation
from xai_lib.explainers.signs import Sign
from xai_lib.options import check_options

if TYPE_CHECKING:
    import pandas

# Tables begin with these modules, from simple to involved, and end with the control; a module that
# is not named stands between them, by its name.
FIRST = ("attention", "lrp", "perception", "gradients", "alpha_beta", "attention_tracing")
LAST = ("control",)


@dataclass(frozen=True)
class Method:
    """One registered explainer. `needs` names the passes it takes beside the forward pass.

    cite: the key of its paper in CITATION.cff. sign: what the sign of its scores means.
    streams: what it does where two streams attend to each other: "together" follows its maps
    through both, "apart" explains each at the input, "one" is defined for one sequence only.
    """

    name: str
    family: str
    function: Callable
    class_specific: bool
    needs: tuple[str, ...]
    cite: str
    sign: Sign
    streams: str = "one"

    @property
    def options(self) -> dict[str, object]:
        """Option names and their defaults, from the explainer's signature."""
        parameters = list(inspect.signature(self.function).parameters.values())[1:]
        return {p.name: p.default for p in parameters}

    @property
    def summary(self) -> str:
        return (inspect.getdoc(self.function) or "").split("\n")[0]

    @property
    def citation(self) -> str:
        """The paper in a few words. Raises OptionError if CITATION.cff does not have it."""
        return citation(self.cite)


_METHODS: dict[str, Method] = {}


def explainer(
    name: str,
    *,
    family: str,
    cite: str,
    sign: Sign,
    needs: Iterable[str] = (),
    class_specific: bool = True,
    streams: str = "one",
) -> Callable[[Callable], Callable]:
    """Register a function of a `Call` and keyword options as the explainer `name`.

    The other arguments are those of `Method`. Whether CITATION.cff has `cite` is looked up when a
    citation is asked for, so that explaining does not wait for the file. Raises OptionError for a
    name that another module has registered.
    """

    def register(function: Callable) -> Callable:
        # The same module may do it again: a cell of a notebook is run many times.
        taken = _METHODS.get(name)
        if taken is not None and taken.function.__module__ != function.__module__:
            raise OptionError(
                f"{taken.function.__module__} has a method {name!r} already; choose another name."
            )
        _METHODS[name] = Method(
            name, family, function, class_specific, tuple(needs), cite, sign, streams
        )
        return function

    return register


def all_methods() -> dict[str, Method]:
    """Return every registered method by name, importing the modules of this room."""
    homes = _imported(tuple(explainers.__path__))
    # Whichever module somebody else imported first, the order is that of `homes`.
    return dict(sorted(_METHODS.items(), key=lambda entry: _place(entry[1], homes)))


@cache
def _imported(folders: tuple[str, ...]) -> tuple[str, ...]:
    """Import the modules of the room and return them in the order of the tables.

    `published`, a room inside it, has no methods.
    """
    found = {module.name for module in pkgutil.iter_modules(folders) if not module.ispkg}
    order = (*FIRST, *sorted(found - {*FIRST, *LAST}), *LAST)
    homes = tuple(f"{explainers.__name__}.{name}" for name in order if name in found)
    for home in homes:
        import_module(home)
    return homes


def _place(method: Method, homes: tuple[str, ...]) -> int:
    home = method.function.__module__
    return homes.index(home) if home in homes else len(homes)


def find(name: str, options: dict[str, object]) -> Method:
    """Return the method called `name`, after checking that it knows all `options`."""
    known = all_methods()
    if not isinstance(name, str) or name not in known:
        raise unknown_name("method", name, known)
    if options:
        expected = typing.get_type_hints(known[name].function)
        check_options(name, options, known[name].options, expected)
    return known[name]


def methods() -> pandas.DataFrame:
    """Return the table of methods: name, family, class-specific, needs, options and citation."""
    import pandas as pd

    return pd.DataFrame(
        {
            "name": m.name,
            "family": m.family,
            "class_specific": m.class_specific,
            "needs": ", ".join(m.needs) or "forward pass only",
            "options": ", ".join(f"{k}={v!r}" for k, v in m.options.items()),
            "citation": m.citation,
        }
        for m in all_methods().values()
    )
