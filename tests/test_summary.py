"""Tables from records: values, intervals, n, failures, order, comparisons, curves."""

import numpy as np
import pandas as pd
import pytest

from xai_lib.errors import InputError
from xai_lib.statistics.intervals import bootstrap_means, holm, paired_test, percentile_interval
from xai_lib.statistics.metric import Metric
from xai_lib.statistics.summary import compare, curve, summarise


def ratio(parts):
    return parts[..., 0] / parts[..., 1]


# A mean in per cent, a ratio of sums, and a number of which neither direction is better.
METRICS = (
    Metric("mean", ("a",), scale=100),
    Metric("ratio", ("a", "b"), value=ratio),
    Metric("chance", ("b",), better=None),
)
CHANGES = ("method", "change")


def records(methods=("rollout", "attnlrp", "lrp"), n=20, changes=(None,), seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for method in methods:
        for change in changes:
            for i in range(n):
                row = {"index": i, "key": f"image {i}", "method": method, "error": None}
                row |= {"change": change} if change else {}
                a, b = rng.random(2)
                rows.append(row | {"a": a, "b": 1 + b, "steps": [a, b, None]})
    return pd.DataFrame(rows)


def failed(frame, method, samples):
    """Return the records with some samples of a method failed, as an evaluator reports them."""
    frame = frame.astype({"a": object, "b": object})
    hit = (frame["method"] == method) & frame["index"].isin(samples)
    for column in ("a", "b", "steps"):
        frame[column] = frame[column].where(~hit, None)
    frame["error"] = frame["error"].astype(object).where(~hit, "The map is constant.")
    return frame


def test_values_and_intervals_are_those_of_the_statistics():
    frame = records()
    table = summarise(frame, METRICS, resamples=200, seed=4).set_index(["method", "metric"])
    for method, rows in frame.groupby("method"):
        parts = rows[["a", "b"]].to_numpy()
        draws = bootstrap_means(parts, 200, seed=4)
        mean, quotient = table.loc[(method, "mean")], table.loc[(method, "ratio")]
        assert mean["value"] == pytest.approx(100 * parts[:, 0].mean())
        assert quotient["value"] == pytest.approx(parts[:, 0].sum() / parts[:, 1].sum())
        ends = 100 * np.array(percentile_interval(draws[:, 0]))
        np.testing.assert_allclose(mean[["low", "high"]].astype(float), ends)
        np.testing.assert_allclose(
            quotient[["low", "high"]].astype(float), percentile_interval(ratio(draws))
        )
        assert mean["n"] == 20 and mean["failed"] == 0


def test_order_is_that_of_the_methods_and_row_order_changes_no_bit():
    frame = records()
    table = summarise(frame, METRICS)
    assert list(table.columns) == ["method", "metric", "value", "low", "high", "n", "failed"]
    assert list(table["method"]) == ["rollout"] * 3 + ["attnlrp"] * 3 + ["lrp"] * 3
    # Shards come back in another order; their first rows still list the methods as the run does.
    shards = [frame[frame["index"] >= 10], frame[frame["index"] < 10]]
    pd.testing.assert_frame_equal(summarise(pd.concat(shards), METRICS), table)
    pd.testing.assert_frame_equal(compare(pd.concat(shards), METRICS), compare(frame, METRICS))


def test_failed_samples_are_left_out_and_counted():
    frame = failed(records(), "attnlrp", [3, 4, 5])
    table = summarise(frame, METRICS).set_index(["method", "metric"])
    assert list(table.loc["attnlrp", "n"]) == [17, 17, 17]
    assert list(table.loc["attnlrp", "failed"]) == [3, 3, 3]
    assert list(table.loc["lrp", "failed"]) == [0, 0, 0]
    kept = frame[(frame["method"] == "attnlrp") & frame["error"].isna()]
    assert table.loc[("attnlrp", "mean"), "value"] == pytest.approx(100 * kept["a"].mean())


def test_a_sample_that_lacks_one_part_of_a_metric_has_failed_for_that_metric():
    frame = records(("lrp",))
    frame.loc[4, "b"] = np.nan
    table = summarise(frame, METRICS).set_index("metric")
    assert list(table.loc[["mean", "ratio"], "n"]) == [20, 19]
    assert list(table.loc[["mean", "ratio"], "failed"]) == [0, 1]
    kept = frame.drop(index=4)
    assert table.loc["ratio", "value"] == pytest.approx(kept["a"].sum() / kept["b"].sum())


def test_pairs_are_compared_on_the_samples_that_both_have():
    frame = failed(failed(records(), "attnlrp", [3, 4, 5]), "lrp", [5, 6])
    table = compare(frame, METRICS, seed=2)
    assert list(zip(table["method_a"], table["method_b"], strict=True))[:3] == [
        ("rollout", "attnlrp"),
        ("rollout", "lrp"),
        ("attnlrp", "lrp"),
    ]
    assert list(table["n"]) == [17, 18, 16] * 2
    wide = frame.astype({"a": float, "b": float}).pivot(index="index", columns="method")
    for _, row in table.iterrows():
        columns = ["a"] if row["metric"] == "mean" else ["a", "b"]
        value = (lambda p: p[..., 0]) if row["metric"] == "mean" else ratio
        scale = 100 if row["metric"] == "mean" else 1
        a, b = (wide.xs(row[m], axis=1, level=1)[columns] for m in ("method_a", "method_b"))
        both = a.notna().all(axis=1) & b.notna().all(axis=1)
        a, b = a[both].to_numpy(), b[both].to_numpy()
        assert row["difference"] == pytest.approx(scale * (value(a.mean(0)) - value(b.mean(0))))
        draws = value(bootstrap_means(a, seed=2)) - value(bootstrap_means(b, seed=2))
        np.testing.assert_allclose((row["low"], row["high"]), scale * np.array(
            percentile_interval(draws)
        ))  # fmt: skip
        assert row["p"] == pytest.approx(paired_test(a, b, value, seed=2))
    for _, family in table.groupby("metric"):
        np.testing.assert_allclose(family["p_holm"], holm(family["p"]))


def test_metrics_without_a_better_direction_are_shown_but_not_compared():
    frame = records()
    assert set(summarise(frame, METRICS)["metric"]) == {"mean", "ratio", "chance"}
    assert set(compare(frame, METRICS)["metric"]) == {"mean", "ratio"}


def test_pairing_finds_what_unpaired_intervals_hide():
    """A method better by a hair on every sample: intervals overlap, the paired test is sure."""
    frame = records(("rollout",), n=40)
    better = frame.assign(method="lrp", a=frame["a"] + 0.01)
    both = pd.concat([frame, better])
    table = summarise(both, METRICS).query("metric == 'mean'").set_index("method")
    assert table.loc["lrp", "low"] < table.loc["rollout", "high"]
    row = compare(both, METRICS).query("metric == 'mean'").iloc[0]
    assert row["p"] < 0.001 and row["high"] < 0 and row["difference"] == pytest.approx(-1)


def test_other_groups_keep_their_order_and_are_families_of_their_own():
    frame = records(("lrp", "attnlrp", "gradient"), changes=("shift", "noise"))
    table = summarise(frame, METRICS, CHANGES)
    assert (
        list(table["change"])
        == ["shift"] * 3
        + ["noise"] * 3
        + ["shift"] * 3
        + ["noise"] * 3
        + ["shift"] * 3
        + ["noise"] * 3
    )
    pairs = compare(frame, METRICS, CHANGES)
    assert list(pairs["change"].unique()) == ["shift", "noise"] and len(pairs) == 2 * 2 * 3
    for _, family in pairs.groupby(["change", "metric"]):
        np.testing.assert_allclose(family["p_holm"], holm(family["p"]))


def test_pairs_of_methods_are_listed_in_the_order_of_the_methods():
    frame = records(("lrp",), n=3).drop(columns="method")
    names = ("rollout", "attnlrp", "lrp")
    pairs = [(a, b) for a in names for b in names if a != b]
    frame = pd.concat([frame.assign(method=a, other=b) for a, b in pairs])

    table = summarise(frame, METRICS, ("method", "other")).query("metric == 'mean'")
    assert list(zip(table["method"], table["other"], strict=True)) == pairs


def test_a_sample_that_names_no_group_has_failed_in_all_of_its_method():
    frame = records(("lrp", "attnlrp"), changes=("noise", "shift"))
    lost = {"index": 20, "key": "image 20", "method": "lrp", "error": "Unreadable."}
    table = summarise(pd.concat([frame, pd.DataFrame([lost])]), METRICS, CHANGES)
    assert list(table["failed"]) == [1] * 6 + [0] * 6 and (table["n"] == 20).all()
    only = pd.DataFrame([lost | {"change": None, "a": None, "b": None}])
    pd.testing.assert_frame_equal(
        summarise(only, METRICS, CHANGES),
        summarise(only[["index", "key", "method", "error"]], METRICS, CHANGES),
    )
    table = summarise(only, METRICS, CHANGES)
    assert list(table["method"]) == ["lrp"] * 3 and list(table["failed"]) == [1] * 3


def test_nothing_to_summarise_gives_no_value_and_no_warning():
    frame = failed(records(), "lrp", range(20))
    table = summarise(frame, METRICS).query("method == 'lrp'")
    assert (table["n"] == 0).all() and (table["failed"] == 20).all()
    assert table[["value", "low", "high"]].isna().all(axis=None)
    pairs = compare(frame, METRICS).query("method_b == 'lrp'")
    assert pairs[["difference", "low", "high", "p", "p_holm"]].isna().all(axis=None)
    assert (pairs["n"] == 0).all()
    empty = summarise(frame[:0], METRICS)
    assert len(empty) == 0 and "value" in empty
    assert len(compare(frame[:0], METRICS)) == 0 and len(curve(frame[:0], "steps")) == 0


def test_one_sample_has_a_value_but_no_interval():
    table = summarise(records(n=1), METRICS)
    assert table["value"].notna().all() and table[["low", "high"]].isna().all(axis=None)
    assert (compare(records(n=1), METRICS)["p"] == 1).all()


def test_a_ratio_without_a_denominator_has_no_value():
    table = summarise(records().assign(b=0.0), METRICS).query("metric == 'ratio'")
    assert table["value"].isna().all() and (table["n"] == 20).all()


def test_curve_gives_the_mean_of_every_step():
    frame = failed(records(), "rollout", [0])
    table = curve(frame, "steps")
    assert list(table.columns) == ["method", "step", "value", "low", "high", "n"]
    assert list(table["step"]) == [0, 1, 2] * 3
    first = table.iloc[0]
    values = np.array([s[0] for s in frame["steps"][1:20]])
    assert first["value"] == pytest.approx(values.mean()) and first["n"] == 19
    np.testing.assert_allclose(
        first[["low", "high"]].astype(float),
        np.ravel(percentile_interval(bootstrap_means(values[:, None]))),
    )
    assert table.iloc[2]["n"] == 0 and np.isnan(table.iloc[2]["value"])


def test_records_that_cannot_be_right_are_refused():
    with pytest.raises(InputError, match="twice"):
        summarise(pd.concat([records(), records()]), METRICS)
    frame = records(("lrp",))
    frame.at[3, "steps"] = [1.0]
    with pytest.raises(InputError, match=r"\[1, 3\] entries"):
        curve(frame, "steps")
