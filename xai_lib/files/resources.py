"""What travels beside the code: notebooks and citations, in the wheel or in the checkout."""

from __future__ import annotations

from pathlib import Path

from xai_lib.errors import MissingDataError

PACKAGE = Path(__file__).parents[1]


def resource(name: str) -> Path:
    """Return where `name`, say CITATION.cff or notebooks, lies: in the wheel, else the checkout.

    The wheel holds these files inside the package; a checkout has them beside it. Raises
    MissingDataError where neither does.
    """
    for place in (PACKAGE, PACKAGE.parent):
        if (place / name).exists():
            return place / name
    raise MissingDataError(
        f"{name} is neither in {PACKAGE} nor beside it: install the wheel, or a checkout with "
        "`pip install -e .`."
    )
