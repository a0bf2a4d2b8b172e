"""Do two tables put the methods in the same order? Ranks beside each other, and Kendall's tau."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pandas import DataFrame, Series

from xai_lib.errors import InputError, unknown_name


@dataclass(frozen=True)
class Ranking:
    """table: a row a method, its rank (1 is best) in each column. tau: Kendall's, of two columns.

    p: of tau, two-sided and exact for the few methods there are, but where ranks are tied (Kendall
    1938); n: methods that both columns rank.
    """

    table: DataFrame
    tau: float
    p: float
    n: int

    def __str__(self) -> str:
        first, second = self.table.columns[1:3]
        return (
            f"{first} and {second} order {self.n} methods with Kendall's tau {self.tau:+.2f} "
            f"(p = {self.p:.2g}; 1: the same order, 0: unrelated)."
        )


def ranking(columns: Mapping[str, tuple[Series, str]]) -> Ranking:
    """Compare the orders of methods: {name: (values by method, "high" or "low" is better)}.

    The first two columns give tau. A method missing from a column has no rank there.
    """
    from scipy.stats import kendalltau

    if len(columns) < 2:
        raise InputError(f"{len(columns)} column is given; expected two orders to compare.")
    for name, (_, better) in columns.items():
        if better not in ("high", "low"):
            raise InputError(f"better is {better!r} for {name!r}; expected 'high' or 'low'.")
    ranks = {
        name: values.rank(ascending=better == "low", method="min")
        for name, (values, better) in columns.items()
    }
    names = dict.fromkeys(method for column in ranks.values() for method in column.index)
    table = DataFrame(ranks).reindex(list(names))
    pair = table.iloc[:, :2].dropna()
    tau = p = float("nan")
    if len(pair) > 1:
        tau, p = map(float, kendalltau(pair.iloc[:, 0], pair.iloc[:, 1]))
    table.insert(0, "method", table.index)
    return Ranking(table.reset_index(drop=True), tau, p, len(pair))


def by_method(summary: DataFrame, metric: str, value: str = "value", **groups: str) -> Series:
    """Return one metric by method label, of a summary or of `published`, in one setting."""
    rows = summary
    for name, chosen in {"metric": metric, **groups}.items():
        known = dict.fromkeys(rows[name]) if name in rows else {}
        if chosen not in known:
            raise unknown_name(name, chosen, map(str, known))
        rows = rows[rows[name] == chosen]
    methods = rows["label" if "label" in rows else "method"]
    if methods.duplicated().any():
        raise InputError(f"{metric!r} has several rows a method; name the setting: {groups}.")
    return Series(rows[value].to_numpy(), index=methods.to_numpy())
