"""Citations in a few words, "Abnar & Zuidema, ACL 2020", made from CITATION.cff.

A reference's key is its `abbreviation`: the Citation File Format 1.2.0 has no other field for one.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from xai_lib.errors import InputError, unknown_name

FILE = "CITATION.cff"


def citation(key: str) -> str:
    """Return the reference called `key` as "Authors, Venue Year". Raises OptionError if unknown."""
    known = references()
    if key not in known:
        raise unknown_name(f"reference in {FILE}", key, known)
    reference = known[key]
    names = [author["family-names"] for author in reference["authors"] if "family-names" in author]
    # As a paper cites: two names are both said, of more the first one.
    several = len(reference["authors"]) > 2
    who = f"{names[0]} et al." if several else " & ".join(names)
    return f"{who}, {_venue(reference)} {reference['year']}"


@cache
def references() -> dict[str, dict]:
    """Return the references of CITATION.cff that have a key, by key.

    Raises InputError where there is no such file: it is part of a checkout and of the wheel.
    """
    import yaml

    # Beside the package in a checkout; an installed wheel carries it inside the package.
    package = Path(__file__).parents[1]
    places = [package / FILE, package.parent / FILE]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise InputError(f"{FILE} is not in {package} or beside it; install the package again.")
    # Ten times as fast where PyYAML was built with its parser in C, as its wheels are.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    listed = yaml.load(file.read_text(encoding="utf-8"), Loader=loader)["references"]
    return {entry["abbreviation"]: entry for entry in listed if "abbreviation" in entry}


def _venue(reference: dict) -> str:
    """Return the letters that a venue gives itself in parentheses; a journal's name without any."""
    full = reference.get("collection-title") or reference.get("journal") or reference["publisher"]
    if isinstance(full, dict):
        return full["name"]
    short = re.search(r"\(([\w-]+)\)", full)
    if short is None:
        return full.partition(":")[0]
    return f"{short[1]}-W" if "workshop" in full.lower() else short[1]
