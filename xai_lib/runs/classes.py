"""Whether a data set's labels are the model's classes: by name where both have names."""

from __future__ import annotations

from collections.abc import Sequence

from xai_lib.datasets.images.imagenet_labels import class_index, class_names
from xai_lib.errors import TargetError

# What data sets of sentiment and models for it write for the same class.
SHORT = {"neg": "negative", "neu": "neutral", "pos": "positive"}


def class_places(
    of_data: Sequence[str] | None, of_model: Sequence[str], model: str = "the model"
) -> tuple[int, ...] | None:
    """Return the model's class of each label of the data set; None where labels are classes.

    Class folders are numbered by their sorted names, which is rarely the model's order: labels that
    were taken for classes would be wrong without a sign. Names that are numbers are classes
    themselves ("10" sorts before "2"); names are looked up in the model's, upper case, "_", the
    synonyms after a comma and the short forms of sentiment (`SHORT`) aside; wnids are those of
    ILSVRC 2012. Where one side has no names, only numbers can be translated. Raises TargetError for
    a name that is no class of the model, or that two classes share, and for names beside another
    number of classes that have none.
    """
    if not of_data:
        return None
    if all(name.isdecimal() for name in of_data):
        return _unless_plain([int(name) for name in of_data])
    if of_model and not are_names(of_model) and len(of_data) != len(of_model):
        # A split may lack a class, and names are numbered by what is there.
        raise TargetError(
            f"The data set has the {len(of_data)} classes {', '.join(map(repr, of_data[:3]))}..., "
            f"{model} has {len(of_model)} without names: nobody can tell which is which. Name the "
            "model's classes by id2label in its config.json, or number the data set's."
        )
    if not are_names(of_model) or tuple(of_data) == tuple(of_model):
        return None
    known = _by_name(of_model)
    if tuple(of_model) == class_names():
        known |= {wnid: [index] for wnid, index in class_index().items()}
    found = [_chosen(known, name, place) for place, name in enumerate(of_data)]
    if len(of_data) == len(of_model) and _same_order(found):
        return None
    unclear = next((name for name, at in zip(of_data, found, strict=True) if at is None), None)
    if unclear is not None:
        reason = "two classes of" if known.get(_plain(unclear)) else "no class of"
        raise TargetError(
            f"The data set's class {unclear!r} is {reason} {model}, which has "
            f"{', '.join(map(repr, of_model[:3]))}... ({len(of_model)}): labels would mean other "
            "classes. Name class folders by the model's classes or their numbers (ImageNet's: by "
            "wnid); in Python, a processor without class_names takes labels as they are."
        )
    return _unless_plain(found)


def are_names(of_model: Sequence[str]) -> bool:
    """Say whether classes have names; transformers calls those without LABEL_0, LABEL_1..."""
    return tuple(of_model) != tuple(f"LABEL_{i}" for i in range(len(of_model)))


def _by_name(names: Sequence[str]) -> dict[str, list[int]]:
    """Return the classes by name; a first synonym counts where nothing is called so in full."""
    known: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        known.setdefault(_plain(name), []).append(place)
    short: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        short.setdefault(_plain(_first(name)), []).append(place)
    return short | known


def _chosen(known: dict[str, list[int]], name: str, place: int) -> int | None:
    """Return the one class of this name; ImageNet has two cranes, of which the own place counts."""
    places = known.get(_plain(name)) or known.get(_plain(_first(name))) or []
    if place in places:
        return place
    return places[0] if len(places) == 1 else None


def _same_order(found: Sequence[int | None]) -> bool:
    """Say whether names are spelt differently here and there, but nothing lies elsewhere."""
    at_home = sum(place == index for index, place in enumerate(found))
    return 2 * at_home > len(found) and at_home + list(found).count(None) == len(found)


def _first(name: str) -> str:
    return name.partition(",")[0]


def _plain(name: str) -> str:
    words = name.replace("_", " ").casefold().split()
    return " ".join(SHORT.get(word, word) for word in words)


def _unless_plain(places: list[int]) -> tuple[int, ...] | None:
    return None if places == [*range(len(places))] else tuple(places)
