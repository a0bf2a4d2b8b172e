"""`xai methods`: the table of methods, and the pages of a checkout that are made of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xai_lib.errors import InputError, RunError

if TYPE_CHECKING:
    from pandas import DataFrame

CHECKOUT = Path(__file__).parents[2]
# Pages hold their tables between such comments.
PLACE = r"(<!-- {name}: begin[^>]*-->\n\n).*?(\n\n<!-- {name}: end -->)"


def methods(
    markdown: Annotated[bool, typer.Option("--markdown", help="The table of the README.")] = False,
    write: Annotated[
        bool,
        typer.Option(
            "--write", help="Renew this checkout's README.md, conventions and support matrix."
        ),
    ] = False,
) -> None:
    """List the methods, what each needs, its options and its citation."""
    import xai_lib as xai

    if write:
        write_pages(CHECKOUT)
    elif markdown:
        print(readme_table(xai.methods()))
    else:
        print_table(xai.methods())


def write_pages(root: Path) -> None:
    """Renew what a checkout says of the methods: README, conventions and the support matrix.

    The matrix tries every method on every model of tests/support, which takes minutes. Raises
    InputError if `root` is no checkout, RunError if a method answers wrongly.
    """
    support = root / "tests" / "support"
    if not support.is_dir():
        raise InputError(f"{root} is no checkout; `--write` renews the pages of a clone.")
    for page in ("README.md", "docs/conventions.md"):
        file = root / page
        file.write_text(renewed(file.read_text(encoding="utf-8"), page), encoding="utf-8")
        print(f"Wrote {file}.")
    print(f"Now trying every method on every model of {support}.", flush=True)
    done = subprocess.run([sys.executable, "-m", "support"], cwd=support.parent)
    if done.returncode != 0:
        raise RunError("The support matrix could not be computed; its error stands above.")


def renewed(text: str, page: str = "README.md") -> str:
    """Return a page with its present table. Raises InputError without a place for it.

    README.md has the table of methods, docs/conventions.md that of departures.
    """
    import xai_lib as xai
    from xai_lib.explainers.steps import conventions

    readme = page == "README.md"
    name = "methods" if readme else "departures"
    place = re.compile(PLACE.format(name=name), re.DOTALL)
    if not place.search(text):
        raise InputError(f"{page} has no `<!-- {name}: begin -->` and `<!-- {name}: end -->`.")
    table = readme_table(xai.methods()) if readme else conventions()
    return place.sub(lambda found: found[1] + table + found[2], text)


def readme_table(table: DataFrame) -> str:
    """Return the methods as the Markdown table that README.md holds."""
    table = table[["name", "family", "class_specific", "needs", "citation"]].copy()
    table["name"] = "`" + table["name"] + "`"
    table["class_specific"] = table["class_specific"].map({True: "yes", False: "no"})
    table.columns = ["method", "family", "class-specific", "needs", "paper"]
    return table.to_markdown(index=False)


def print_table(frame: DataFrame) -> None:
    """Print a table as plain text."""
    print(frame.to_markdown(index=False, tablefmt="simple"))
