"""Figures and tables that notebooks keep: PNG and PDF, CSV, Markdown and LaTeX.

`xai report` names the folder and the notebook through the environment; in an interactive session
neither is set, and nothing is written unless the caller gives a folder.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from xai_lib.errors import OptionError
from xai_lib.files import write_text, written

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

FOLDER_VARIABLE = "XAI_REPORT_DIR"
NOTEBOOK_VARIABLE = "XAI_REPORT_NOTEBOOK"
# LaTeX's own characters, as a caption may hold any of them.
LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: "\\" + character for character in "&%$#_{}"},
}


def save_figure(
    figure: Figure, name: str, folder: str | os.PathLike | None = None, dpi: int = 150
) -> None:
    """Write `figure` as figures/NAME.png (at `dpi`) and figures/NAME.pdf below `folder`.

    `folder` defaults to the report being rendered, whose files start with the notebook's name;
    without either nothing is written.
    """
    base = _base("figures", name, folder)
    if base is None:
        return
    # No dates inside: the same figure gives the same bytes.
    metadata = {".png": {"Software": None}, ".pdf": {"CreationDate": None}}
    for suffix, entries in metadata.items():
        with written(base.with_name(base.name + suffix)) as partial:
            figure.savefig(
                partial, format=suffix[1:], dpi=dpi, bbox_inches="tight", metadata=entries
            )


@dataclass(frozen=True)
class Table:
    """A table with its caption, shown as HTML by Jupyter."""

    frame: DataFrame
    caption: str
    digits: int

    def _repr_html_(self) -> str:
        body = _shown(self.frame, self.digits).to_html(
            escape=True, border=0, index=_has_index(self.frame)
        )
        return f"<p><b>{escape(self.caption)}</b></p>\n{body}"


def save_table(
    frame: DataFrame,
    name: str,
    caption: str,
    folder: str | os.PathLike | None = None,
    digits: int = 3,
) -> Table:
    """Write `frame` as tables/NAME.csv, .md and .tex below `folder` and return it for display.

    The CSV holds every digit; the others round floats to `digits` decimals and leave NaN empty.
    Text is escaped for each format. `folder` is found as in `save_figure`.
    """
    base = _base("tables", name, folder)
    if base is not None:
        index = _has_index(frame)
        texts = {
            ".csv": frame.to_csv(index=index),
            ".md": f"**{caption}**\n\n{_markdown(frame, digits)}\n",
            ".tex": _shown(frame, digits).to_latex(
                index=index, escape=True, caption=_latex(caption), label=f"tab:{base.name}"
            ),
        }
        for suffix, text in texts.items():
            write_text(base.with_name(base.name + suffix), text)
    return Table(frame, caption, digits)


def _base(kind: str, name: str, folder: str | os.PathLike | None) -> Path | None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise OptionError(f"{name!r} cannot name a file: use letters, digits, '_' and '-'.")
    if folder is not None:
        return Path(folder) / kind / name
    report, notebook = os.environ.get(FOLDER_VARIABLE), os.environ.get(NOTEBOOK_VARIABLE)
    if not report:
        return None
    return Path(report) / kind / (f"{notebook}-{name}" if notebook else name)


def _has_index(frame: DataFrame) -> bool:
    """Say whether the row labels mean something, or are only 0, 1, 2, ..."""
    return frame.index.name is not None or list(frame.index) != list(range(len(frame)))


def _shown(frame: DataFrame, digits: int) -> DataFrame:
    def show(value: object) -> object:
        if isinstance(value, float):
            return "" if math.isnan(value) else f"{value:.{digits}f}"
        return value

    return frame.astype(object).map(show)


def _markdown(frame: DataFrame, digits: int) -> str:
    from pandas.api.types import is_numeric_dtype

    index = _has_index(frame)
    sides = ["right" if is_numeric_dtype(dtype) else "left" for dtype in frame.dtypes]
    shown = _shown(frame, digits).map(lambda value: str(value).replace("|", "\\|"))
    return shown.to_markdown(index=index, disable_numparse=True, colalign=["left"] * index + sides)


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)
