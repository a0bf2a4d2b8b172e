"""Rendering: papermill runs each notebook of the series into a page of a report."""

from __future__ import annotations

import ast
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
import papermill
from traitlets.config import Config

from xai_lib.errors import MissingDataError, OptionError, unknown_name
from xai_lib.files.resources import PACKAGE, resource
from xai_lib.files.writing import write_text
from xai_lib.models.catalog import PROFILES
from xai_lib.reporting.artifacts import FOLDER_VARIABLE, NOTEBOOK_VARIABLE
from xai_lib.reporting.html import notebook_html, without_widgets
from xai_lib.reporting.index import (
    OUTCOME_KEY,
    notebook_title,
    write_index,
    write_readme,
)
from xai_lib.runs.fingerprints import current_platform

CELL_TIMEOUT_S = 1800
PLATFORM_FILE = "platform.json"


@dataclass(frozen=True)
class Outcome:
    """How one notebook went: `error` is None, or one line on what stopped it."""

    name: str
    seconds: float
    error: str | None


def render_report(
    profile: str = "embedded",
    only: Sequence[str] = (),
    out: str | os.PathLike | None = None,
    notebooks: str | os.PathLike | None = None,
) -> list[Outcome]:
    """Run the notebooks and write their pages, figures, tables, index.html and README.md to `out`.

    `only` picks notebooks by number or by the start of their name; `out` defaults to
    reports/PROFILE beside `notebooks`, or in the current folder for those of the wheel. Prints one
    line per notebook. One that fails keeps its page up to the failure, and the others still run.
    Raises OptionError for a profile or a selection that does not exist, and MissingDataError where
    there are no notebooks.
    """
    if profile not in PROFILES:
        raise unknown_name("profile", profile, PROFILES)
    source = Path(notebooks) if notebooks else find_notebooks()
    chosen = select(source, only)
    # What is installed is not written to: those notebooks run as if they lay in ./reports.
    installed = source.parent == PACKAGE
    reports = (Path.cwd() if installed else source.parent) / "reports"
    folder = Path(out or reports / profile).resolve()
    place = reports if installed else source
    for needed in (folder, place):
        needed.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for number, path in enumerate(chosen, 1):
        print(f"[{number}/{len(chosen)}] {path.stem} ...", end=" ", flush=True)
        outcome = _render(path, folder, profile, place)
        outcomes.append(outcome)
        state = "ok" if outcome.error is None else f"failed: {outcome.error}"
        print(f"{outcome.seconds:.1f} s {state}", flush=True)
    write_readme(folder, profile)
    write_text(folder / PLATFORM_FILE, json.dumps(current_platform(), indent=1) + "\n")
    print(f"Report: {_short(write_index(folder, profile))}")
    return outcomes


def find_notebooks() -> Path:
    """Return the `notebooks` folder of the current directory, else the one installed."""
    here = Path.cwd() / "notebooks"
    return here if any(here.glob("*.ipynb")) else resource("notebooks")


def select(source: Path, only: Sequence[str]) -> list[Path]:
    """Return the notebooks in `source` that `only` names, all for an empty `only`, in order."""
    found = {path.stem: path for path in sorted(source.glob("[!.]*.ipynb"))}
    if not found:
        raise MissingDataError(f"There are no notebooks in {source}.")
    chosen = set()
    for wanted in only:
        names = [name for name in found if name == wanted or name.startswith(f"{wanted}_")]
        if not names:
            raise OptionError(f"No notebook is {wanted!r}. There are: {', '.join(found)}.")
        chosen.update(names)
    return [path for name, path in found.items() if not only or name in chosen]


def parameter_names(path: Path) -> set[str]:
    """Return the names that the cell tagged `parameters` of a notebook assigns."""
    names = set()
    for cell in nbformat.read(path, as_version=4).cells:
        if "parameters" in cell.metadata.get("tags", []):
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    names.add(node.id)
    return names


def _render(path: Path, folder: Path, profile: str, place: Path) -> Outcome:
    """Run one notebook, its kernel working in `place`, and write its pages."""
    # papermill guesses the parameters' types and says so where it cannot; nobody asks for them.
    logging.getLogger("papermill.translators").setLevel(logging.ERROR)
    partial = folder / f".part-{path.name}"
    partial.unlink(missing_ok=True)
    started, clock = time.time(), time.perf_counter()
    error = None
    try:
        with _environment(folder, path.stem, profile), _transport() as config:
            papermill.execute_notebook(
                str(path),
                str(partial),
                {"profile": profile} if "profile" in parameter_names(path) else {},
                kernel_name="python3",
                language="python",
                cwd=str(place),
                progress_bar=False,
                execution_timeout=CELL_TIMEOUT_S,
                config=config,
            )
    except Exception as caught:  # whatever stopped one notebook must not stop the others
        error = _one_line(caught)
    outcome = Outcome(path.stem, time.perf_counter() - clock, error)
    if partial.is_file():
        _write_pages(partial, folder, outcome)
    if error is None:
        _remove_stale(folder, path.stem, started)
    return outcome


def _write_pages(partial: Path, folder: Path, outcome: Outcome) -> None:
    notebook = without_widgets(nbformat.read(partial, as_version=4))
    # papermill notes absolute paths, which mean nothing on another machine.
    for key in ("input_path", "output_path"):
        notebook.metadata.get("papermill", {}).pop(key, None)
    notebook.metadata[OUTCOME_KEY] = {"seconds": outcome.seconds, "error": outcome.error}
    name = outcome.name
    write_text(folder / f"{name}.html", notebook_html(notebook, notebook_title(notebook, name)))
    write_text(folder / f"{name}.ipynb", nbformat.writes(notebook) + "\n")
    partial.unlink()


def _remove_stale(folder: Path, name: str, started: float) -> None:
    """Remove the notebook's files of earlier runs that this one did not write again."""
    for file in [*folder.glob(f"figures/{name}-*"), *folder.glob(f"tables/{name}-*")]:
        if file.stat().st_mtime < started - 1:
            file.unlink()


@contextmanager
def _environment(folder: Path, name: str, profile: str) -> Iterator[None]:
    """Set what the kernel inherits: where to write, which Python, and whether to stay offline."""
    values = {
        FOLDER_VARIABLE: str(folder),
        NOTEBOOK_VARIABLE: name,
        # A kernel of the same name in the user's home belongs to another Python.
        "JUPYTER_PREFER_ENV_PATH": "1",
    }
    if profile == "embedded":
        values["HF_HUB_OFFLINE"] = "1"
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


@contextmanager
def _transport() -> Iterator[Config]:
    """Yield the kernel's configuration: talk over sockets in a private folder where there are any.

    Unlike TCP, those work with all networking off, and nobody else on the machine can listen.
    """
    if os.name != "posix":
        yield Config()
        return
    with tempfile.TemporaryDirectory(prefix="xai-") as folder:
        yield Config(KernelManager={"transport": "ipc", "ip": f"{folder}/kernel"})


def _one_line(error: Exception) -> str:
    if isinstance(error, papermill.PapermillExecutionError):
        text = f"{error.ename}: {error.evalue} (cell {error.exec_count})"
    else:
        text = f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:300]


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
