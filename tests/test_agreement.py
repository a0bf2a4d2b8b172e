"""Agreement: correlations of patches against scipy, symmetry, error rows."""

from dataclasses import replace

import pandas as pd
import pytest
import scipy.stats
import torch
from scene_batches import assert_a_batch_is_its_samples, scene_batch, scene_subject

import xai_lib as xai
from xai_lib.errors import OptionError
from xai_lib.evaluators import agreement, create, parse_methods
from xai_lib.evaluators.agreement import Agreement
from xai_lib.statistics.summary import compare, summarise

pytestmark = pytest.mark.usefixtures("one_thread")
METHODS = parse_methods("rollout,lrp,attn_gradcam")


def test_correlations_are_scipys_on_the_patches():
    subject, batch = scene_subject(), scene_batch(2)
    rows = list(create("agreement").rows(subject, batch, METHODS))
    maps = {
        m.label: xai.explain(subject.model, subject.normalize(batch.images), m.name).patches
        for m in METHODS
    }
    assert len(rows) == 3 * 2 * 2
    for row in rows:
        a, b = (maps[row[side]][row["index"] - 10].flatten() for side in ("method", "other"))
        assert row["rank_correlation"] == pytest.approx(scipy.stats.spearmanr(a, b).statistic)


def test_the_matrix_is_symmetric_without_a_diagonal_in_the_order_of_the_methods():
    records = pd.DataFrame(create("agreement").rows(scene_subject(), scene_batch(3), METHODS))
    found = records, Agreement.metrics, Agreement.groups
    table = summarise(*found)
    labels = [m.label for m in METHODS]
    pairs = [(a, b) for a in labels for b in labels if a != b]
    assert list(zip(table["method"], table["other"], strict=True)) == pairs
    values = table.set_index(["method", "other"])["value"]
    assert all(values[a, b] == values[b, a] for a, b in pairs)
    assert len(compare(*found)) == 0


def test_one_method_named_two_ways_agrees_with_itself():
    same = parse_methods(["rollout", "rollout:start_layer=0"])
    for row in create("agreement").rows(scene_subject(), scene_batch(2), same):
        assert row["rank_correlation"] == pytest.approx(1, abs=1e-12)


def test_a_batch_is_its_samples_and_the_model_is_untouched():
    assert_a_batch_is_its_samples(create("agreement"), METHODS)


def test_maps_that_rank_nothing_are_error_rows_of_their_pairs(monkeypatch):
    """Sample 10 has a constant lrp map, sample 11 an lrp map with NaN, sample 12 neither."""
    explained = agreement.explained

    def spoiled(subject, batch, spec, **options):
        found = explained(subject, batch, spec, **options)
        if spec.label != "lrp":
            return found
        found.patches[0] = 0.5
        found.patches[1, 2, 2] = torch.nan
        return replace(found, errors=(None, "holds NaN", None))

    monkeypatch.setattr(agreement, "explained", spoiled)
    rows = list(create("agreement").rows(scene_subject(), scene_batch(3), METHODS))
    for row in rows:
        lrp = "lrp" in (row["method"], row["other"])
        expected = {10: "ranks nothing", 11: "holds NaN"}.get(row["index"]) if lrp else None
        assert (expected in row["error"]) if expected else row["error"] is None
        assert (row["rank_correlation"] is None) == (row["error"] is not None)


def test_nan_pixels_cost_one_sample():
    batch = scene_batch(2)
    batch.images[1, 0, 5, 5] = torch.nan
    rows = list(create("agreement").rows(scene_subject(), batch, METHODS))
    assert {row["index"] for row in rows if row["error"]} == {11}
    all_bad = list(create("agreement").rows(scene_subject(), batch[[1]], METHODS))
    assert len(all_bad) == 6 and all(row["error"] for row in all_bad)


def test_one_method_has_nothing_to_agree_with():
    with pytest.raises(OptionError, match="at least two"):
        list(create("agreement").rows(scene_subject(), scene_batch(1), METHODS[:1]))
