"""Which pixels a patch is computed from: measured, also where the model resizes, crops or pads."""

import pytest
import torch
from small_clips import SIDE, pair_processor, random_clip
from small_vits import random_vit
from torch import nn
from torch.nn import functional as F

import xai_lib as xai
from xai_lib.errors import MethodNotApplicableError
from xai_lib.streams.cells import Cells, spans_of

pytestmark = pytest.mark.usefixtures("one_thread")


class Before(nn.Module):
    """A ViT behind something that it does to its image first."""

    def __init__(self, change, **config):
        super().__init__()
        self.change, self.vit = change, random_vit(dtype=torch.float32, **config)

    def forward(self, x):
        return self.vit(self.change(x))


def plain(model, x, target):
    """Return pixel · gradient, summed over channels, by autograd on the model alone."""
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x)[:, target].sum(), x)
    return (gradient * x.detach()).sum(1)


def image(height, width):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def twice(start, step, count):
    spans = tuple((start + i * step, start + (i + 1) * step) for i in range(count))
    return spans, spans


def resized(mode, **options):
    return lambda x: F.interpolate(x, size=(16, 16), mode=mode, **options)


TILES = twice(0, 8, 2)
# What is done to an image of so many pixels; the pixels of the rows and columns of patches.
CHANGES = {
    "normalised": (lambda x: (x - 0.5) / 0.2, (16, 16), TILES),
    "halved": (resized("bilinear"), (32, 32), twice(0, 16, 2)),
    "every other pixel": (resized("nearest"), (32, 32), twice(0, 16, 2)),
    "shrunk smoothly": (resized("bicubic", antialias=True), (50, 50), twice(0, 25, 2)),
    "enlarged": (resized("bilinear"), (8, 8), twice(0, 4, 2)),
    "its middle": (lambda x: x[..., 8:24, 8:24], (32, 32), twice(8, 8, 2)),
    "padded": (lambda x: F.pad(x, (0, 5, 0, 2)), (14, 11), (((0, 8), (8, 14)), ((0, 8), (8, 11)))),
    "mirrored": (lambda x: x.flip(-1), (16, 16), (TILES[0], TILES[1][::-1])),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_tokens_add_up_to_their_own_pixels(name):
    change, size, (rows, columns) = CHANGES[name]
    model, x = Before(change), image(*size)
    att = xai.explain(model, x, "gradient_x_input", target=1)
    assert (att.layout.cells.rows, att.layout.cells.columns) == (rows, columns)
    expected = plain(model, x, 1)
    torch.testing.assert_close(att.pixels, expected, atol=1e-5, rtol=1e-4)
    for r, (top, bottom) in enumerate(rows):
        for c, (left, right) in enumerate(columns):
            own = expected[:, top:bottom, left:right].sum((1, 2))
            torch.testing.assert_close(att.patches[:, r, c], own, atol=1e-5, rtol=1e-4)
    whole = expected.sum((1, 2))
    torch.testing.assert_close(att.relevance.sum(1), whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", CHANGES)
def test_a_heat_map_lies_over_the_pixels_that_count(name):
    """The planted patch is the only one that the head reads, by its token map."""
    change, size, (rows, columns) = CHANGES[name]
    model, x = Before(change), image(*size)
    att = xai.explain(model, x, "gradient_x_input", target=1)
    att.relevance.zero_()
    att.relevance[:, att.layout.patches.start + 1] = 1.0  # the first row's second patch
    heat = att.heatmap()
    covered = att.layout.cells.covered
    assert heat.shape == (2, *size) and (heat[:, ~covered] == 0).all()
    (top, bottom), (left, right) = rows[0], columns[1]
    inside = heat[:, top:bottom, left:right]
    assert (inside.amax((1, 2)) == heat.amax((1, 2))).all() and inside.sum() > 0.4 * heat.sum()
    large = att.heatmap((2 * size[0], 2 * size[1]))
    torch.testing.assert_close(F.avg_pool2d(large[:, None], 2)[:, 0], heat, atol=0.3, rtol=0)


def test_an_image_that_is_no_multiple_of_the_patch():
    """Five of 14 pixels fit into 83: the last 13 belong to no patch, and cells keep their size."""
    model = random_vit(dtype=torch.float32, img_size=(70, 83), patch_size=14)
    x = image(70, 83)
    att = xai.explain(model, x, "gradient_x_input", target=0)
    assert att.grid == (5, 5) and att.layout.cells.columns[-1] == (56, 70)
    heat = att.heatmap()
    assert (heat[..., 70:] == 0).all() and (heat[..., :70].abs().amax((1, 2)) > 0).all()
    att.relevance.fill_(2.0)
    assert (att.heatmap()[..., :70] == 2).all() and (att.heatmap()[..., 70:] == 0).all()
    figure = att.show()
    drawn = figure.axes[1].images[0].get_array()
    assert drawn.shape[:2] == (70, 83)


def test_an_evaluation_measures_the_map_where_it_lies():
    from xai_lib.evaluators.maps import _over_image

    model = random_vit(dtype=torch.float32, img_size=(70, 83), patch_size=14)
    att = xai.explain(model, image(70, 83), "rollout")
    torch.testing.assert_close(_over_image(att, (70, 83)), att.heatmap().double())


def test_convolutions_that_stand_on_each_other():
    """Their cells overlap: the image is divided evenly, and nothing is lost."""

    class Stacked(nn.Module):
        def __init__(self):
            super().__init__()
            self.vit = random_vit(dtype=torch.float32)
            torch.manual_seed(1)
            self.first = nn.Conv2d(3, 3, 3, stride=2, padding=1)

        def forward(self, x):
            return self.vit(self.first(x).relu())

    model, x = Stacked().eval(), image(32, 32)
    att = xai.explain(model, x, "gradient_x_input", target=1)
    assert (att.layout.cells.rows, att.layout.cells.columns) == twice(0, 16, 2)
    torch.testing.assert_close(att.relevance.sum(1), att.pixels.sum((1, 2)))


@pytest.mark.parametrize("turn", [lambda x: x.rot90(1, (-2, -1)), lambda x: x.roll(3, -1)])
def test_a_turned_image_has_no_map_of_patches(turn):
    """Rows of patches are no rows of the image: no heat map rather than a turned one."""
    att = xai.explain(Before(turn), image(16, 16), "rollout", check=False)
    assert att.relevance.shape == (2, 5)
    with pytest.raises(MethodNotApplicableError):
        att.heatmap()
    # What reaches the pixels is given for each of these.
    at_pixels = xai.explain(Before(turn), image(16, 16), "gradient_x_input", target=1, check=False)
    expected = plain(Before(turn), image(16, 16), 1)
    torch.testing.assert_close(at_pixels.heatmap(), expected, atol=1e-5, rtol=1e-4)


def test_what_is_measured_leaves_the_model_and_the_random_numbers_as_they_were():
    model = Before(CHANGES["halved"][0])
    state = {name: value.clone() for name, value in model.state_dict().items()}
    draws = torch.get_rng_state()
    xai.explain(model, image(32, 32), "rollout")
    assert torch.equal(draws, torch.get_rng_state())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


class Pooled(nn.Module):
    """Patches behind `lead`, which makes tokens of them; the head reads the first token."""

    def __init__(self, lead):
        super().__init__()
        torch.manual_seed(0)
        self.lead = lead
        self.conv = nn.Conv2d(3, 16, 4, stride=4)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
        self.register = nn.Parameter(torch.randn(1, 1, 16))
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        patches = self.conv(x).flatten(2).transpose(1, 2)
        register = self.register.expand(len(x), -1, -1)
        tokens = self.layer(self.lead(patches, register))
        return self.head(tokens[:, 0])


LEADS = {
    "mean first": (lambda p, r: torch.cat([p.mean(1, keepdim=True), p], 1), 1),
    "mean last": (lambda p, r: torch.cat([p, p.mean(1, keepdim=True)], 1), 0),
    "class and mean first": (lambda p, r: torch.cat([r, p.mean(1, keepdim=True), p], 1), 2),
    "registers around": (lambda p, r: torch.cat([r, p, r, r], 1), 1),
    "written into place": (lambda p, r: _written(p, r), 1),
}


def _written(patches, register):
    tokens = torch.zeros(len(patches), patches.shape[1] + 1, patches.shape[2])
    tokens[:, 1:] = patches
    tokens[:, :1] = register
    return tokens


@pytest.mark.parametrize("name", LEADS)
def test_which_tokens_are_the_patches(name):
    lead, prefix = LEADS[name]
    att = xai.explain(Pooled(lead).eval(), image(16, 16), "generic_attention", target=0)
    assert att.layout.prefix == prefix and att.grid == (4, 4)


@pytest.mark.parametrize("order", ["columns first", "backwards"])
def test_patches_in_another_order_have_no_map(order):
    """Column by column, or from the last: token i is not the i-th patch of the image."""

    def lead(patches, register):
        if order == "backwards":
            patches = patches.flip(1)
        else:
            patches = patches.unflatten(1, (4, 4)).transpose(1, 2).flatten(1, 2)
        return torch.cat([register, patches], 1)

    att = xai.explain(Pooled(lead).eval(), image(16, 16), "rollout", check=False)
    with pytest.raises(MethodNotApplicableError):
        att.heatmap()


def test_a_detector_or_pair_of_streams_is_measured_too():
    model = random_clip()
    inputs = pair_processor()([torch.rand(3, SIDE, SIDE)] * 2, ["a red star", "ring", "heart"])
    att = xai.explain(model, inputs, "gradient_x_input", target=1)
    pixels, patches = att.part("image").pixels, att.streams["image"]
    torch.testing.assert_close(pixels.sum((1, 2)), patches.sum(1), atol=1e-5, rtol=1e-4)


def test_spans_that_overlap_meet_in_the_middle_and_gaps_stay():
    assert spans_of([(0, 4), (6, 10)], 12) == ((0, 4), (6, 10))
    assert spans_of([(6, 10), (0, 4)], 12) == ((6, 10), (0, 4))
    assert spans_of([(0, 7), (5, 12)], 12) == ((0, 6), (6, 12))
    assert spans_of([(0, 8), (6, 13)], 13) == ((0, 7), (7, 13))
    assert spans_of([(0, 13), (0, 13)], 13) is None
    assert spans_of([(0, 4), None], 12) is None
    gaps = Cells(((0, 2), (4, 6)), ((0, 6),), (6, 6))
    assert gaps.covered.sum() == 24
    assert gaps.enlarged(torch.ones(1, 2, 1), (6, 6)).sum() == 24
    assert gaps.sums(torch.ones(6, 6)).tolist() == [[12.0], [12.0]]
