"""Localisation: scores by hand and by loops, ties, ignored pixels, tolerance, error rows."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.ndimage
import torch
from scene_batches import (
    assert_a_batch_is_its_samples,
    assert_rows_close,
    scene_batch,
    scene_subject,
)

from xai_lib.errors import OptionError
from xai_lib.evaluators import create, parse_methods
from xai_lib.evaluators.localisation import COLUMNS, scores, within
from xai_lib.statistics.summary import summarise

pytestmark = pytest.mark.usefixtures("one_thread")
METHODS = parse_methods("rollout,attnlrp")


def random_case(n=5, size=9, seed=0, levels=6):
    """Return maps with many ties, of both signs, and masks with ignored pixels."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-2, levels, (n, size, size)).astype(float)
    masks = rng.choice([1, 0, 0, -1], (n, size, size)).astype(np.int8)
    return torch.from_numpy(values), torch.from_numpy(masks)


def by_hand(values, mask, tolerance=0, draws=4000):
    """Return the scores of one map by plain loops; ties broken at random, many times."""
    rng = np.random.default_rng(1)
    pixels = [(y, x) for y, x in np.ndindex(*mask.shape) if mask[y, x] != -1]
    inside = {p for p in pixels if mask[p] == 1}
    top = max(values[p] for p in pixels)
    best = [p for p in pixels if values[p] == top]
    near = [any(np.hypot(p[0] - q[0], p[1] - q[1]) <= tolerance for q in inside) for p in best]
    mass = sum(max(values[p], 0) for p in inside) / sum(max(values[p], 0) for p in pixels)
    hits = []
    for _ in range(draws):
        noise = dict(zip(pixels, rng.random(len(pixels)), strict=True))
        order = sorted(pixels, key=lambda p: (-values[p], noise[p]))
        hits.append(len(inside & set(order[: len(inside)])) / len(inside))
    return np.mean(near), mass, np.mean(hits), len(inside) / len(pixels)


def test_scores_are_those_of_plain_loops():
    values, masks = random_case()
    found = scores(values, masks)
    for i in range(len(values)):
        pointing, mass, rank, chance = by_hand(values[i].numpy(), masks[i].numpy())
        assert found[i, 0] == pytest.approx(pointing) and found[i, 1] == pytest.approx(mass)
        assert found[i, 2] == pytest.approx(rank, abs=0.01)
        assert found[i, 3] == pytest.approx(chance)


def test_scores_of_a_small_map_by_hand():
    """K = 2: the 5 is in, and one of the two tied 3 is; the ignored 9 counts nowhere."""
    values = torch.tensor([[[9.0, 5.0, 3.0], [3.0, -4.0, 1.0]]])
    masks = torch.tensor([[[-1, 1, 1], [0, 0, 0]]], dtype=torch.int8)
    assert scores(values, masks)[0].tolist() == pytest.approx([1, 8 / 12, 0.75, 2 / 5])


def test_a_perfect_map_scores_one_and_its_opposite_nothing():
    masks = random_case()[1]
    perfect = (masks == 1).double()
    assert (scores(perfect, masks)[:, :3] == 1).all()
    assert (scores(1 - perfect, masks)[:, :3] == 0).all()


def test_a_uniform_map_scores_chance():
    masks = random_case()[1]
    found = scores(torch.full(masks.shape, 0.3), masks)
    torch.testing.assert_close(found[:, :3], found[:, 3:].expand(-1, 3))
    # With no relevance at all there is no mass; place and order are chance as before.
    nothing = scores(torch.zeros(masks.shape), masks)
    assert nothing[:, 1].isnan().all() and torch.equal(nothing[:, [0, 2]], found[:, [0, 2]])


def test_scale_and_what_is_ignored_do_not_matter():
    values, masks = random_case()
    expected = scores(values, masks)
    torch.testing.assert_close(scores(7 * values, masks), expected)
    torch.testing.assert_close(scores(values.masked_fill(masks == -1, 99.0), masks), expected)
    assert not torch.allclose(scores(values.masked_fill(masks == 0, 99.0), masks), expected)


@pytest.mark.parametrize("distance", [1, 2, 5])
def test_tolerance_is_a_euclidean_distance(distance):
    masks = torch.from_numpy(np.random.default_rng(2).random((4, 20, 24)) > 0.99)
    masks[:, 10, 3] = True
    expected = [scipy.ndimage.distance_transform_edt(~m) <= distance for m in masks.numpy()]
    np.testing.assert_array_equal(within(masks, distance), expected)


def test_a_sample_that_cannot_be_explained_leaves_the_others_their_own_class():
    batch = replace(scene_batch(3), labels=torch.tensor([2, 7, 4]))
    expected = list(create("localisation").rows(scene_subject(), batch[[1, 2]], METHODS))
    batch.images[0] = torch.nan
    rows = list(create("localisation").rows(scene_subject(), batch, METHODS))
    assert [row["index"] for row in rows if row["error"]] == [10, 10]
    assert_rows_close([row for row in rows if not row["error"]], expected, 1e-4)
    other = replace(batch, labels=torch.tensor([2, 2, 2]))[[1, 2]]
    moved = create("localisation").rows(scene_subject(), other, METHODS[1:])
    assert [r["mass"] for r in moved] != pytest.approx([r["mass"] for r in expected[2:]], abs=1e-2)


def test_tolerance_widens_the_pointing_game_alone():
    values, masks = torch.zeros(1, 9, 9), torch.zeros(1, 9, 9, dtype=torch.int8)
    values[0, 2, 2], masks[0, 5, 6] = 1, 1
    assert [scores(values, masks, t)[0, 0].item() for t in (0, 4, 5)] == [0, 0, 1]
    torch.testing.assert_close(scores(values, masks, 5)[:, 1:], scores(values, masks)[:, 1:])


def test_planted_evidence_is_found_and_samples_are_their_batch():
    evaluator, batch = create("localisation"), scene_batch(4)
    rows = assert_a_batch_is_its_samples(evaluator, METHODS, n=4, tolerance=1e-4)
    assert [(r["method"], r["index"]) for r in rows] == [
        (m.label, i) for m in METHODS for i in batch.index
    ]
    assert all(r["error"] is None for r in rows)
    for row, mask in zip(rows, batch.masks.repeat(2, 1, 1), strict=True):
        assert row["chance"] == pytest.approx((mask == 1).double().mean().item())
    table = summarise(pd.DataFrame(rows), evaluator.metrics).set_index(["method", "metric"])[
        "value"
    ]
    assert table["rollout", "relevance_rank"] > 2 * table["rollout", "chance"]


def test_the_label_is_explained_unless_the_prediction_is_asked_for():
    subject, batch = scene_subject(), scene_batch(2)
    wrong = replace(batch, labels=(batch.labels + 1) % 10)
    method = parse_methods("attnlrp")
    label, other, predicted = (
        [row["mass"] for row in create("localisation", **options).rows(subject, b, method)]
        for b, options in ((batch, {}), (wrong, {}), (wrong, {"explain": "predicted"}))
    )
    assert label != other and label == pytest.approx(predicted, rel=1e-5)
    evaluator = create("localisation", explain="predicted")
    assert evaluator.needs == {"masks"} and create("localisation").needs == {"masks", "labels"}
    assert list(evaluator.rows(subject, replace(batch, labels=None), method))


def test_the_maps_that_are_scored_are_kept():
    kept = []
    subject = replace(scene_subject(), keep=lambda *args: kept.append(args))
    list(create("localisation").rows(subject, scene_batch(1), METHODS))
    assert [entry[:2] for entry in kept] == [("rollout", 10), ("attnlrp", 10)]
    assert all(entry[2].shape == (12, 12) for entry in kept)


def test_a_mask_without_foreground_is_an_error_row_of_its_sample_alone():
    batch = scene_batch(3)
    batch.masks[1] = 0
    batch.masks[1, :4] = -1
    rows = list(create("localisation").rows(scene_subject(), batch, METHODS))
    bad = [row for row in rows if row["error"]]
    assert [row["index"] for row in bad] == [11, 11] and "no pixel" in bad[0]["error"]
    assert all(row[column] is None for row in bad for column in COLUMNS)
    assert all(row["pointing"] is not None for row in rows if row["index"] != 11)


def test_options_and_data_that_do_not_fit_are_refused():
    with pytest.raises(OptionError, match="label"):
        create("localisation", explain="labels")
    with pytest.raises(OptionError, match="0 or more"):
        create("localisation", tolerance=-1)
    with pytest.raises(OptionError, match="maps"):
        create("localisation", maps="tokens")
    with pytest.raises(OptionError, match="needs masks"):
        list(
            create("localisation").rows(
                scene_subject(), replace(scene_batch(), masks=None), METHODS
            )
        )
