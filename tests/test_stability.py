"""Stability: noise and shift by themselves, numbers against scipy, equivariance, error rows."""

from dataclasses import replace

import pandas as pd
import pytest
import scipy.stats
import torch
from scene_batches import assert_a_batch_is_its_samples, scene_batch, scene_subject

import xai_lib as xai
from xai_lib.errors import OptionError
from xai_lib.evaluators import create, parse_methods, stability
from xai_lib.evaluators.maps import Maps, enlarged
from xai_lib.evaluators.stability import Stability, relative_change, shifted, with_noise
from xai_lib.statistics.summary import compare, summarise

pytestmark = pytest.mark.usefixtures("one_thread")
METHODS = parse_methods("rollout,gradient")


def test_noise_is_the_samples_own_small_and_inside_the_range():
    batch = scene_batch(4)
    grey = replace(batch, images=torch.full((4, 3, 96, 96), 0.5))
    noise = with_noise(grey, 0.02) - 0.5
    assert noise.std() == pytest.approx(0.02, rel=0.02) and noise.mean().abs() < 1e-3
    torch.testing.assert_close(with_noise(batch[[2]], 0.02)[0], with_noise(batch, 0.02)[2])
    assert not torch.equal(noise[0], noise[1])
    assert not torch.equal(with_noise(grey, 0.02, seed=1) - 0.5, noise)
    loud = with_noise(batch, 0.5)
    assert loud.min() == 0 and loud.max() == 1


def test_shift_moves_down_and_right_and_repeats_the_edge():
    image = torch.arange(12.0).view(1, 1, 3, 4)
    expected = [[0, 0, 0, 1], [0, 0, 0, 1], [4, 4, 4, 5]]
    assert shifted(image, (1, 2))[0, 0].tolist() == expected
    assert torch.equal(shifted(image, (0, 0)), image)


def test_relative_change_by_hand():
    before, after = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[3.0, 7.0]]])
    assert relative_change(before, after).item() == pytest.approx(3 / 5)
    assert relative_change(before, -before).item() == pytest.approx(2)


@pytest.mark.parametrize(("change", "step"), [("noise", 0), ("shift", 16)])
def test_numbers_are_those_of_the_changed_image(change, step):
    subject, batch = scene_subject(), scene_batch(2)
    pixels = subject.normalize(batch.images)
    if change == "noise":
        changed = subject.normalize(with_noise(batch, 0.1, seed=3))
    else:
        changed = subject.normalize(shifted(batch.images, (16, 16)))
    target = subject.model(pixels).argmax(-1)
    kept = subject.model(changed).argmax(-1) == target
    evaluator = create("stability", noise=0.1, shift=2, seed=3)
    rows = [r for r in evaluator.rows(subject, batch, METHODS) if r["change"] == change]
    assert len(rows) == 4
    for row in rows:
        found = [
            xai.explain(subject.model, x, row["method"], target=target) for x in (pixels, changed)
        ]
        maps = [f.pixels if f.pixels is not None else enlarged(f.patches, (96, 96)) for f in found]
        i = row["index"] - 10
        a = maps[0][i, : 96 - step, : 96 - step].flatten().double()
        b = maps[1][i, step:, step:].flatten().double()
        assert row["rank_correlation"] == pytest.approx(scipy.stats.spearmanr(a, b).statistic)
        assert row["relative_change"] == pytest.approx(((a - b).norm() / a.norm()).item())
        assert row["kept"] == float(kept[i]) and row["error"] is None


def test_a_map_that_follows_the_content_is_stable_under_a_shift(monkeypatch):
    """Brightness as relevance moves with the image; a map fixed to the frame does not."""

    def content(subject, batch, spec, target=None, **options):
        values = batch.images.mean(1).double()
        if spec.label == "rollout":
            values = torch.rand(96, 96, generator=torch.Generator().manual_seed(0)).double()
            values = values.expand(len(batch), 96, 96)
        logits = torch.tensor([[1.0, 0.0]] * len(batch))
        chosen = logits.argmax(-1)
        return Maps(values, values[:, ::8, ::8], chosen, chosen, logits, (None,) * len(batch))

    monkeypatch.setattr(stability, "explained", content)
    rows = list(create("stability").rows(scene_subject(), scene_batch(2), METHODS))
    rows = {(r["method"], r["change"]): r for r in rows if r["index"] == 10}
    assert rows["gradient", "shift"]["rank_correlation"] == pytest.approx(1)
    assert rows["gradient", "shift"]["relative_change"] == 0
    assert abs(rows["rollout", "shift"]["rank_correlation"]) < 0.1
    assert rows["rollout", "noise"]["rank_correlation"] == pytest.approx(1)
    assert rows["rollout", "noise"]["relative_change"] == 0
    assert 0 < rows["gradient", "noise"]["relative_change"] < 0.1


def test_less_noise_changes_less():
    subject, batch = scene_subject(), scene_batch(2)

    def changes(noise):
        rows = create("stability", noise=noise).rows(subject, batch, METHODS)
        return [row["relative_change"] for row in rows if row["change"] == "noise"]

    assert all(s < 0.01 and s < b for s, b in zip(changes(1e-5), changes(0.1), strict=True))


def test_a_batch_is_its_samples_and_the_model_is_untouched():
    assert_a_batch_is_its_samples(create("stability"), METHODS)


def test_tables_have_a_row_a_method_and_change():
    records = pd.DataFrame(create("stability").rows(scene_subject(), scene_batch(3), METHODS))
    found = records, Stability.metrics, Stability.groups
    table = summarise(*found)
    assert list(zip(table["method"], table["change"], strict=True))[::3] == [
        (m.label, change) for m in METHODS for change in ("noise", "shift")
    ]
    assert set(compare(*found)["metric"]) == {
        "rank_correlation",
        "relative_change",
    }


def test_maps_without_a_ranking_and_bad_images_are_error_rows(monkeypatch):
    explained = stability.explained

    def spoiled(subject, batch, spec, target=None, **options):
        found = explained(subject, batch, spec, target, **options)
        if target is None:
            found.values[0] = 0.1
        elif spec.label == "gradient":
            found.values[-1, 50, 50] = torch.nan
            return replace(found, errors=(*found.errors[:-1], "holds NaN"))
        return found

    monkeypatch.setattr(stability, "explained", spoiled)
    batch = scene_batch(4)
    batch.images[1] = torch.nan
    rows = list(create("stability").rows(scene_subject(), batch, METHODS))
    assert len(rows) == 4 * 2 * 2
    for row in rows:
        expected = {10: "ranks nothing", 11: "NaN"}.get(row["index"])
        if row["index"] == 13 and row["method"] == "gradient":
            expected = "holds NaN"
        assert (expected in row["error"]) if expected else row["error"] is None
        assert all((row[c] is None) == bool(expected) for c in stability.COLUMNS)
    assert all(r["error"] for r in create("stability").rows(scene_subject(), batch[[1]], METHODS))


@pytest.mark.parametrize(
    ("options", "says"),
    [({"noise": 0.0}, "above 0"), ({"shift": 0}, "1 or more"), ({"maps": "x"}, "native")],
)
def test_options_out_of_range_are_refused(options, says):
    with pytest.raises(OptionError, match=says):
        create("stability", **options)


def test_a_shift_that_leaves_nothing_is_refused():
    with pytest.raises(OptionError, match="12 x 12 patches"):
        list(create("stability", shift=12).rows(scene_subject(), scene_batch(1), METHODS))
