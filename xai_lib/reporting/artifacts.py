"""Figures and tables that notebooks keep: PNG and PDF, CSV, Markdown and LaTeX.

`xai report` names the folder and the notebook through the environment; in an interactive session
neither is set, and nothing is written unless the caller gives a folder.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from xai_lib.errors import OptionError
from xai_lib.files.writing import write_text, written

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

FOLDER_VARIABLE = "XAI_REPORT_DIR"
NOTEBOOK_VARIABLE = "XAI_REPORT_NOTEBOOK"


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
    """A table with its caption, shown as HTML by Jupyter.

    shown: what people read in place of `frame`; bold: which of its cells stand out.
    """

    frame: DataFrame
    caption: str
    digits: int
    shown: DataFrame | None = None
    bold: DataFrame | None = None

    def _repr_html_(self) -> str:
        frame = self.frame if self.shown is None else self.shown
        cells = _marked(_shown(frame, self.digits), escape, "<b>{}</b>", self.bold)
        body = cells.to_html(escape=False, border=0, index=_has_index(frame))
        return f"<p><b>{escape(self.caption)}</b></p>\n{body}"


def save_table(
    frame: DataFrame,
    name: str,
    caption: str,
    folder: str | os.PathLike | None = None,
    digits: int = 3,
    shown: DataFrame | None = None,
    bold: DataFrame | None = None,
) -> Table:
    """Write `frame` as tables/NAME.csv, .md and .tex below `folder` and return it for display.

    The CSV holds every digit; the others round floats to `digits` decimals and leave NaN empty.
    Text is escaped for each format; the LaTeX needs the package booktabs. `folder` is found as in
    `save_figure`. shown: another frame for the formats that people read, whose columns may have
    several levels and hold texts of numbers behind the first. bold: booleans, shaped like what is
    shown.
    """
    table = Table(frame, caption, digits, shown, bold)
    base = _base("tables", name, folder)
    if base is not None:
        read = frame if shown is None else shown
        sides = ["left"] * _has_index(read) + _sides(read, shown is not None)
        texts = {
            ".csv": frame.to_csv(index=_has_index(frame)),
            ".md": f"**{caption}**\n\n{_markdown(read, digits, bold, sides)}\n",
            ".tex": _booktabs(read, digits, bold, sides, caption, f"tab:{base.name}"),
        }
        for suffix, text in texts.items():
            write_text(base.with_name(base.name + suffix), text)
    return table


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


def _marked(
    cells: DataFrame, escaped: Callable[[str], str], mark: str, bold: DataFrame | None
) -> DataFrame:
    """Return cells and headings escaped, and the bold cells inside `mark`."""
    if bold is not None and bold.shape != cells.shape:
        raise OptionError(
            f"bold has shape {bold.shape}; expected that of the table, {cells.shape}."
        )
    texts = cells.map(lambda value: escaped(str(value)))
    if bold is not None:
        texts = texts.where(~bold.to_numpy(bool), texts.map(mark.format))

    def heading(index):
        names = [name if name is None else escaped(str(name)) for name in index.names]
        return index.map(
            lambda key: (
                tuple(escaped(str(part)) for part in key)
                if isinstance(key, tuple)
                else escaped(str(key))
            )
        ).set_names(names)

    return texts.set_axis(heading(cells.columns), axis=1).set_axis(heading(cells.index), axis=0)


def _sides(frame: DataFrame, of_numbers: bool) -> list[str]:
    """Return the alignment of each column; of_numbers: all but the first hold numbers as text."""
    from pandas.api.types import is_numeric_dtype

    if of_numbers:
        return ["left", *["right"] * (frame.shape[1] - 1)]
    return ["right" if is_numeric_dtype(dtype) else "left" for dtype in frame.dtypes]


def _markdown(frame: DataFrame, digits: int, bold: DataFrame | None, sides: list[str]) -> str:
    index = _has_index(frame)
    cells = _marked(_shown(frame, digits), lambda text: text.replace("|", "\\|"), "**{}**", bold)
    if cells.columns.nlevels > 1:
        cells.columns = [" / ".join(part for part in key if part) for key in cells.columns]
    return cells.to_markdown(index=index, disable_numparse=True, colalign=sides)


def _booktabs(
    frame: DataFrame,
    digits: int,
    bold: DataFrame | None,
    sides: list[str],
    caption: str,
    label: str,
) -> str:
    from pylatexenc.latexencode import UnicodeToLatexEncoder

    encoder = UnicodeToLatexEncoder(
        replacement_latex_protection="braces-after-macro",
        unknown_char_policy="keep",
        unknown_char_warning=False,
    )
    escaped = encoder.unicode_to_latex
    cells = _marked(_shown(frame, digits), escaped, r"\textbf{{{}}}", bold)
    text = cells.to_latex(
        index=_has_index(frame),
        escape=False,
        caption=escaped(caption),
        label=label,
        column_format="".join(side[0] for side in sides),
        multicolumn_format="c",
    )
    return "% Needs \\usepackage{booktabs} in the preamble.\n" + text
