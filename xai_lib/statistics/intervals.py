"""Intervals and tests over samples: percentile bootstrap, paired swap test, Holm correction.

All draws depend on the seed and the number of samples alone, so columns of the same samples are
resampled together: differences between them are paired. Draws are made in chunks of at most
`CHUNK` weights, about 50 MB, whatever the number of samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

RESAMPLES, FLIPS, LEVEL = 2000, 9999, 0.95
CHUNK = 2**21
# Two statistics that differ by less than this part of their terms are tied: it is rounding.
_TIE = 1e-12

Value = Callable[[np.ndarray], np.ndarray]
# An end of an interval for each column of draws, or of the only one.
Ends = np.ndarray | float


def resampling_counts(n: int, resamples: int, seed: int) -> Iterator[Float[np.ndarray, "k n"]]:
    """Yield how often each of n samples is drawn, n draws with replacement a row, in chunks."""
    rng = np.random.default_rng(seed)
    for rows in _chunks(n, resamples):
        drawn = rng.integers(0, n, (rows, n)) + n * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def swaps(n: int, flips: int, seed: int) -> Iterator[Float[np.ndarray, "k n"]]:
    """Yield 0 or 1 for each of n samples, a fair coin each, `flips` rows in chunks.

    Where the 2^n patterns are no more than `flips`, they all come, each once: the test is exact.
    """
    if is_exact(n, flips):
        yield (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(np.float64)
        return
    rng = np.random.default_rng(seed)
    for rows in _chunks(n, flips):
        # Whole words: the generator drops what is left of one, and chunks would then matter.
        words = rng.integers(0, 2**64, (rows, -(-n // 64)), dtype=np.uint64)
        coins = words.astype("<u8").view(np.uint8)
        yield np.unpackbits(coins, axis=1, count=n).astype(np.float64)


def is_exact(n: int, flips: int) -> bool:
    """Say whether `flips` cover every way of swapping n pairs."""
    return n < 63 and 2**n <= flips


def bootstrap_means(
    columns: Float[np.ndarray, "n c"], resamples: int = RESAMPLES, seed: int = 0
) -> Float[np.ndarray, "resamples c"]:
    """Return the mean of each column in every resample of the rows; n is at least 1."""
    n = len(columns)
    return np.concatenate([w @ columns / n for w in resampling_counts(n, resamples, seed)])


def swapped_means(
    columns: Float[np.ndarray, "n c"], flips: int = FLIPS, seed: int = 0
) -> Float[np.ndarray, "flips c"]:
    """Return Σ_i s_i column_i / n for every pattern s of `swaps`: what moves to the other side."""
    n = len(columns)
    return np.concatenate([s @ columns / n for s in swaps(n, flips, seed)])


def percentile_interval(
    draws: Float[np.ndarray, "draws ..."], level: float = LEVEL
) -> tuple[Ends, Ends]:
    """Return the (1 ∓ level)/2 quantiles of the first axis (Efron & Tibshirani 1993, ch. 13).

    Draws without a value, such as a ratio whose denominator was not drawn, are left out.
    """
    draws = np.asarray(draws, np.float64)
    tails = (0.5 - level / 2, 0.5 + level / 2)
    if np.isfinite(draws).all() and draws.size:
        low, high = np.quantile(draws, tails, axis=0)
        return low, high
    flat = draws.reshape(len(draws), -1)
    kept = [column[np.isfinite(column)] for column in flat.T]
    ends = [np.quantile(c, tails) if c.size else np.full(2, np.nan) for c in kept]
    low, high = np.array(ends).reshape(-1, 2).T
    return low.reshape(draws.shape[1:]), high.reshape(draws.shape[1:])


def swap_p_value(
    means: tuple[np.ndarray, np.ndarray],
    moved: tuple[np.ndarray, np.ndarray],
    value: Value,
    exact: bool,
) -> float:
    """Return the two-sided p-value of value(mean a) = value(mean b) from `swapped_means`.

    means: (parts,) of a and b. moved: (flips, parts) of a and b. Under the null hypothesis a and b
    may trade places in any sample, so the statistic |value(mean a') - value(mean b')| is as likely
    as the observed one; with value = identity this is the sign-flip test of paired differences.
    p is the share of patterns at least as extreme; drawn ones count the observed pattern too,
    p = (1 + extreme) / (1 + flips) (Phipson & Smyth 2010).
    """
    shift = moved[1] - moved[0]
    with np.errstate(all="ignore"):
        observed = np.stack([value(means[0]), value(means[1])])
        a, b = value(means[0] + shift), value(means[1] - shift)
    statistic, tie = abs(observed[0] - observed[1]), _TIE * np.abs(observed).sum()
    if not np.isfinite(statistic):
        return float("nan")
    # A pattern without a value counts as extreme: it never lowers p.
    extreme = np.count_nonzero(~(np.abs(a - b) < statistic - tie))
    return extreme / len(shift) if exact else (1 + extreme) / (1 + len(shift))


def paired_test(
    a: Float[np.ndarray, "n parts"],
    b: Float[np.ndarray, "n parts"],
    value: Value,
    flips: int = FLIPS,
    seed: int = 0,
) -> float:
    """Return the p-value of `swap_p_value` for the parts of the same n samples; NaN for none."""
    if not len(a):
        return float("nan")
    left, right = np.split(swapped_means(np.hstack([a, b]), flips, seed), 2, axis=1)
    return swap_p_value((a.mean(0), b.mean(0)), (left, right), value, is_exact(len(a), flips))


def holm(p: ArrayLike) -> Float[np.ndarray, " m"]:
    """Return p-values corrected for the m tests of a family (Holm 1979); NaN is no test.

    With p(1) <= ... <= p(m): the corrected p(k) is max over j <= k of min(1, (m - j + 1) p(j)).
    """
    p = np.asarray(p, np.float64)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected = np.full(p.shape, np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(order) else steps
    return corrected


def _chunks(n: int, rows: int) -> Iterator[int]:
    size = max(1, CHUNK // n)
    return (min(size, rows - start) for start in range(0, rows, size))
