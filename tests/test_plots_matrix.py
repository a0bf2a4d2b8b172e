"""Matrices show each pair once in each direction, and number only what the tests support."""

from itertools import combinations, pairwise

import numpy as np
import pandas as pd
import pytest
from figure_checks import check_legible

import xai_lib as xai
from xai_lib.errors import InputError, OptionError
from xai_lib.plots import agreement_matrix, differences_matrix, square

METHODS = list(xai.methods()["name"])


def correlations(methods, seed=0):
    points = np.random.default_rng(seed).normal(size=(len(methods), 5))
    return pd.DataFrame(np.corrcoef(points), methods, methods)


def comparisons(methods, spread=6.0, seed=0):
    values = np.random.default_rng(seed).normal(50, spread, len(methods))
    rows = []
    for i, j in combinations(range(len(methods)), 2):
        difference = values[i] - values[j]
        p = 0.001 if abs(difference) > spread / 2 else 0.4
        rows.append(("mIoU", methods[i], methods[j], difference, p))
    return pd.DataFrame(rows, columns=["metric", "method_a", "method_b", "difference", "p_holm"])


def cells(figure):
    return {tuple(map(int, t.get_position()))[::-1]: t.get_text() for t in figure.axes[0].texts}


def names(figure):
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_pairs_become_a_symmetric_table():
    pairs = pd.DataFrame(
        [("a", "b", 0.5), ("b", "a", 0.5), ("c", "a", -0.25)], columns=["method", "other", "value"]
    )
    expected = pd.DataFrame(
        [[1, 0.5, -0.25], [0.5, 1, np.nan], [-0.25, np.nan, 1]], list("abc"), list("abc")
    )
    pd.testing.assert_frame_equal(square(pairs), expected)
    with pytest.raises(InputError, match="several rows"):
        square(pd.concat([pairs, pairs]))


def test_cells_say_the_table():
    table = correlations(METHODS[:4])
    table.iloc[0, 1] = table.iloc[1, 0] = -0.004
    table.iloc[0, 2] = table.iloc[2, 0] = np.nan
    figure = agreement_matrix(table)
    shown = cells(figure)
    assert names(figure) == METHODS[:4]
    assert (0, 2) not in shown and shown[0, 0] == "1" and shown[0, 1] == ".00"
    for (row, column), text in shown.items():
        value = table.iloc[row, column]
        assert abs(float(text.replace("−", "-")) - value) <= 0.005 + 1e-9
    image = figure.axes[0].collections[0]
    drawn = np.ma.filled(image.get_array().astype(float), np.nan)
    np.testing.assert_array_equal(drawn, table.to_numpy())
    assert image.get_clim() == (-1, 1), "white is no correlation"


def test_similar_methods_stand_together():
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(3, 40))
    groups = np.array([0, 1, 2] * 4)
    points = centres[groups] + 0.1 * rng.normal(size=(12, 40))
    labels = [f"{'abc'[group]}{i}" for i, group in enumerate(groups)]
    table = pd.DataFrame(np.corrcoef(points), labels, labels)
    figure = agreement_matrix(table, order="similar")
    order = names(figure)
    changes = sum(x[0] != y[0] for x, y in pairwise(order))
    assert sorted(order) == sorted(labels) and changes == 2
    shuffled = list(rng.permutation(labels))
    again = names(agreement_matrix(table.loc[shuffled, shuffled], order="similar"))
    assert again in (order, order[::-1]), "the order is that of the methods, not of the input"
    drawn = np.asarray(figure.axes[0].collections[0].get_array())
    np.testing.assert_array_equal(drawn, table.loc[order, order].to_numpy())


def test_only_significant_differences_have_numbers_and_colour():
    table = comparisons(METHODS[:5])
    table.loc[0, "p_holm"] = np.nan
    figure = differences_matrix(table, "mIoU")
    shown = cells(figure)
    drawn = figure.axes[0].collections[0].get_array()
    place = {name: i for i, name in enumerate(METHODS)}
    assert set(table["p_holm"].dropna() < 0.05) == {True, False}
    for row in table.itertuples():
        i, j = place[row.method_a], place[row.method_b]
        if np.isnan(row.p_holm):
            assert (i, j) not in shown and drawn.mask[i, j]
        elif row.p_holm < 0.05:
            assert drawn[i, j] == row.difference == -drawn[j, i]
            assert shown[i, j].replace("−", "-").strip("-") == shown[j, i].replace("−", "-").strip(
                "-"
            )
            assert abs(float(shown[i, j].replace("−", "-")) - row.difference) <= 0.5
        else:
            assert shown[i, j] == shown[j, i] == "n.s." and drawn[i, j] == drawn[j, i] == 0
    low, high = figure.axes[0].collections[0].get_clim()
    assert low == -high and "p ≥ 0.05" in figure.axes[1].get_ylabel()


def test_nothing_significant_is_a_white_matrix():
    figure = differences_matrix(comparisons(METHODS[:4]).assign(p_holm=1.0), "mIoU")
    drawn = figure.axes[0].collections[0].get_array()
    assert (drawn.filled(0) == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 8, 15])
def test_matrices_are_legible(count):
    agreement = agreement_matrix(correlations(METHODS[:count]), order="similar")
    assert len(cells(agreement)) == count**2, "every cell has its number"
    check_legible(agreement)
    for spread in (0.3, 6.0, 30.0):
        differences = differences_matrix(comparisons(METHODS[:count], spread), "mIoU")
        assert len(cells(differences)) == count * (count - 1)
        check_legible(differences)


def test_long_labels_are_legible():
    labels = [*METHODS, "transformer_attribution:rules=epsilon", "rollout:start_layer=1"]
    check_legible(agreement_matrix(correlations(labels)))


def test_tables_that_cannot_be_drawn_are_refused():
    table = correlations(METHODS[:3])
    with pytest.raises(OptionError, match=r"given.*similar"):
        agreement_matrix(table, order="clustered")
    with pytest.raises(InputError, match="other rows than columns"):
        agreement_matrix(table.iloc[:2])
    pairs = comparisons(METHODS[:3])
    with pytest.raises(OptionError, match="Unknown metric 'mAP'"):
        differences_matrix(pairs, "mAP")
    both = pd.concat([pairs.assign(order=order) for order in ("positive", "negative")])
    with pytest.raises(InputError, match=r"several rows .*order"):
        differences_matrix(both, "mIoU")
