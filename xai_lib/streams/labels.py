"""The names of a model's classes, or none where its configuration does not say which is which."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from torch import nn

# What transformers calls the classes of a model that nobody named.
_DEFAULT = re.compile(r"LABEL_\d+")


def class_names(model: nn.Module, classes: int | None = None) -> tuple[str, ...] | None:
    """Return the model's own class names: a HF config's id2label, a timm config's label_names.

    classes: how many scores the model has (None: as many as are named). A name belongs to the score
    of its number; a score without one is "class 3". None where names are another head's: there are
    more of them, they do not reach its end (a detector's "no object" may follow them), or id2label
    and label2id contradict each other.
    """
    named = _of_config(getattr(model, "config", None))
    # timm's configuration is a dict that `reset_classifier` leaves as it was.
    listed = (getattr(model, "pretrained_cfg", None) or {}).get("label_names")
    if named is None and listed:
        named = _numbered(listed)
    if not named:
        return None
    end = max(named) + 1
    count = end if classes is None else classes
    if min(named) < 0 or not end <= count <= end + 1:
        return None
    # One label that is no name says nothing of several scores.
    if count > end and is_default(named.values()):
        return None
    return tuple(named.get(index, f"class {index}") for index in range(count))


def name_of_one(names: Sequence[str], index: int) -> str:
    """Return what the only score of a model is called; index: 0, or -1 for a low one."""
    named = names[0] if names and not is_default(names) else None
    if index < 0:
        return f"not {named}" if named else "a low score"
    return named or "the score"


def is_default(names: Iterable[str]) -> bool:
    """Whether all names are those that transformers gives to classes that nobody named."""
    return all(_DEFAULT.fullmatch(name) for name in names)


def _of_config(config: object) -> dict[int, str] | None:
    by_number = _numbered(getattr(config, "id2label", None))
    by_name = _numbered(getattr(config, "label2id", None))
    if by_number is None or by_name is None:
        return by_number or by_name
    if is_default(by_number.values()):
        return by_number if is_default(by_name.values()) else by_name
    known = set(by_number.values())
    told = ((index, name) for index, name in by_name.items() if name in known)
    return None if any(by_number.get(index) != name for index, name in told) else by_number


def _numbered(labels: object) -> dict[int, str] | None:
    """Return names by number, of a mapping in either direction or a list; None for neither."""
    if isinstance(labels, Mapping):
        pairs = list(labels.items())
    elif isinstance(labels, Sequence) and not isinstance(labels, str):
        pairs = list(enumerate(labels))
    else:
        return None
    for straight in (True, False):
        numbers = [pair[0 if straight else 1] for pair in pairs]
        names = [pair[1 if straight else 0] for pair in pairs]
        found = [_whole(number) for number in numbers]
        known = {n: str(name) for n, name in zip(found, names, strict=True) if n is not None}
        if len(known) == len(pairs):
            return known or None
    return None


def _whole(number: object) -> int | None:
    """Return a class number, which JSON files hold as text; None for what is none."""
    if isinstance(number, int) and not isinstance(number, bool):
        return number
    return int(number) if isinstance(number, str) and re.fullmatch(r"\d+", number) else None
