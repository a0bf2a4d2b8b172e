"""Head scores by stream in execution order, what is hatched, and curves of pruning."""

import numpy as np
import pandas as pd
import pytest
from asking_models import KINDS, question_samples, question_world
from figure_checks import check_legible, drawn_texts
from matplotlib.patches import Rectangle
from small_vits import random_pixels, random_vit

import xai_lib as xai
from xai_lib.errors import InputError, OptionError
from xai_lib.plots import head_score_map, pruning_curves
from xai_lib.plots.heads import head_grids

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=KINDS)
def scores(request):
    model, processor = question_world(request.param)
    return xai.head_scores(model, processor.of(question_samples()))


def hatched(figure):
    return [
        patch
        for axes in figure.axes
        for patch in axes.patches
        if isinstance(patch, Rectangle) and patch.get_hatch()
    ]


def test_rows_are_the_sites_in_execution_order(scores):
    grids = head_grids(scores)
    table = scores.table
    for grid in grids:
        rows = table[table["stream"] == grid.stream]
        calls = list(dict.fromkeys(rows["call"]))
        assert [site.call for site in grid.sites] == calls
        assert grid.labels == [
            f"{r.stream} {r.layer} {r.kind}" for r in rows.drop_duplicates("call").itertuples()
        ]
        for place, site in enumerate(grid.sites):
            expected = rows[rows["call"] == site.call]["score"]
            if site.reached:
                assert np.allclose(grid.values[place], expected)
            else:
                assert np.isnan(grid.values[place]).all()
        (one,) = [g for g in head_grids(scores, sample=1) if g.stream == grid.stream]
        reached = [place for place, site in enumerate(grid.sites) if site.reached]
        assert np.allclose(one.values[reached], scores.grid(grid.stream)[1])


def test_colours_are_centred_at_zero_and_numbers_have_their_sign(scores):
    figure = head_score_map(scores, title="heads")
    check_legible(figure)
    images = [axes.collections[0] for axes in figure.axes if axes.get_xlabel() == "head"]
    assert len(images) == len({site.stream for site in scores.sites})
    bound = float(scores.values.mean(0).abs().max())
    assert all(image.get_clim() == pytest.approx((-bound, bound)) for image in images)
    words = [text.get_text() for text in drawn_texts(figure)]
    power = int(np.floor(np.log10(bound)))
    shown = [f"{x / 10**power:+.1f}".replace("-", "−") for x in scores.values.mean(0).tolist()]
    strong = [text for text in shown if text[1:] != "0.0"]
    assert len(strong) > 3 and set(strong) <= set(words)
    assert any("mean over the map (signed)" in word for word in words)
    assert ("not read" in words or "–" in words) == (not all(s.reached for s in scores.sites))


def test_pruned_heads_are_hatched(scores):
    mask = scores.mask(0.5, "negative")
    figure = head_score_map(scores, mask)
    check_legible(figure)
    total = int(scores.candidates.sum())
    assert len(hatched(figure)) == total // 2
    pruned = {
        (call, h) for call, row in mask.keep.items() for h in np.nonzero(row == 0)[:, 0].tolist()
    }
    grids = head_grids(scores, mask)
    found = {
        (site.call, int(h))
        for grid in grids
        for site, kept in zip(grid.sites, grid.kept, strict=True)
        for h in np.nonzero(~kept)[0]
    }
    assert found == pruned


def test_masks_of_each_sample(scores):
    mask = scores.mask(0.5, per_sample=True)
    with pytest.raises(InputError, match="choose one with sample="):
        head_score_map(scores, mask)
    kept = scores.kept(0.5, per_sample=True)
    for sample in (0, 1):
        grids = head_grids(scores, mask, sample)
        rows = {s.call: k for grid in grids for s, k in zip(grid.sites, grid.kept, strict=True)}
        for site, row in zip(scores.sites, kept[sample].split(scores.widths), strict=True):
            if site.reached:
                assert rows[site.call].tolist() == row.tolist()
    with pytest.raises(OptionError, match="sample is 2; expected a number from 0 to 1"):
        head_score_map(scores, sample=2)


def test_layers_and_many_heads():
    model = random_vit(depth=12, num_heads=12, embed_dim=48)
    pixels = random_pixels(model)
    found = xai.head_scores(model, pixels, methods=["taylor", "random"])
    figure = head_score_map(found["taylor"], found["taylor"].mask(0.3))
    check_legible(figure)
    assert len(hatched(figure)) == 43
    layers = xai.head_scores(model, pixels, level="layer")
    figure = head_score_map(layers, layers.mask(0.5))
    check_legible(figure)
    assert len(hatched(figure)) == 6


def curves():
    rows = []
    for model in ("LXMERT", "VisualBERT"):
        for order in ("positive", "negative"):
            for place, method in enumerate(("grad_x_attention", "lrp", "taylor", "random")):
                for step in range(10):
                    value = 0.95 - (0.05 + 0.01 * place) * step
                    rows.append({"model": model, "order": order, "method": method,
                                 "fraction": step / 10, "value": value, "low": value - 0.02,
                                 "high": value + 0.02})  # fmt: skip
    return pd.DataFrame(rows)


def test_pruning_curves_are_the_numbers_of_the_frame():
    frame = curves()
    figure = pruning_curves(frame, panels=("model", "order"))
    check_legible(figure)
    panels = {axes.get_title(): axes for axes in figure.axes if axes.axison}
    assert len(panels) == 4
    for title, axes in panels.items():
        model, order = title.split(", ")
        rows = frame[(frame["model"] == model) & (frame["order"] == order)]
        looks = set()
        for line in axes.lines:
            one = rows[rows["method"] == line.get_label()]
            assert np.array_equal(line.get_xdata(), one["fraction"])
            assert np.array_equal(line.get_ydata(), one["value"])
            looks.add((line.get_color(), line.get_marker()))
        assert len(looks) == 4
    alone = pruning_curves(frame[frame["model"] == "LXMERT"], what="layers")
    assert any(text.get_text() == "layers pruned (%)" for text in drawn_texts(alone))
