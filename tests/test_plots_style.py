"""One look a method: apart for every eye and in grey, in print sizes, and without side effects."""

import io
from itertools import combinations

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from figure_checks import overlap
from matplotlib.colors import to_rgb

import xai_lib as xai
from xai_lib.explainers import registry
from xai_lib.explainers.signs import ATTENTION
from xai_lib.plots import figure_style, look, looks
from xai_lib.plots.style import COLOURS, OTHER_GREYS, RC, SCORE_COLOUR, method_looks, styled

# Machado, Oliveira & Fernandes 2009, table 1 at severity 1.0, on linear RGB.
DICHROMATS = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}
RGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
     [0.0193339, 0.1191920, 0.9503041]]
)  # fmt: skip


def lab(colour, eye=None):
    """Return CIE L*a*b* (D65) of an sRGB colour as an eye with one kind of cone missing sees it."""
    c = np.array(to_rgb(colour))
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    if eye is not None:
        linear = np.clip(np.array(DICHROMATS[eye]) @ linear, 0, 1)
    t = RGB_TO_XYZ @ linear / RGB_TO_XYZ.sum(1)
    f = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def distance(a, b, eye):
    return np.linalg.norm(lab(a, eye) - lab(b, eye))


def test_the_simulated_eyes_confuse_what_those_eyes_confuse():
    for eye, matrix in DICHROMATS.items():
        assert np.allclose(np.sum(matrix, 1), 1, atol=2e-6), "white stays white"
        green = {"protanopia": "#6b6b00", "deuteranopia": "#9c7d00"}[eye]
        seen = lab(green, eye)
        assert np.isfinite(seen).all()
    assert distance("#d00000", "#00a000", None) > 100
    assert distance("#d00000", "#a08000", "deuteranopia") < 40
    assert np.allclose(lab("white"), [100, 0, 0], atol=0.01)


def contrast(colour):
    """Return the contrast of a colour to white paper, 1 to 21 (WCAG 2)."""
    return 21 / (20 * ((lab(colour)[0] + 16) / 116) ** 3 + 1)


def register(families, count):
    for i in range(count):
        family = families[i % len(families)]
        new = registry.explainer(f"new_{i}", family=family, cite="bach2015", sign=ATTENTION)
        new(lambda call: None)


@pytest.fixture
def registered(monkeypatch):
    """Return the looks of the registered methods; what a test registers is forgotten after it."""
    monkeypatch.setattr(registry, "_METHODS", dict(registry.all_methods()))
    return method_looks()


@pytest.fixture(params=[0, 40], ids=["as registered", "with forty methods more"])
def drawn(request, registered):
    """Return the looks of all methods, the registry being as it is or much larger."""
    register([*dict.fromkeys(xai.methods()["family"]), "a new one"], request.param)
    found = {name: look(name) for name in registry.all_methods()}
    assert len(found) == len(registered) + request.param
    return found


def test_no_two_methods_look_alike(drawn):
    assert len({(one.colour, one.marker, one.line) for one in drawn.values()}) == len(drawn)
    assert all(one.filled for one in drawn.values())


def test_a_grey_print_tells_methods_apart_by_marker_and_line(drawn):
    first_ten = []
    for colour in COLOURS:
        first_ten += [one for one in drawn.values() if one.colour == colour][:10]
    assert len({(one.marker, one.line) for one in first_ten}) == len(first_ten) >= 19


def test_a_family_has_one_colour_of_its_own(drawn):
    families = {name: method.family for name, method in registry.all_methods().items()}
    for (a, x), (b, y) in combinations(drawn.items(), 2):
        assert (x.colour == y.colour) == (families[a] == families[b])


def test_methods_of_more_families_than_colours_still_differ(registered):
    register([f"family {i}" for i in range(20)], 40)
    drawn = [look(name) for name in registry.all_methods()]
    assert len({(one.colour, one.marker, one.line) for one in drawn}) == len(drawn)


def test_new_methods_leave_the_others_their_looks(registered):
    register(["attention", "control", "a new one"], 40)
    assert {name: look(name) for name in registered} == registered
    assert look("new_2").colour not in {one.colour for one in registered.values()}


@pytest.mark.parametrize("eye", [None, *DICHROMATS])
def test_colours_stay_apart_for_every_eye(eye):
    colours = [*COLOURS, SCORE_COLOUR, *OTHER_GREYS]
    for x, y in combinations(colours, 2):
        if not {x, y} <= set(OTHER_GREYS):
            assert distance(x, y, eye) > 21, (x, y)
    assert all(contrast(colour) >= 3 for colour in colours)


def test_colours_differ_in_lightness():
    light = sorted(lab(colour)[0] for colour in (*COLOURS, SCORE_COLOUR))
    assert min(np.diff(light)) > 4


def test_a_method_with_options_keeps_its_colour():
    plain, variant = look("rollout"), look("rollout:start_layer=1")
    assert (variant.colour, variant.marker) == (plain.colour, plain.marker)
    assert plain.filled and not variant.filled and variant.line != plain.line
    assert look("rollout:start_layer=1") == variant
    assert look("theirs").colour in OTHER_GREYS


def test_looks_do_not_repeat_within_a_figure():
    methods = method_looks()
    labels = [*methods, *(f"rollout:start_layer={i}" for i in range(20)), *"abcdefghij"]
    found = looks(labels)
    assert list(found) == labels and len(set(found.values())) == len(labels)
    assert all(found[name] == methods[name] for name in methods)
    assert {found[f"rollout:start_layer={i}"].colour for i in range(20)} == {look("rollout").colour}
    alone = looks(["rollout:start_layer=3"])["rollout:start_layer=3"]
    assert alone == look("rollout:start_layer=3")


def test_style_leaves_the_callers_settings_alone():
    with matplotlib.rc_context({"font.size": 21, "axes.grid": True, "lines.linewidth": 9}):
        before = dict(matplotlib.rcParams)
        with pytest.raises(RuntimeError), figure_style():
            assert matplotlib.rcParams["font.size"] == RC["font.size"]
            assert not matplotlib.rcParams["axes.grid"], "a user's own grid does not show through"
            raise RuntimeError
        assert dict(matplotlib.rcParams) == before


@styled
def simple():
    figure, axes = plt.subplots(figsize=(3.3, 2))
    axes.plot([0, 1000], [0, 1])
    axes.set_xlabel("x (s)")
    return figure


def test_a_figure_does_not_depend_on_the_callers_settings():
    def pixels():
        file = io.BytesIO()
        simple().savefig(file, format="rgba", dpi=100)
        return file.getvalue()

    plain = pixels()
    loud = {"font.size": 21, "xtick.labelsize": 30, "axes.grid": True, "axes.linewidth": 4}
    with matplotlib.rc_context(loud | {"xtick.major.size": 20, "lines.linewidth": 9}):
        assert pixels() == plain


def test_figures_are_closed_even_when_drawing_fails():
    mine = plt.figure()
    open_before = plt.get_fignums()

    @styled
    def broken():
        plt.figure()
        raise ValueError("deliberate")

    simple()
    with pytest.raises(ValueError, match="deliberate"):
        broken()
    assert plt.get_fignums() == open_before
    plt.close(mine)


def test_fonts_and_lines_are_for_print():
    sizes = [value for key, value in RC.items() if key.endswith(("labelsize", "fontsize"))]
    assert min(*sizes, RC["font.size"], RC["axes.titlesize"]) * 3.3 / 3.5 >= 7
    assert RC["axes.linewidth"] <= 0.6 and not RC["axes.spines.top"]


def test_the_check_of_overlaps_sees_them():
    square = np.array([[0, 0], [10, 0], [10, 10], [0, 10]], float)
    assert overlap(square, square + 5) and not overlap(square, square + 12)
    slanted = (square - 5) @ np.array([[1, 1], [-1, 1]]) / np.sqrt(2)
    assert overlap(slanted, slanted + np.array([6, 0])) and not overlap(
        slanted, slanted + np.array([9.5, 9.5])
    )
