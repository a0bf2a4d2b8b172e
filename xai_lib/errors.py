"""Typed errors. Each message says what was wrong, what was expected and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class XAIError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(XAIError, ValueError):
    """The inputs cannot be explained: shape, dtype, device, NaN, empty batch, unreadable file."""


class TargetError(XAIError, ValueError):
    """The target class does not exist in this model."""


class OptionError(XAIError, ValueError):
    """Unknown method, option, model or profile name, or an option value out of its range."""


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
