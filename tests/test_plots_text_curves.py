"""Curves of texts draw the numbers they are given, beside the published ones; words and ranks."""

import numpy as np
import pandas as pd
import pytest
from figure_checks import check_legible, drawn_texts

import xai_lib as xai
from xai_lib.errors import InputError
from xai_lib.plots import (
    initialisation_scatter,
    looks,
    rank_table_figure,
    rationale_curves,
    text_perturbation_curves,
    word_deletion_curves,
    word_means_grid,
)

METHODS = [
    "gradient_sensitivity",
    "gradient_x_input:reduce=l2sq",
    "lrp_alpha_beta",
    "lat",
    "random",
]


def curves(methods=METHODS, settings=({},), steps=10, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for setting in settings:
        for method in methods:
            values = 0.9 * np.cumprod(rng.uniform(0.7, 1, steps))
            rows += [
                {"method": method, **setting, "step": k, "value": v} for k, v in enumerate(values)
            ]
    frame = pd.DataFrame(rows)
    return frame.assign(low=frame["value"] - 0.02, high=frame["value"] + 0.03)


def lines_of(axes):
    return {line.get_label(): line for line in axes.lines}


def words(names, seed=0, count=200):
    rng = np.random.default_rng(seed)
    shared = rng.beta(1, 3, count)
    columns = {
        n: np.clip(shared + rng.normal(0, 0.1 * i, count), 0, 1) for i, n in enumerate(names)
    }
    return pd.DataFrame(columns, index=[f"word{i}" for i in range(count)])


@pytest.mark.parametrize("draw", [word_deletion_curves, rationale_curves, text_perturbation_curves])
@pytest.mark.parametrize("panels", [(), ("data",)])
def test_curves_and_published_ones(draw, panels):
    settings = [{"data": name} for name in ("SST-5", "IMDb", "Yelp", "SemEval")] if panels else [{}]
    x = [k / 10 for k in range(10)] if draw is text_perturbation_curves else range(5, 55, 5)
    ours = curves(settings=settings)
    theirs = curves([*METHODS[:2], "rollout"], settings, seed=1).drop(columns=["low", "high"])
    figure = draw(ours, x=x, panels=panels, published=theirs)
    check_legible(figure)
    spots = [axes for axes in figure.axes if axes.lines and axes.axison]
    assert len(spots) == len(settings)
    for axes, setting in zip(spots, settings, strict=True):
        drawn = lines_of(axes)
        assert set(drawn) == {*METHODS, *(f"{name}, published" for name in METHODS[:2])}
        for name, line in drawn.items():
            method, _, published = name.partition(", ")
            frame = theirs if published else ours
            rows = frame[frame["method"] == method]
            for key, value in setting.items():
                rows = rows[rows[key] == value]
            assert np.array_equal(line.get_ydata(), rows["value"])
            assert np.array_equal(line.get_xdata(), list(x))
            assert line.get_color() == looks(METHODS)[method].colour
            # Its method's marker, so that two of a family are told apart; the line says whose.
            assert line.get_marker() == looks(METHODS)[method].marker
            assert bool(published) == (line.get_linewidth() < 1)
    assert "published" in {text.get_text() for text in drawn_texts(figure)}


def test_words_deleted_are_counted_from_one_in_whole_numbers():
    figure = word_deletion_curves(curves())
    (axes,) = (axes for axes in figure.axes if axes.lines and axes.axison)
    assert list(axes.lines[0].get_xdata()) == list(range(1, 11))
    texts = {text.get_text() for text in drawn_texts(figure)}
    assert {"tokens deleted (k)", "accuracy (%)", "2", "10"} <= texts and "published" not in texts


def test_all_methods_stay_legible():
    frame = curves(list(xai.methods()["name"]))
    check_legible(word_deletion_curves(frame, published=frame))


def test_published_curves_that_do_not_fit():
    with pytest.raises(InputError, match="published curves lacks value"):
        word_deletion_curves(curves(), curves().drop(columns="value"))
    with pytest.raises(InputError, match="several rows"):
        word_deletion_curves(curves(), pd.concat([curves(), curves()]))
    with pytest.raises(InputError, match="lacks method"):
        word_deletion_curves(pd.DataFrame({"step": [0]}))


@pytest.mark.parametrize("names", [("SST-5", "IMDb"), ("SST-5", "SemEval", "IMDb", "Yelp-5")])
def test_grid_of_word_means(names):
    table = words(names)
    figure = word_means_grid(table)
    check_legible(figure)
    clouds = [axes for axes in figure.axes if axes.collections]
    assert len(clouds) == len(names) * (len(names) - 1) // 2
    first = clouds[0].collections[0].get_offsets()
    assert np.allclose(first, table[[names[0], names[1]]].to_numpy())
    r = np.corrcoef(table[names[0]], table[names[1]])[0, 1]
    assert f"r = {r:.2f}, n = 200" in {text.get_text() for text in drawn_texts(figure)}


def test_grid_takes_the_intervals_of_a_table():
    table = words(("a", "b"))
    given = pd.DataFrame(
        [("a", "b", 0.5, 0.25, 0.75)], columns=["run_a", "run_b", "r", "low", "high"]
    )
    texts = {text.get_text() for text in drawn_texts(word_means_grid(table, given))}
    assert "r = 0.50\n[0.25, 0.75]\nn = 200" in texts
    with pytest.raises(InputError, match="lack the pair"):
        word_means_grid(words(("a", "b", "c")), given)
    with pytest.raises(InputError, match="3 words or more"):
        word_means_grid(table[:2])


def test_trained_against_random_weights():
    tables = {method: words(("trained", "random"), i) for i, method in enumerate(METHODS)}
    figure = initialisation_scatter(tables)
    check_legible(figure)
    for axes, (method, table) in zip(figure.axes, tables.items(), strict=False):
        assert np.allclose(axes.collections[0].get_offsets(), table.to_numpy())
        r = np.corrcoef(table.to_numpy().T)[0, 1]
        assert axes.get_title().endswith(f"r = {r:.2f}, n = 200"), method
    constant = words(("trained", "random")).assign(random=1.0)
    assert initialisation_scatter({"lat": constant}).axes[0].get_title().endswith("r = –, n = 200")
    with pytest.raises(InputError, match="expected 2 columns"):
        initialisation_scatter({"lat": words(("a", "b", "c"))})


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 5, 12])
def test_rank_table(count):
    names = list(xai.methods()["name"])[:count]
    table = pd.DataFrame({name: [f"w{i}{j}" for j in range(9)] + ["$x$ " * 20] for i, name in
                          enumerate(names)}).assign(rank=range(1, 11))  # fmt: skip
    table.loc[8, names[0]] = None
    figure = rank_table_figure(table, "SST-5 & <more>")
    check_legible(figure)
    shown = {text.get_text() for text in drawn_texts(figure)}
    assert {"w00", f"w{count - 1}8", "10", "SST-5 & <more>"} <= shown and "w08" not in shown
    with pytest.raises(InputError, match="lacks rank"):
        rank_table_figure(table.drop(columns="rank"))
    with pytest.raises(InputError, match="no column of a method"):
        rank_table_figure(table[["rank"]])
