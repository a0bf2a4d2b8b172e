"""Words over data sets: their mean scores, rank tables, and how two sets of means correlate.

Wu & Ong (2021), sections 3.2.1 (ranks), 3.4 (between data sets) and 3.5 (against a random model).
All of it is made of the records of `word_scores`, whatever run they come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float
from pandas import DataFrame, Series

from xai_lib.errors import InputError
from xai_lib.statistics.correlation import pearson
from xai_lib.statistics.intervals import RESAMPLES

MIN_COUNT, MIN_LENGTH = 5, 10


def word_means(
    records: DataFrame,
    method: str,
    weights: str = "trained",
    *,
    min_count: int = MIN_COUNT,
    min_length: int = MIN_LENGTH,
) -> dict[str, tuple[float, int]]:
    """Return {word: (mean, occurrences)} of one method, from the highest mean down.

    A word's score in a sentence is |score| / max |score| of the sentence, special tokens aside.
    Sentences of at least `min_length` tokens count, special ones aside, and words that occur more
    than `min_count` times. A sentence whose scores are all 0 gives 0 throughout. Raises
    InputError for records without this method or these weights.
    """
    chosen = records.loc[(records["method"] == method) & (records["weights"] == weights)]
    if not len(chosen):
        have = sorted(
            {f"{m} ({w})" for m, w in zip(records["method"], records["weights"], strict=True)}
        )
        raise InputError(
            f"The records hold no {method!r} with {weights} weights, only {', '.join(have)}."
        )
    good = chosen[chosen["error"].isna() & (chosen["tokens"] >= min_length)]
    return mean_scores(zip(good["words"], good["scores"], strict=True), min_count)


def mean_scores(
    sentences: Iterable[tuple[Sequence[str], Sequence[float]]], min_count: int = MIN_COUNT
) -> dict[str, tuple[float, int]]:
    """Return `word_means` of pairs (words, scores), one a sentence, already chosen by length."""
    found: dict[str, list[float]] = {}
    for words, scores in sentences:
        for word, value in zip(words, relative(scores), strict=True):
            found.setdefault(word, []).append(float(value))
    means = {w: (float(np.mean(v)), len(v)) for w, v in found.items() if len(v) > min_count}
    return dict(sorted(means.items(), key=lambda entry: (-entry[1][0], entry[0])))


def relative(scores: Sequence[float]) -> Float[np.ndarray, " n"]:
    """Return |score| / max |score|; zeros where all are 0."""
    values = np.abs(np.asarray(scores, np.float64))
    top = values.max(initial=0.0)
    return values / top if top > 0 else values


def rank_table(records: DataFrame, top: int = 10, **chosen: Any) -> DataFrame:
    """Return the `top` words of every method, by mean score: rank and a column a method.

    chosen: `weights`, `min_count` and `min_length` as of `word_means`.
    """
    methods = list(dict.fromkeys(records["method"]))
    columns = {
        m: Series(list(word_means(records, m, **chosen))[:top], dtype=object) for m in methods
    }
    table = DataFrame(columns)
    table.insert(0, "rank", range(1, len(table) + 1))
    return table


def pair_table(runs: Mapping[str, DataFrame], method: str, **chosen: Any) -> DataFrame:
    """Return the mean of every word that all runs share, a row a word and a column a run.

    runs: records by the name to show, such as the data set's. The index, `word`, is in the order of
    the alphabet. What a seaborn PairGrid draws, and `correlations` reads.
    """
    means = {name: word_means(records, method, **chosen) for name, records in runs.items()}
    shared = sorted(set.intersection(*(set(words) for words in means.values())))
    values = {name: [words[w][0] for w in shared] for name, words in means.items()}
    table = DataFrame(values, index=shared)
    table.index.name = "word"
    return table


def correlations(table: DataFrame, resamples: int = RESAMPLES, seed: int = 0) -> DataFrame:
    """Return Pearson's r of each two columns of a `pair_table`: run_a, run_b, r, low, high, n.

    low, high: 95 % percentile bootstrap over the n words. Fewer than three words, or a column
    without spread, have no r.
    """
    rows = []
    for a, b in combinations(table.columns, 2):
        found = pearson(table[a].to_numpy(), table[b].to_numpy(), resamples, seed)
        rows.append((a, b, *found, len(table)))
    return DataFrame(rows, columns=["run_a", "run_b", "r", "low", "high", "n"])


def correlation(
    records_a: DataFrame,
    records_b: DataFrame | None = None,
    *,
    weights: Sequence[str] = ("trained", "trained"),
    **chosen: Any,
) -> DataFrame:
    """Return each method's Pearson r over the words that two runs share: method, r, low, high, n.

    records_b None and weights ("trained", "randomised"): the trained model against the random one,
    in one run of `word_scores` with `randomise`. chosen: `min_count` and `min_length`.
    """
    other = records_a if records_b is None else records_b
    in_other = set(other["method"])
    rows = []
    for method in dict.fromkeys(m for m in records_a["method"] if m in in_other):
        a = word_means(records_a, method, weights[0], **chosen)
        b = word_means(other, method, weights[1], **chosen)
        shared = sorted(a.keys() & b.keys())
        one, two = (np.array([side[w][0] for w in shared]) for side in (a, b))
        found = pearson(one, two)
        rows.append((method, *found, len(shared)))
    return DataFrame(rows, columns=["method", "r", "low", "high", "n"])
