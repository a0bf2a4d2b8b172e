"""Pearson's correlation of two columns, with an interval over the rows."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from xai_lib.statistics.intervals import RESAMPLES, percentile_interval, resampling_counts


def pearson(
    a: Float[np.ndarray, " n"],
    b: Float[np.ndarray, " n"],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Return Pearson's r and its 95 % percentile bootstrap interval over the n pairs.

    NaN for fewer than three pairs and for values without spread.
    """
    if len(a) < 3:
        return np.nan, np.nan, np.nan
    # Centred first: r is a ratio of differences, which would lose digits far from 0.
    a, b = a - a.mean(), b - b.mean()
    moments = np.stack([a, b, a * a, b * b, a * b], 1)
    draws = [w @ moments / len(a) for w in resampling_counts(len(a), resamples, seed)]
    low, high = percentile_interval(_r(np.concatenate(draws)))
    return float(_r(moments.mean(0))), float(low), float(high)


def _r(means: Float[np.ndarray, "... 5"]) -> Float[np.ndarray, "..."]:
    a, b, aa, bb, ab = np.moveaxis(means, -1, 0)
    spread = np.clip(aa - a * a, 0, None) * np.clip(bb - b * b, 0, None)
    with np.errstate(all="ignore"):
        return np.where(spread > 0, (ab - a * b) / np.sqrt(spread), np.nan)
