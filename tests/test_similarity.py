"""Rank correlation and SSIM: against scipy, scikit-image and torchmetrics."""

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from skimage.metrics import structural_similarity
from torchmetrics.functional.regression import spearman_corrcoef

from xai_lib.errors import InputError
from xai_lib.evaluators.similarity import is_constant, mean_ranks, spearman, ssim


def maps(n=6, size=14, seed=0):
    return torch.rand(n, size, size, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("levels", [2, 5, 10**9])
def test_spearman_is_scipys_with_and_without_ties(levels):
    a, b = ((maps(seed=s) * levels).floor() for s in (0, 1))
    expected = [
        scipy.stats.spearmanr(x.ravel(), y.ravel()).statistic
        for x, y in zip(a.numpy(), b.numpy(), strict=True)
    ]
    np.testing.assert_allclose(spearman(a, b), expected, atol=1e-12)


def test_spearman_is_torchmetrics():
    a, b = maps(seed=2), maps(seed=3) + maps(seed=2)
    expected = spearman_corrcoef(a.flatten(1).t(), b.flatten(1).t())
    np.testing.assert_allclose(spearman(a, b), expected, atol=1e-6)


def test_ranks_are_scipys():
    a = (maps(3) * 4).floor()
    expected = scipy.stats.rankdata(a.flatten(1).numpy(), axis=1) - 1
    np.testing.assert_array_equal(mean_ranks(a), expected)


def test_spearman_sees_the_order_only():
    a = maps()
    assert torch.equal(spearman(a, a.exp()), torch.ones(6).double())
    assert torch.equal(spearman(a, -(a**3)), -torch.ones(6).double())
    assert spearman(a, maps(seed=9)).abs().max() < 0.3


def test_maps_without_a_ranking_have_no_correlation():
    a = maps(3)
    a[0] = 0.25
    a[1, 2, 3] = torch.nan
    found = spearman(a, maps(3, seed=1))
    assert found.isnan().tolist() == [True, True, False]


def test_a_constant_map_stays_one_when_it_is_enlarged():
    flat = torch.full((1, 5, 5), 0.1, dtype=torch.float64)
    enlarged = F.interpolate(flat[None], size=(37, 37), mode="bilinear")[0]
    assert is_constant(enlarged).all() and spearman(enlarged, maps(1, 37)).isnan().all()
    assert not is_constant(maps()).any() and is_constant(torch.zeros(2, 3)).all()


@pytest.mark.parametrize("size", [7, 12, 33])
def test_ssim_is_scikit_images(size):
    a = maps(size=size)
    b = (a + 0.4 * (maps(size=size, seed=1) - 0.5)).clamp(0, 1)
    expected = [
        structural_similarity(x, y, data_range=1.0, win_size=7)
        for x, y in zip(a.numpy(), b.numpy(), strict=True)
    ]
    np.testing.assert_allclose(ssim(a, b), expected, atol=1e-12)
    assert 0.1 < ssim(a, b).mean() < 0.95


def test_ssim_is_one_for_equal_maps_and_symmetric():
    a, b = maps(), maps(seed=1)
    np.testing.assert_allclose(ssim(a, a), 1, atol=1e-12)
    np.testing.assert_allclose(ssim(a, b), ssim(b, a), atol=1e-14)


def test_a_batch_is_its_samples():
    a, b = maps(), maps(seed=1)
    for measure in (spearman, ssim):
        single = torch.cat([measure(a[i : i + 1], b[i : i + 1]) for i in range(6)])
        np.testing.assert_allclose(measure(a, b), single, atol=1e-14)


def test_ssim_refuses_maps_below_its_window():
    with pytest.raises(InputError, match="4 x 4"):
        ssim(maps(size=4), maps(size=4))
