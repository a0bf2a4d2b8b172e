"""From records to tables: each metric with its interval, methods compared in pairs, curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float
from pandas import DataFrame

from xai_lib.errors import InputError
from xai_lib.statistics.intervals import (
    FLIPS,
    RESAMPLES,
    Value,
    bootstrap_means,
    holm,
    is_exact,
    percentile_interval,
    swap_p_value,
    swapped_means,
)
from xai_lib.statistics.metric import Metric, identity

Key = tuple[object, ...]


@dataclass(frozen=True)
class Cell:
    """The parts of a metric in one group; row i is the same sample in every group.

    parts: NaN where a sample has no numbers. rows: records that the group holds.
    """

    parts: Float[np.ndarray, "samples parts"]
    rows: int

    @property
    def valid(self) -> Bool[np.ndarray, " samples"]:
        return np.isfinite(self.parts).all(1)


def summarise(
    records: DataFrame,
    metrics: Sequence[Metric],
    groups: Sequence[str] = ("method",),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> DataFrame:
    """Return one row a metric and group: groups..., metric, value, low, high, n, failed.

    records: one row a sample (`index`) and group; groups: the columns that tell the rows of a
    sample apart, the method first. value, low and high (95 % percentile bootstrap over samples) are
    times Metric.scale. n counts the samples behind the value, failed those without a number. n = 0
    gives no value, and n = 1 no interval (NaN). Methods and other groups keep the order of their
    first row.
    """
    rows = []
    for metric in metrics:
        cells = _cells(records, groups, metric.columns)
        found = _intervals(cells, metric.value, resamples, seed)
        for place, (key, cell) in enumerate(cells.items()):
            *numbers, n = found[key]
            scaled = (metric.scale * number for number in numbers)
            rows.append((place, *key, metric.name, *scaled, n, cell.rows - n))
    # Groups first, then their metrics, as a reader looks for them.
    rows.sort(key=lambda row: row[0])
    columns = [*groups, "metric", "value", "low", "high", "n", "failed"]
    return DataFrame([row[1:] for row in rows], columns=columns)


def compare(
    records: DataFrame,
    metrics: Sequence[Metric],
    groups: Sequence[str] = ("method",),
    resamples: int = RESAMPLES,
    flips: int = FLIPS,
    seed: int = 0,
) -> DataFrame:
    """Return each pair of methods in each metric: how much a exceeds b, and whether by chance.

    Columns: the groups but for the method, then metric, method_a, method_b, difference
    (a - b, times Metric.scale), low, high (paired bootstrap), p (paired swap test), p_holm, n.
    Only samples that both methods have numbers for count, and only metrics of which one direction
    is better (Metric.better) are compared. One family of Holm's correction is all
    pairs of methods in one metric and one setting of the other groups, a column of a table.
    """
    rest = groups[1:]
    columns = [*rest, "metric", "method_a", "method_b"]
    columns += ["difference", "low", "high", "p", "p_holm", "n"]
    rows = []
    for metric in (m for m in metrics if m.better is not None):
        cells = _cells(records, groups, metric.columns)
        for setting in dict.fromkeys(key[1:] for key in cells):
            family = {key[0]: cells[key] for key in cells if key[1:] == setting}
            found = _pairs(family, metric.value, resamples, flips, seed)
            pairs = list(combinations(family, 2))
            corrected = holm(np.array([found[pair][3] for pair in pairs]))
            for pair, p_holm in zip(pairs, corrected, strict=True):
                *numbers, p, n = found[pair]
                scaled = (metric.scale * number for number in numbers)
                rows.append((*setting, metric.name, *pair, *scaled, p, float(p_holm), n))
    return DataFrame(rows, columns=columns)


def curve(
    records: DataFrame,
    column: str,
    groups: Sequence[str] = ("method",),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> DataFrame:
    """Return the mean and 95 % interval of each step of a list column: groups..., step, ...

    Columns after the groups: step (from 0), value, low, high, n. Steps without a number are left
    out of that step's n. Raises InputError where the lists of a group differ in length.
    """
    rows = []
    for key, frame in _groups(records, groups):
        lists = [
            np.array(entry, np.float64)
            for entry in frame[column]
            if isinstance(entry, list | tuple | np.ndarray)
        ]
        lengths = sorted({len(entry) for entry in lists})
        if len(lengths) > 1:
            raise InputError(
                f"Column {column!r} of {dict(zip(groups, key, strict=True))} holds lists of "
                f"{lengths} entries; expected one length, as every sample has the same steps."
            )
        table = np.array(lists).reshape(len(lists), *lengths or [0])
        cells: dict[Key, Cell] = {
            (step,): Cell(table[:, [step]], len(table)) for step in range(table.shape[1])
        }
        found = _intervals(cells, identity, resamples, seed)
        rows += [(*key, *step, *numbers) for step, numbers in found.items()]
    return DataFrame(rows, columns=[*groups, "step", "value", "low", "high", "n"])


def _groups(records: DataFrame, groups: Sequence[str]) -> Iterator[tuple[Key, DataFrame]]:
    """Yield each group's key and rows by sample, in the order in which its names first appear.

    A row that names no group, such as that of an unreadable sample, belongs to every group that
    the names it does have leave open; where no row is named in full, names are empty.
    """
    if not len(records):
        return
    records = records.reset_index(drop=True)
    # A run without a single good sample has no column of some groups.
    names = records.reindex(columns=list(groups)).astype(object)
    unnamed = names.isna().any(axis=1)
    if unnamed.all():
        names, unnamed = names.fillna(""), ~unnamed
    records = records.assign(**names)
    named, shared = records[~unnamed], records[unnamed]
    # One order for all columns, since those of agreement hold the same methods.
    listed = dict.fromkeys(name for group in groups for name in named[group])
    place = {name: i for i, name in enumerate(listed)}
    frames = {key: frame for key, frame in named.groupby(list(groups), sort=False)}
    keys = sorted(frames, key=lambda key: [place[name] for name in key])
    for key in keys:
        fits = shared[list(groups)].isna() | (shared[list(groups)] == list(key))
        labels = [*frames[key].index, *shared.index[fits.all(axis=1)]]
        # Sorted, so that a table is the same to the bit in whatever order its shards are read.
        yield key, records.loc[labels].sort_values("index", kind="stable")


def _cells(records: DataFrame, groups: Sequence[str], columns: Sequence[str]) -> dict[Key, Cell]:
    samples = np.unique(records["index"].to_numpy()) if len(records) else np.empty(0, int)
    cells = {}
    for key, frame in _groups(records, groups):
        place = np.searchsorted(samples, frame["index"].to_numpy())
        if len(np.unique(place)) < len(place):
            raise InputError(
                f"The records of {dict(zip(groups, key, strict=True))} hold some sample twice; "
                "expected one row a sample. Evaluate again in an empty folder."
            )
        parts = np.full((len(samples), len(columns)), np.nan)
        parts[place] = frame.reindex(columns=list(columns)).to_numpy(np.float64)
        cells[key] = Cell(parts, len(frame))
    return cells


def _intervals(
    cells: Mapping[Key, Cell], value: Value, resamples: int, seed: int
) -> dict[Key, tuple[float, float, float, int]]:
    """Return each cell's value, low, high and n, in the order of `cells`."""
    found = dict.fromkeys(cells, (np.nan, np.nan, np.nan, 0))
    masks = {key: cell.valid for key, cell in cells.items()}
    for mask, keys in _same_samples(masks):
        tables = [cells[key].parts[mask] for key in keys]
        draws = _bootstrap(tables, resamples, seed)
        for key, table, drawn in zip(keys, tables, draws, strict=True):
            with np.errstate(all="ignore"):
                observed, drawn = float(value(table.mean(0))), value(drawn)
            # A ratio whose denominator is 0 has no value either.
            observed = observed if np.isfinite(observed) else np.nan
            found[key] = (observed, *_ends(drawn, len(table)), len(table))
    return found


def _pairs(
    family: Mapping[object, Cell], value: Value, resamples: int, flips: int, seed: int
) -> dict[tuple[object, object], tuple[float, float, float, float, int]]:
    """Return difference, low, high, p and n of every pair of methods."""
    pairs = list(combinations(family, 2))
    found = dict.fromkeys(pairs, (np.nan, np.nan, np.nan, np.nan, 0))
    masks = {(a, b): family[a].valid & family[b].valid for a, b in pairs}
    for mask, keys in _same_samples(masks):
        methods = list(dict.fromkeys(method for pair in keys for method in pair))
        tables = [family[method].parts[mask] for method in methods]
        n = int(mask.sum())
        means = dict(zip(methods, (table.mean(0) for table in tables), strict=True))
        draws = dict(zip(methods, _bootstrap(tables, resamples, seed), strict=True))
        moved = _split(swapped_means(np.hstack(tables), flips, seed), tables)
        moved = dict(zip(methods, moved, strict=True))
        for a, b in keys:
            with np.errstate(all="ignore"):
                difference = float(value(means[a]) - value(means[b]))
                drawn = value(draws[a]) - value(draws[b])
            p = swap_p_value((means[a], means[b]), (moved[a], moved[b]), value, is_exact(n, flips))
            found[a, b] = (difference, *_ends(drawn, n), p, n)
    return found


def _same_samples(masks: Mapping[Key, np.ndarray]) -> Iterator[tuple[np.ndarray, list[Key]]]:
    """Yield each distinct mask that holds a sample, with its keys: they share their draws."""
    shared: dict[bytes, list[Key]] = {}
    for key, mask in masks.items():
        shared.setdefault(mask.tobytes(), []).append(key)
    return ((masks[keys[0]], keys) for keys in shared.values() if masks[keys[0]].any())


def _bootstrap(tables: list[np.ndarray], resamples: int, seed: int) -> list[np.ndarray]:
    return _split(bootstrap_means(np.hstack(tables), resamples, seed), tables)


def _split(columns: np.ndarray, tables: list[np.ndarray]) -> list[np.ndarray]:
    return np.split(columns, np.cumsum([table.shape[1] for table in tables])[:-1], axis=1)


def _ends(draws: np.ndarray, n: int) -> tuple[float, float]:
    """Return the interval, or NaN for one sample: nothing is known about its spread."""
    if n < 2:
        return np.nan, np.nan
    low, high = percentile_interval(draws)
    return float(low), float(high)
