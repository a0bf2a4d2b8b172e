"""Tables as the papers print them: methods as rows, metrics as columns, intervals in the cells."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from pandas import DataFrame, MultiIndex

from xai_lib.errors import InputError
from xai_lib.plots.panels import (
    TITLES,
    check_frame,
    check_one_row_each,
    choose_metrics,
    metric_label,
    settings,
)
from xai_lib.reporting.artifacts import Table, save_table
from xai_lib.statistics.metric import Metric


@dataclass(frozen=True)
class PaperTable:
    """numbers: the long table with every digit; shown: texts; best: which of these are bold."""

    numbers: DataFrame
    shown: DataFrame
    best: DataFrame

    def save(self, name: str, caption: str, folder: str | os.PathLike | None = None) -> Table:
        """Write the numbers as CSV and the texts as Markdown and LaTeX, as `save_table` does.

        The caption goes on with the sources of published numbers.
        """
        if self.credit:
            caption = f"{caption.rstrip('.')}. {self.credit}"
        return save_table(self.numbers, name, caption, folder, shown=self.shown, bold=self.best)

    @property
    def credit(self) -> str:
        """Where the published numbers are from and how they were read; empty where none are."""
        if "published" not in self.numbers:
            return ""
        rows = self.numbers[self.numbers["published"].notna()]
        found = rows[["source", "status"]].drop_duplicates().itertuples(index=False)
        sources = "; ".join(f"{source} [{status}]" for source, status in found)
        return f"Published: {sources}." if sources else ""


def directions(metrics: Iterable[Metric]) -> dict[str, str]:
    """Return which end is better, by metric or by order where it depends on that."""
    found: dict[str, str] = {}
    for metric in metrics:
        if isinstance(metric.better, Mapping):
            found |= metric.better
        elif metric.better:
            found[metric.name] = metric.better
    return found


def paper_table(
    summary: DataFrame,
    metrics: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    better: Mapping[str, str] | None = None,
    digits: int | None = None,
) -> PaperTable:
    """Return a row a method and a column each metric and group, as "61.95 [61.2, 62.7]".

    summary: of a run, or what `beside` made of it: then the published number and the difference
    (ours - published) follow each of our columns, where any was published. metrics: which, in
    order; all by default. columns: the heading's levels from the top, by default metric and then
    the groups; one whose value never changes is left out, but for the metric. better: "high" or
    "low", by metric or any other name of a heading (see `directions`); the best of such a column,
    as rounded, is marked. digits: decimals of the value; by default 2, or 3 in a column below 1.
    n is the number of samples behind a row's values, as a range where they differ.
    """
    needed = ("method", "metric", "value", "low", "high", "n", "failed")
    check_frame(summary, needed, "The summary")
    summary = choose_metrics(summary, metrics)
    after = list(summary.columns).index("metric")
    groups = [name for name in summary.columns[:after] if name != "method"]
    levels = list(columns) if columns is not None else ["metric", *groups]
    check_frame(summary, levels, "The summary")
    check_one_row_each(summary, ["method", *levels], "The summary")
    levels = [name for name in levels if name == "metric" or summary[name].nunique() > 1]
    methods = list(dict.fromkeys(summary["method"]))
    texts, best = {}, {}
    for key, part in _settings(summary, levels).items():
        rows = part.set_index("method").reindex(methods)
        heading = tuple(_words(level, name) for level, name in zip(levels, key, strict=True))
        places = digits if digits is not None else 2 if rows["value"].abs().max() > 1 else 3
        for name, column in _cells(rows, places).items():
            texts[*heading, name] = column.tolist()
            best[*heading, name] = [False] * len(methods)
        ours = (*heading, "ours")
        rounded = rows["value"].map(lambda x, places=places: float(f"{x:.{places}f}"))
        best[ours] = _best(rounded, _direction(key, better or {}))
    if {name for *_, name in texts} == {"ours"}:
        texts, best = ({key[:-1]: v for key, v in d.items()} for d in (texts, best))
    counts = _counts(summary, methods)
    width = len(next(iter(texts)))
    rest = {(name, *[""] * (width - 1)): values for name, values in counts.items()}
    texts = {("method", *[""] * (width - 1)): methods} | texts | rest
    best = {key: best.get(key, [False] * len(methods)) for key in texts}
    return PaperTable(summary.reset_index(drop=True), _frame(texts), _frame(best))


def _settings(summary: DataFrame, levels: list[str]) -> dict[tuple, DataFrame]:
    """Return the rows of each heading, those under one upper heading side by side."""
    found = settings(summary, levels)
    place = {level: list(dict.fromkeys(summary[level])) for level in levels}
    order = {key: [place[level].index(k) for level, k in zip(levels, key, strict=True)]
             for key in found}  # fmt: skip
    return {key: found[key] for key in sorted(found, key=order.__getitem__)}


def _words(level: str, name: object) -> str:
    return metric_label(str(name)) if level == "metric" else TITLES.get(name, str(name))


def _cells(rows: DataFrame, digits: int) -> dict[str, pd.Series]:
    """Return the texts of one column: ours and, where anything was published, that beside it."""
    less = max(digits - 1, 0)

    def ours(row) -> str:
        if pd.isna(row.value):
            return ""
        interval = "" if pd.isna(row.low) else f" [{row.low:z.{less}f}, {row.high:z.{less}f}]"
        return f"{row.value:z.{digits}f}{interval}"

    cells = {"ours": rows.apply(ours, axis=1)}
    if "published" in rows and rows["published"].notna().any():
        for name, sign in (("published", "z"), ("difference", "+z")):
            cells[name] = rows[name].map(
                lambda x, sign=sign: "" if pd.isna(x) else f"{x:{sign}.{digits}f}"
            )
    return cells


def _direction(key: tuple, better: Mapping[str, str]) -> str | None:
    found = [better[name] for name in key if name in better]
    wrong = [end for end in found if end not in ("high", "low")]
    if wrong:
        raise InputError(f"better is {wrong[0]!r} for {key}; expected 'high' or 'low'.")
    return found[0] if found else None


def _best(values: pd.Series, better: str | None) -> list[bool]:
    if better is None or values.notna().sum() < 2:
        return [False] * len(values)
    return (values == (values.max() if better == "high" else values.min())).tolist()


def _counts(summary: DataFrame, methods: Sequence[str]) -> dict[str, list[str]]:
    """Return the columns n and, where any sample failed, failed."""
    columns = {}
    for name in ("n", "failed"):
        if name == "failed" and not (summary["failed"] > 0).any():
            continue
        found = [summary.loc[summary["method"] == method, name] for method in methods]
        ends = [(int(numbers.min()), int(numbers.max())) for numbers in found]
        columns[name] = [str(low) if low == high else f"{low}-{high}" for low, high in ends]
    return columns


def _frame(columns: Mapping[tuple, list]) -> DataFrame:
    frame = DataFrame(dict(enumerate(columns.values())))
    keys = list(columns)
    simple = len(keys[0]) == 1
    frame.columns = [key[0] for key in keys] if simple else MultiIndex.from_tuples(keys)
    return frame
