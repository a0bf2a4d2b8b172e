"""Bootstrap, paired test and Holm correction: against scipy, by hand, and on simulated data."""

import tracemalloc

import numpy as np
import pytest
import scipy.stats

from xai_lib.statistics import intervals as statistics
from xai_lib.statistics.intervals import (
    bootstrap_means,
    holm,
    paired_test,
    percentile_interval,
    resampling_counts,
    swaps,
)
from xai_lib.statistics.metric import identity


def ratio(parts):
    return parts[..., 0] / parts[..., 1]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_interval_of_a_mean_is_scipys():
    """scipy draws the same resamples from the same generator, so the ends are equal."""
    x = normal(37)
    expected = scipy.stats.bootstrap(
        (x,), np.mean, n_resamples=500, method="percentile", rng=np.random.default_rng(3)
    ).confidence_interval
    found = percentile_interval(bootstrap_means(x[:, None], 500, seed=3)[:, 0])
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_interval_of_a_ratio_is_scipys():
    x = np.random.default_rng(1).uniform(1, 2, (25, 2))
    expected = scipy.stats.bootstrap(
        (x[:, 0], x[:, 1]),
        lambda a, b, axis: a.sum(axis) / b.sum(axis),
        paired=True,
        n_resamples=400,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    found = percentile_interval(ratio(bootstrap_means(x, 400)))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("n", [2, 7, 8])
def test_all_swaps_of_few_samples_are_scipys_exact_test(n):
    a, b = normal(n), normal(n, seed=1) + 0.5
    expected = scipy.stats.permutation_test(
        (a, b), lambda x, y, axis: (x - y).mean(axis), permutation_type="samples", vectorized=True
    )
    found = paired_test(a[:, None], b[:, None], identity)
    assert found == pytest.approx(expected.pvalue, abs=1e-12)


def test_all_swaps_of_a_ratio_are_scipys_exact_test():
    a, b = (np.random.default_rng(s).uniform(1, 2, (8, 2)) for s in (0, 1))

    def statistic(x0, y0, axis):
        # scipy permutes scalars, so a sample travels as its row number.
        rows = [np.concatenate([a, b])[x.astype(int)] for x in (x0, y0)]
        return ratio(rows[0].mean(-2)) - ratio(rows[1].mean(-2))

    expected = scipy.stats.permutation_test(
        (np.arange(8.0), np.arange(8.0, 16)), statistic, permutation_type="samples", vectorized=True
    )
    assert paired_test(a, b, ratio) == pytest.approx(expected.pvalue, abs=1e-12)


def test_drawn_swaps_agree_with_scipys():
    a, b = normal(60), normal(60, seed=1) + 0.3
    expected = scipy.stats.permutation_test(
        (a, b),
        lambda x, y, axis: (x - y).mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        rng=np.random.default_rng(5),
    ).pvalue
    assert 0.01 < expected < 0.9
    assert paired_test(a[:, None], b[:, None], identity) == pytest.approx(expected, abs=0.02)


def test_p_value_of_equal_methods_is_one_and_of_disjoint_ones_the_least():
    a = normal(40, 1)
    assert paired_test(a, a, identity) == 1.0
    assert paired_test(a, a + 1, identity) == 1 / 10_000
    # Equal sums in another order differ by rounding only, which is no difference.
    assert paired_test(a, a[::-1], identity) == 1.0
    assert np.isnan(paired_test(a[:0], a[:0], identity))


def test_a_method_without_a_value_has_no_p_value():
    a, b = np.ones((20, 2)), np.ones((20, 2)) * [1, 0]
    assert np.isnan(paired_test(a, b, ratio))


def test_intervals_cover_and_the_test_keeps_its_level():
    """Of 400 simulated data sets, about 95 % of intervals hold the mean and 5 % of tests reject."""
    rng = np.random.default_rng(0)
    covered = rejected = 0
    for seed in range(400):
        x, y = rng.exponential(size=(2, 50, 1))
        low, high = percentile_interval(bootstrap_means(x, 400, seed))
        covered += bool(low[0] <= 1 <= high[0])
        rejected += paired_test(x, y, identity, flips=399, seed=seed) <= 0.05
    # Percentile intervals of 50 skewed samples are a little narrow; 3 standard errors are 3.3 %.
    assert 0.90 <= covered / 400 <= 0.98
    assert 0.02 <= rejected / 400 <= 0.083


def test_holm_by_hand():
    """Holm 1979: sorted .005 .01 .03 .04 times 4 3 2 1, then never less than the one before."""
    found = holm([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(found, [0.03, 0.06, 0.06, 0.02], rtol=1e-12)
    np.testing.assert_allclose(holm([0.5, 0.9]), [1.0, 1.0])
    assert holm([]).shape == (0,) and holm([0.2]) == pytest.approx([0.2])


def test_holm_leaves_out_what_was_not_tested():
    np.testing.assert_allclose(holm([0.02, np.nan, 0.03]), [0.04, np.nan, 0.04])


@pytest.mark.parametrize("draw", [resampling_counts, swaps])
def test_draws_are_the_seeds_whatever_the_chunks(draw, monkeypatch):
    whole = np.concatenate(list(draw(19, 100, 7)))
    assert len(whole) == 100 and (np.concatenate(list(draw(19, 100, 8))) != whole).any()
    monkeypatch.setattr(statistics, "CHUNK", 19 * 3)
    parts = list(draw(19, 100, 7))
    assert len(parts) == 34
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_a_resample_has_n_draws_and_every_pattern_of_swaps_comes_once():
    assert all((counts.sum(1) == 11).all() for counts in resampling_counts(11, 50, 0))
    (patterns,) = swaps(6, 64, 0)
    assert len(np.unique(patterns, axis=0)) == 64
    assert 0.47 < np.concatenate(list(swaps(100, 999, 0))).mean() < 0.53


def test_columns_of_the_same_samples_are_resampled_together():
    x = normal(30, 2)
    together = bootstrap_means(np.column_stack([x, x[:, 0] - x[:, 1]]), 100)
    np.testing.assert_allclose(together[:, 2], together[:, 0] - together[:, 1], atol=1e-14)


def test_interval_leaves_out_draws_without_a_value():
    draws = np.array([[1.0, np.nan], [2.0, np.nan], [np.nan, np.nan], [3.0, np.nan]])
    low, high = percentile_interval(draws)
    np.testing.assert_allclose(low, [1.05, np.nan])
    np.testing.assert_allclose(high, [2.95, np.nan])


@pytest.mark.parametrize("draw", [resampling_counts, swaps])
def test_fifty_thousand_samples_fit_in_a_hundred_megabytes(draw):
    # The first 200 of 9,999 rows: memory is that of a chunk, and all chunks have one size.
    tracemalloc.start()
    for _, chunk in zip(range(5), draw(50_000, 9999, 0), strict=False):
        assert chunk.shape[1] == 50_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
