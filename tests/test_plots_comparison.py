"""Dots stand at the table's values, their lines end at its intervals, and panels say their unit."""

import numpy as np
import pandas as pd
import pytest
from figure_checks import check_legible, drawn_texts

import xai_lib as xai
from xai_lib.errors import InputError, OptionError
from xai_lib.plots import metric_dots, planted_evidence

METHODS = [*xai.methods()["name"], "rollout:start_layer=1", "attnlrp:a=1:b=2:c_is_long=true"]


def table(methods, metrics, groups=({},), scale=100, seed=0):
    rng = np.random.default_rng(seed)
    rows = [
        {"method": method, **group, "metric": metric, "value": rng.uniform(0.3, 0.9) * scale}
        for group in groups
        for method in methods
        for metric in metrics
    ]
    frame = pd.DataFrame(rows)
    spread = rng.uniform(0.01, 0.05, (2, len(frame))) * scale
    return frame.assign(
        low=frame["value"] - spread[0], high=frame["value"] + spread[1], n=50, failed=0
    )


def test_dots_and_intervals_are_the_tables():
    summary = table(METHODS[:4], ["mIoU", "mAP"])
    figure = metric_dots(summary, metrics=["mAP", "mIoU"])
    assert [axes.get_xlabel() for axes in figure.axes] == ["mean AP (%)", "mean IoU (%)"]
    rows = summary[summary["metric"] == "mAP"]
    axes = figure.axes[0]
    places = dict(
        zip([t.get_text() for t in axes.get_yticklabels()], axes.get_yticks(), strict=True)
    )
    assert list(places) == METHODS[:4] and axes.yaxis_inverted(), "the first method is on top"
    for row, interval, dot in zip(
        rows.itertuples(), axes.lines[::2], axes.lines[1::2], strict=True
    ):
        assert list(interval.get_xdata()) == [row.low, row.high]
        assert list(dot.get_xdata()) == [row.value]
        assert set(interval.get_ydata()) == set(dot.get_ydata()) == {places[row.method]}


def test_a_method_without_value_keeps_its_row():
    summary = table(["rollout", "lrp"], ["mIoU"])
    summary.loc[0, ["value", "low", "high"]] = np.nan
    figure = metric_dots(summary)
    texts = [text.get_text() for text in drawn_texts(figure)]
    assert texts.count("no value") == 1 and "rollout" in texts
    assert len(figure.axes[0].lines) == 2


def test_reference_and_direction_are_said():
    groups = [{"order": "positive"}, {"order": "negative"}]
    figure = metric_dots(
        table(["rollout", "lrp"], ["auc_cvpr21"], groups),
        panels=["order"],
        reference=40.0,
        better={"positive": "low", "negative": "high"},
    )
    first, second = figure.axes
    assert first.get_xlabel() == "AUC, CVPR'21 (%)\nlower is better"
    assert second.get_xlabel().endswith("higher is better") and second.get_title() == "negative"
    assert any(set(line.get_xdata()) == {40.0} for line in first.lines)
    assert any(text.get_text() == "chance" for text in first.texts)
    only_one = metric_dots(table(["lrp"], ["mIoU", "mAP"]), reference={"mIoU": 50})
    assert [len(axes.lines) for axes in only_one.axes] == [3, 2]


def test_planted_evidence_takes_chance_from_the_table():
    summary = table(METHODS, ["pointing_game", "relevance_mass", "relevance_rank", "chance"])
    summary.loc[summary["metric"] == "chance", ["value", "low", "high"]] = 12.5
    figure = planted_evidence(summary)
    assert len(figure.axes) == 3, "chance is a line, not a score"
    for axes in figure.axes:
        assert any(set(line.get_xdata()) == {12.5} for line in axes.lines)
    check_legible(figure)


@pytest.mark.parametrize("metrics", [1, 2, 3, 4])
@pytest.mark.parametrize("methods", [METHODS[:3], METHODS], ids=["three", "all"])
def test_dots_are_legible(metrics, methods):
    names = ["pixel_accuracy", "mIoU", "mAP", "mF1"][:metrics]
    summary = table(methods, names)
    check_legible(metric_dots(summary, reference=50.0, better=dict.fromkeys(names, "high")))


def test_four_titled_panels_are_legible():
    groups = [{"order": o, "explained": e} for o in ("positive", "negative") for e in ("a", "b")]
    summary = table(METHODS, ["auc_tmlr23"], groups)
    check_legible(metric_dots(summary, panels=["order", "explained"], reference=50.0))


def test_tables_that_cannot_be_drawn_are_refused():
    summary = table(["rollout"], ["mIoU"], [{"order": "positive"}, {"order": "negative"}])
    with pytest.raises(InputError, match="order"):
        metric_dots(summary)
    with pytest.raises(OptionError, match="Did you mean 'mIoU'"):
        metric_dots(summary, ["mIOU"], panels=["order"])
    with pytest.raises(InputError, match="low"):
        metric_dots(summary.drop(columns="low"))
