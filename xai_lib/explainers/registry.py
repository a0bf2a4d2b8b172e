"""The registry of explainers: name, family, needs and citation, and their options."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from xai_lib.errors import unknown_name
from xai_lib.options import check_options

MODULES = ("attention", "lrp", "intuition", "gradients", "wu_ong", "control")

CITATIONS = {
    "abnar2020": "Abnar & Zuidema, ACL 2020",
    "achtibat2024": "Achtibat et al., ICML 2024",
    "bach2015": "Bach et al., PLOS ONE 2015",
    "chefer2021cvpr": "Chefer et al., CVPR 2021",
    "chefer2021iccv": "Chefer et al., ICCV 2021",
    "chen2023": "Chen et al., TMLR 2023",
    "samek2017": "Samek et al., TNNLS 2017",
    "selvaraju2017": "Selvaraju et al., ICCV 2017",
    "shrikumar2017": "Shrikumar et al., ICML 2017",
    "simonyan2014": "Simonyan et al., ICLR-W 2014",
    "smilkov2017": "Smilkov et al., ICML-W 2017",
    "sundararajan2017": "Sundararajan et al., ICML 2017",
    "vaswani2017": "Vaswani et al., NeurIPS 2017",
    "voita2019": "Voita et al., ACL 2019",
    "wu2021": "Wu & Ong, arXiv 2021",
}


@dataclass(frozen=True)
class Method:
    """One registered explainer. `needs` names the passes it takes beside the forward pass.

    streams: what it does where two streams attend to each other: "together" follows its maps
    through both, "apart" explains each at the input, "one" is defined for one sequence only.
    """

    name: str
    family: str
    function: Callable
    class_specific: bool
    needs: tuple[str, ...]
    cite: str
    streams: str = "one"

    @property
    def options(self) -> dict[str, object]:
        """Option names and their defaults, from the explainer's signature."""
        parameters = list(inspect.signature(self.function).parameters.values())[1:]
        return {p.name: p.default for p in parameters}

    @property
    def summary(self) -> str:
        return inspect.getdoc(self.function).split("\n")[0]


_METHODS: dict[str, Method] = {}


def explainer(
    name: str,
    *,
    family: str,
    cite: str,
    needs=(),
    class_specific: bool = True,
    streams: str = "one",
):
    """Register a function of a `Call` and keyword options as the explainer `name`."""
    if cite not in CITATIONS:
        raise KeyError(f"Add the citation {cite!r} to CITATIONS in xai_lib/registry.py.")

    def register(function: Callable) -> Callable:
        needed = tuple(needs)
        _METHODS[name] = Method(name, family, function, class_specific, needed, cite, streams)
        return function

    return register


def all_methods() -> dict[str, Method]:
    """Return every registered method by name, importing the explainer families."""
    homes = [import_module(f"xai_lib.explainers.{module}").__name__ for module in MODULES]
    # Whichever family somebody else imported first, the order is that of MODULES.
    return dict(sorted(_METHODS.items(), key=lambda entry: _place(entry[1], homes)))


def _place(method: Method, homes: list[str]) -> int:
    home = method.function.__module__
    return homes.index(home) if home in homes else len(homes)


def find(name: str, options: dict[str, object]) -> Method:
    """Return the method called `name`, after checking that it knows all `options`."""
    known = all_methods()
    if not isinstance(name, str) or name not in known:
        raise unknown_name("method", name, known)
    defaults = known[name].options
    expected = typing.get_type_hints(known[name].function)
    check_options(name, options, defaults, expected)
    return known[name]


def methods():
    """Return the table of methods: name, family, class-specific, needs, options and citation."""
    import pandas as pd

    return pd.DataFrame(
        {
            "name": m.name,
            "family": m.family,
            "class_specific": m.class_specific,
            "needs": ", ".join(m.needs) or "forward pass only",
            "options": ", ".join(f"{k}={v!r}" for k, v in m.options.items()),
            "citation": CITATIONS[m.cite],
        }
        for m in all_methods().values()
    )
