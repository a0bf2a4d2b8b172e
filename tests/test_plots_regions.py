"""Regions on an image: where they are drawn, how strongly, and what is refused."""

import numpy as np
import pytest
import torch
from figure_checks import drawn_texts
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from xai_lib.errors import InputError, OptionError
from xai_lib.plots import region_figure, region_map
from xai_lib.plots.text.colours import AGAINST, FOR

BOXES = [[0.0, 0.0, 0.5, 0.5], [0.25, 0.25, 1.0, 1.0], [0.5, 0.0, 1.0, 0.25], [0.0, 0.0, 0.0, 0.0]]
SCORES = [0.2, -0.8, 0.4, 0.0]
PRESENT = [True, True, True, False]


def picture(height=40, width=80):
    return Image.fromarray(np.full((height, width, 3), 120, np.uint8))


def frames(figure):
    return [
        patch
        for axes in figure.axes
        for patch in axes.patches
        if isinstance(patch, Rectangle) and not patch.get_fill()
    ]


def drawn_colour(patch):
    return tuple(round(255 * channel) for channel in patch.get_edgecolor()[:3])


def test_boxes_lie_where_the_detector_saw_them_and_padding_is_left_out():
    figure = region_figure(picture(), BOXES, SCORES, PRESENT)
    found = {
        tuple(round(x, 6) for x in (*p.get_xy(), p.get_width(), p.get_height())): p
        for p in frames(figure)
    }
    assert set(found) == {(0, 0, 40, 20), (20, 10, 60, 30), (40, 0, 40, 10)}
    assert drawn_colour(found[20, 10, 60, 30]) == AGAINST
    assert drawn_colour(found[0, 0, 40, 20]) == drawn_colour(found[40, 0, 40, 10]) == FOR
    widths = [found[key].get_linewidth() for key in [(0, 0, 40, 20), (40, 0, 40, 10)]]
    assert widths[0] < widths[1] < found[20, 10, 60, 30].get_linewidth()


@pytest.mark.parametrize(("top", "ranks"), [(0, set()), (2, {"1", "2"}), (9, {"1", "2", "3"})])
def test_the_strongest_have_their_rank(top, ranks):
    figure = region_figure(picture(), BOXES, SCORES, PRESENT, top=top)
    drawn = {text.get_text() for axes in figure.axes[1:] for text in axes.texts}
    assert drawn == ranks


def test_ranks_of_regions_over_one_another_do_not_overlap():
    boxes = [[0.1, 0.1, 0.9, 0.9]] * 5
    figure = region_figure(picture(), boxes, [5, 4, 3, 2, 1], top=5)
    figure.draw_without_rendering()
    found = [text.get_window_extent() for text in figure.axes[1].texts]
    assert len(found) == 5
    assert not any(a.overlaps(b) for i, a in enumerate(found) for b in found[:i])


def test_a_map_of_regions_is_the_strongest_at_each_pixel():
    heat = region_map(BOXES[:3], SCORES[:3], (4, 4))
    expected = [
        [0.2, 0.2, 0.4, 0.4],
        [0.2, -0.8, -0.8, -0.8],
        [0.0, -0.8, -0.8, -0.8],
        [0.0, -0.8, -0.8, -0.8],
    ]
    torch.testing.assert_close(heat, torch.tensor(expected))


def test_a_masked_image_is_dark_where_no_region_counts():
    figure = region_figure(picture(4, 4), BOXES[:3], SCORES[:3], mode="masked", top=0)
    shown = np.asarray(figure.axes[1].images[0].get_array())[..., 0]
    assert shown[3, 3] == pytest.approx(120 / 255)
    assert shown[3, 0] == pytest.approx(0.12 * 120 / 255)
    assert shown[3, 0] < shown[0, 0] < shown[0, 3] < shown[3, 3]
    assert not frames(figure)


def test_without_an_image_the_canvas_is_blank():
    figure = region_figure(None, BOXES, SCORES, PRESENT, title="$x$ <b>")
    assert len(frames(figure)) == 3
    canvas = np.asarray(figure.axes[1].images[0].get_array())
    assert (canvas == canvas[0, 0]).all()
    assert "$x$ <b>" in {text.get_text() for text in drawn_texts(figure)}


@pytest.mark.parametrize(
    ("error", "says", "changes"),
    [
        (InputError, r"boxes has shape \(4, 3\)", {"boxes": np.zeros((4, 3))}),
        (InputError, r"relevance \(2,\)", {"relevance": [1.0, 2.0]}),
        (InputError, "divide x by its width", {"boxes": np.array(BOXES) * 300}),
        (InputError, "not finite", {"relevance": [1.0, float("nan"), 0, 0]}),
        (InputError, "all are padding", {"present": [False] * 4}),
        (InputError, r"present has shape \(2,\)", {"present": [True] * 2}),
        (InputError, "Cannot read an image", {"image": 3}),
        (OptionError, "Did you mean 'masked'", {"mode": "mask"}),
        (OptionError, "top is -1", {"top": -1}),
    ],
)
def test_what_cannot_be_drawn_is_refused(error, says, changes):
    given = {"image": picture(), "boxes": BOXES, "relevance": SCORES} | changes
    with pytest.raises(error, match=says):
        region_figure(**given)


def test_where_nothing_counts_the_masked_image_is_dark():
    """Of a model without 90 % of its heads, say: a bright image would say that all counts."""
    nothing, everything = (
        region_figure(picture(), [[0.0, 0.0, 1.0, 1.0]], [score], mode="masked")
        for score in (0.0, 0.4)
    )
    dark, bright = (figure.axes[1].images[0].get_array().max() for figure in (nothing, everything))
    assert dark == pytest.approx(0.12 * bright)


def test_a_long_title_ends_within_the_page():
    figure = region_figure(picture(), BOXES, SCORES, PRESENT, title="what colour is the star " * 9)
    figure.draw_without_rendering()
    (text,) = (t for t in figure.findobj(Text) if t.get_text().startswith("what colour"))
    assert text.get_window_extent().x1 <= figure.bbox.x1 and text.get_text().endswith("…")
