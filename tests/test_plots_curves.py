"""Curves draw the numbers they are given, with their bands, and stay legible with all methods."""

import numpy as np
import pandas as pd
import pytest
from figure_checks import check_legible, drawn_texts
from matplotlib.collections import PolyCollection

import xai_lib as xai
from xai_lib.errors import InputError
from xai_lib.plots import insertion_deletion_curves, looks, perturbation_curves, sanity_curves

X = [i / 10 for i in range(10)]
METHODS = [*xai.methods()["name"], "rollout:start_layer=1", "attnlrp:a=1:b=2:c_is_long=true"]


def curves(methods, groups, steps=10, seed=0):
    """Return a frame of random falling curves, a curve each method and setting of `groups`."""
    rng = np.random.default_rng(seed)
    rows = []
    for setting in groups:
        for method in methods:
            values = 0.9 * np.cumprod(rng.uniform(0.6, 1, steps))
            for step, value in enumerate(values):
                rows.append({"method": method, **setting, "step": step, "value": value,
                             "low": value - 0.03, "high": value + 0.04})  # fmt: skip
    return pd.DataFrame(rows)


def aucs(frame, groups):
    table = frame.groupby(["method", *groups], sort=False)["value"].mean().mul(100).reset_index()
    return table.assign(
        metric="auc_cvpr21", low=table["value"] - 1, high=table["value"] + 1, n=9, failed=0
    )


FOUR = [{"order": o, "explained": e} for o in ("positive", "negative")
        for e in ("predicted", "target")]  # fmt: skip


def panels_of(figure):
    return [axes for axes in figure.axes if axes.axison]


def test_lines_and_bands_are_the_numbers_of_the_frame():
    frame = curves(["rollout", "lrp"], FOUR)
    figure = perturbation_curves(frame.sample(frac=1, random_state=0), x=X)
    panels = {axes.get_title(): axes for axes in panels_of(figure)}
    assert set(panels) == {
        f"{o}, {e} class" for o in ("positive", "negative") for e in ("predicted", "target")
    }
    for setting in FOUR:
        axes = panels[f"{setting['order']}, {setting['explained']} class"]
        rows = frame[(frame[list(setting)] == pd.Series(setting)).all(axis=1)]
        assert len(axes.lines) == 2
        for line in axes.lines:
            curve = rows[rows["method"] == line.get_label()]
            assert np.array_equal(line.get_xdata(), X)
            assert np.array_equal(line.get_ydata(), curve["value"])
            assert line.get_color() == looks(["rollout", "lrp"])[line.get_label()].colour
            band = next(
                c for c in axes.collections
                if isinstance(c, PolyCollection)
                and np.allclose(c.get_facecolor()[0, :3], [int(line.get_color()[i:i+2], 16) / 255
                                                           for i in (1, 3, 5)])
            )  # fmt: skip
            corners = {(round(x, 9), round(y, 9)) for x, y in band.get_paths()[0].vertices}
            for bound in ("low", "high"):
                expected = zip(X, curve[bound], strict=True)
                assert {(round(x, 9), round(y, 9)) for x, y in expected} <= corners


def test_shares_are_labelled_in_per_cent():
    figure = perturbation_curves(curves(["rollout"], [{}]), x=X, panels=())
    texts = {text.get_text() for text in drawn_texts(figure)}
    assert {"pixels removed (%)", "accuracy (%)", "rollout", "40", "80"} <= texts


@pytest.mark.slow
def test_legend_holds_the_auc_of_every_panel():
    frame = curves(METHODS, FOUR)
    table = aucs(frame, ["order", "explained"])
    figure = perturbation_curves(frame, table, x=X)
    texts = [text.get_text() for text in drawn_texts(figure)]
    for value, low, high in table[["value", "low", "high"]].to_numpy():
        assert f"{value:.1f} [{low:.1f}, {high:.1f}]" in texts
    assert texts.count("target class") == 2, "the heads of the legend's columns"
    table.loc[0, ["value", "low", "high"]] = np.nan
    texts = [t.get_text() for t in drawn_texts(perturbation_curves(frame, table, x=X))]
    assert texts.count("–") == 1, "no number is said, not left to guess"


@pytest.mark.parametrize("methods", [METHODS[:3], METHODS], ids=["three", "all"])
@pytest.mark.parametrize("with_auc", [True, False], ids=["auc", "names"])
@pytest.mark.parametrize("panels", [0, 2, 4])
def test_perturbation_curves_are_legible(methods, with_auc, panels):
    groups = {0: [{}], 2: FOUR[:2], 4: FOUR}[panels]
    frame = curves(methods, groups)
    names = list(groups[0])
    table = aucs(frame, names) if with_auc else None
    check_legible(perturbation_curves(frame, table, x=X, panels=names))


@pytest.mark.parametrize("methods", [METHODS[:3], METHODS], ids=["three", "all"])
def test_insertion_and_deletion_are_legible(methods):
    frame = curves(methods, [{"order": "deletion"}, {"order": "insertion"}], steps=29)
    figure = insertion_deletion_curves(frame, x=np.linspace(0, 1, 29))
    assert [axes.get_title() for axes in panels_of(figure)] == ["deletion", "insertion"]
    assert panels_of(figure)[0].lines[0].get_xdata()[-1] == 1
    check_legible(figure)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("depth", [6, 12, 24])
def test_stages_stand_under_their_points(count, depth):
    blocks = (f"blocks.{i}" for i in reversed(range(depth)))
    stages = ["head", "norm", *blocks, "patch_embed.proj"]
    groups = [{"metric": f"metric_{i}"} for i in range(count)] if count > 1 else [{}]
    frame = curves(METHODS, groups, steps=len(stages))
    figure = sanity_curves(frame, stages, panels=list(groups[0]))
    assert len(panels_of(figure)) == count
    for axes in panels_of(figure):
        places = axes.get_xticks()
        named = [label.get_text() for label in axes.get_xticklabels()]
        # Inner panels share the names below them.
        assert named in ([stages[place] for place in places], [])
        assert places[0] == 0 and places[-1] == len(stages) - 1
        assert len(places) == len(stages) or count > 1 or depth > 12, "all that fit are named"
        assert np.array_equal(axes.lines[0].get_xdata(), range(len(stages)))
    texts = [text.get_text() for text in drawn_texts(figure)]
    assert texts.count("patch_embed.proj") == min(count, 3), "under every column"
    check_legible(figure)


def test_frames_that_cannot_be_drawn_are_refused():
    frame = curves(["rollout"], FOUR)
    with pytest.raises(InputError, match="lacks explained"):
        perturbation_curves(frame.drop(columns="explained"), x=X)
    with pytest.raises(InputError, match=r"several rows for .*Choose one setting of: order, expl"):
        perturbation_curves(frame, x=X, panels=())
    with pytest.raises(InputError, match="x has 9 places"):
        perturbation_curves(frame, x=X[:9])
    with pytest.raises(InputError, match="no row"):
        perturbation_curves(frame[:0])
    with pytest.raises(InputError, match="expected a pandas DataFrame"):
        perturbation_curves({"method": []})
    two = pd.concat([aucs(frame, ["order", "explained"])] * 2)
    two["metric"] = ["auc_cvpr21"] * 4 + ["auc_tmlr23"] * 4
    with pytest.raises(InputError, match="rows of one metric"):
        perturbation_curves(frame, two, x=X)
    with pytest.raises(InputError, match="but 3 stages are named"):
        sanity_curves(curves(["rollout"], [{}], steps=5), ["a", "b", "c"])
