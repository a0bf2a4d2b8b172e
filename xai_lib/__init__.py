"""Explain any unmodified transformer, and regenerate the papers that claim to.

`explain` answers which tokens count for a prediction; `methods` lists how; `evaluate` scores them
on a data set; `load` brings a model; `trace` shows a forward pass from inside. Names are imported
on first use, so that importing the package costs next to nothing.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "Attribution": "attribution",
    "evaluate": "runs",
    "examine": "api",
    "explain": "api",
    "explain_long": "long_texts",
    "head_scores": "heads",
    "load": "models",
    "methods": "explainers.registry",
    "trace": "api",
    "widgets": "",
    "plots": "",
    "prune_heads": "heads",
    "errors": "",
    "datasets": "",
    "runs": "",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOME[name]
    module = import_module(f"{__name__}.{home or name}")
    value = module if not home else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
