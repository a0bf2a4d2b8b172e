"""Typed errors. Each message says what was wrong, what was expected and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from importlib.util import find_spec

# What each extra of the package gives, as the end of "The extra NAME ...".
EXTRAS = {
    "workbook": "renders the notebooks into reports",
    "train": "fine-tunes text models",
    "data": "reads ImageNet segmentation and the hub's data sets, and fetches the papers' data",
    "regions": "reads region features from HDF5 and LMDB files",
    "cluster": "spreads the shards of a run over processes and clusters",
}


class XAIError(Exception):
    """Base of every error that this package raises on purpose."""


class IncompleteWarning(UserWarning):
    """Scores that should add up to a known sum are some way from it."""


class InputError(XAIError, ValueError):
    """The inputs cannot be explained: shape, dtype, device, NaN, empty batch, unreadable file."""


class TargetError(XAIError, ValueError):
    """The target class does not exist in this model."""


class OptionError(XAIError, ValueError):
    """Unknown method, option, model or profile name, or an option value out of its range."""


class MissingExtraError(OptionError, ImportError):
    """A package that only an extra brings is not installed; the message has the command."""


class UnsupportedModelError(XAIError, RuntimeError):
    """The model cannot be traced at all: it has no attention, or it is compiled."""


class MethodNotApplicableError(XAIError, RuntimeError):
    """This method needs something this model lacks; other methods may work.

    No TypeError: torch takes one raised below `a @ b` for "unsupported operand types".
    """


class CheckpointError(XAIError, OSError):
    """A checkpoint or weight file is missing, incomplete or damaged."""


class MissingDataError(XAIError, FileNotFoundError):
    """A data set is not where it was looked for; the message says where to get it."""


class RunError(XAIError, RuntimeError):
    """A run cannot go on, or its folder cannot be used; what it has computed so far is kept."""


class RunInterrupted(RunError):
    """A run was stopped by Ctrl-C; the message says how to go on."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> OptionError:
    """Return the error for a name that is not in `known`, suggesting the nearest ones."""
    known = sorted(known)
    near = get_close_matches(str(name), known, n=2, cutoff=0.5)
    hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
    return OptionError(f"Unknown {kind} {name!r}. {hint}Known: {', '.join(known)}.")


def needs_extra(extra: str, *packages: str) -> None:
    """Raise a MissingExtraError unless all `packages`, which the extra brings, can be imported."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"The package {missing[0]} is not installed: the extra {extra!r}, which "
            f"{EXTRAS[extra]}, brings it: pip install 'xai-lib[{extra}]'."
        )
