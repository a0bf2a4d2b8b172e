"""Class names as sentences that a text encoder compares with an image: zero-shot prompts."""

from __future__ import annotations

from collections.abc import Sequence

from xai_lib.errors import InputError, OptionError

TEMPLATE = "a photo of a {}"


def class_prompts(names: Sequence[str], template: str = TEMPLATE) -> tuple[str, ...]:
    """Return `template` with each name in the place of its one "{}", in the order of `names`.

    The default is what Beyond Intuition's CLIP test fills in: "a photo of a {}", without the full
    stop of CLIP's own prompts, and with "a" before vowels too, "a photo of a owl". Another text has
    other scores, so the article is not corrected; a template such as "a photo of {}" avoids it.

    Raises InputError for no names, empty names and names that are equal but for white space and
    case, which no text encoder could tell apart; OptionError for a template without exactly one
    "{}".

    >>> class_prompts(["cat", "owl"])
    ('a photo of a cat', 'a photo of a owl')
    """
    if not isinstance(template, str) or template.count("{}") != 1:
        raise OptionError(
            f"template is {template!r}; expected a text with one '{{}}' where the name goes, such "
            f"as {TEMPLATE!r}."
        )
    if isinstance(names, str):
        raise InputError(f"names is the text {names!r}; expected a list of class names.")
    places: dict[str, int] = {}
    plain = []
    for place, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"names[{place}] is {name!r}; expected the name of a class, as text.")
        plain.append(" ".join(name.split()))
        first = places.setdefault(plain[-1].casefold(), place)
        if first != place:
            raise InputError(
                f"names[{first}] and names[{place}] are both {plain[-1]!r}: their prompts would be "
                "the same text. Give each class a name of its own."
            )
    if not plain:
        raise InputError("names is empty; expected at least one class name.")
    return tuple(template.replace("{}", name) for name in plain)
