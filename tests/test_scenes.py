"""The scenes are what they claim: exact masks, no label in colour, place or distractors."""

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency
from sklearn.linear_model import RidgeClassifier

from xai_lib.datasets.worlds.backdrops import BACKGROUNDS
from xai_lib.datasets.worlds.digits import handwritten_digits, warped_digits
from xai_lib.datasets.worlds.scenes import MAX_OBJECTS, SCENE_CLASSES, Scenes
from xai_lib.datasets.worlds.textures import CLASSES, paint_object
from xai_lib.errors import InputError, OptionError


@pytest.fixture(scope="module")
def mixed():
    return Scenes(400, seed=11, objects=(0, 1, 2, 3))


@pytest.fixture(scope="module")
def batch(mixed):
    return mixed[:]


def test_outside_the_masks_image_and_background_are_equal_to_the_bit(batch):
    changed = (batch.image != batch.background).any(1)
    assert not (changed & ~batch.evidence).any()
    # ... and inside, the object is really there: nearly every masked pixel differs.
    assert changed[batch.evidence].float().mean() > 0.97


def test_replacing_every_object_gives_the_background(batch):
    assert torch.equal(batch.without(), batch.background)


def test_replacing_one_object_leaves_the_other_untouched():
    two = Scenes(60, seed=5, objects=2)[:]
    left = two.without(0)
    other = two.masks[:, 1, None].expand_as(left)
    assert torch.equal(left[other], two.image[other])
    gone = two.masks[:, 0, None].expand_as(left)
    assert torch.equal(left[gone], two.background[gone])


def test_masks_of_one_scene_are_disjoint_and_present(batch):
    assert batch.masks.sum(1).max() == 1
    present = batch.labels >= 0
    assert torch.equal(batch.masks.flatten(2).any(2), present)


def test_mask_is_the_shape_at_the_drawn_place():
    scenes = Scenes(300, seed=2)
    at = scenes.labels[:, 0].eq(SCENE_CLASSES.index("striped disc")).nonzero()[:, 0]
    masks = scenes[at].masks[:, 0]
    ys, xs = torch.meshgrid(torch.arange(96) + 0.5, torch.arange(96) + 0.5, indexing="ij")
    place, radius = scenes.place[at, 0], 0.95 * scenes.radius[at, 0]
    reach = torch.hypot(xs - place[:, :1, None], ys - place[:, 1:, None])
    # A pixel belongs to the disc when its centre is nearer than the radius plus half a pixel.
    assert torch.equal(masks, reach < (radius + 0.5)[:, None, None])


@pytest.mark.parametrize("name", SCENE_CLASSES)
def test_every_class_fits_its_circle_and_shows_two_tones(name):
    n, size = 6, 96
    place, turn = torch.full((n, 2), 48.0), torch.arange(n) / n
    tones = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]).expand(n, 2, 3)
    alpha, colour = paint_object(
        name, size, place, torch.full((n,), 24.0), turn, torch.full((n,), 7.0), tones
    )
    ys, xs = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    reach = torch.hypot(xs - 48, ys - 48)
    assert (alpha[:, reach > 1.17 * 24] == 0).all()
    area = alpha.sum((1, 2)) / (np.pi * 24**2)
    assert (area > 0.3).all() and area.std() < 0.02
    light = (colour.mean(1) > 0.4).float().mul(alpha).sum((1, 2)) / alpha.sum((1, 2))
    assert ((light > 0.15) & (light < 0.85)).all()


def test_same_seed_same_scenes_whatever_the_size_of_the_set_or_batch(batch):
    again = Scenes(150, seed=11, objects=(0, 1, 2, 3))
    single = again[77]
    for name, value in vars(single).items():
        assert torch.equal(value[0], getattr(batch, name)[77]), name
    assert not torch.equal(Scenes(4, seed=12)[0].image, Scenes(4, seed=11)[0].image)


def test_images_survive_eight_bits(batch):
    levels = (batch.image * 255).round().byte()
    assert torch.equal(levels.float() / 255, batch.image)


@pytest.mark.parametrize("k", range(1, MAX_OBJECTS + 1))
def test_number_of_objects_and_distinct_classes(k):
    labels = Scenes(200, seed=k, objects=k).labels
    assert labels.shape == (200, k) and labels.min() >= 0
    assert all(len(set(row)) == k for row in labels.tolist())


def test_two_object_scenes_rarely_overlap():
    scenes = Scenes(500, seed=8, objects=2)
    apart = (scenes.place[:, 0] - scenes.place[:, 1]).norm(dim=1)
    assert (apart > scenes.radius[:, :2].sum(1)).float().mean() > 0.95


def test_classes_are_uniform_and_independent_of_every_drawn_property():
    scenes = Scenes(6000, seed=21)
    label = scenes.labels[:, 0].numpy()
    assert np.bincount(label).min() > 500
    strays = scenes._strays["used"].sum(1)
    drawn = {
        "radius": scenes.radius[:, 0],
        "turn": scenes.turn[:, 0],
        "x": scenes.place[:, 0, 0],
        "y": scenes.place[:, 0, 1],
        "red": scenes.tones[:, 0, 0, 0],
        "green": scenes.tones[:, 0, 0, 1],
        "blue": scenes.tones[:, 0, 1, 2],
        "background": scenes._backdrop["kind"],
        "background tone": scenes._backdrop["tones"][:, 0, 0],
        "distractors": strays,
    }
    for name, value in drawn.items():
        bins = np.digitize(value, np.quantile(value, [0.25, 0.5, 0.75]))
        table = np.histogram2d(label, bins, bins=(10, len(set(bins))))[0]
        # Ten tests with a fixed seed: a real dependence gives p far below this.
        assert chi2_contingency(table).pvalue > 0.001, name


def _features(images, masks):
    """Mean colour and its square under a mask: what colour alone could say."""
    weight = masks[:, None] / masks.sum((1, 2))[:, None, None, None].clamp_min(1)
    return torch.cat([(images * weight).sum((2, 3)), (images**2 * weight).sum((2, 3))], 1)


def test_mean_colour_of_the_object_does_not_tell_its_class():
    one = Scenes(1500, seed=31)[:]
    features = _features(one.image, one.masks[:, 0]).numpy()[:, :3]
    label = one.labels[:, 0].numpy()
    model = RidgeClassifier().fit(features[:1000], label[:1000])
    assert model.score(features[1000:], label[1000:]) < 0.16


def test_distractors_and_backgrounds_do_not_tell_the_class():
    one = Scenes(1500, seed=32)[:]
    assert one.distractors.flatten(1).any(1).float().mean() > 0.6
    assert not (one.distractors & one.evidence).any()
    colour = _features(one.background, torch.ones_like(one.distractors))
    stray = torch.cat([one.distractors.float().mean((1, 2))[:, None], colour], 1).numpy()
    coarse = torch.nn.functional.avg_pool2d(one.background, 24).flatten(1).numpy()
    features, label = np.concatenate([stray, coarse], 1), one.labels[:, 0].numpy()
    model = RidgeClassifier().fit(features[:1000], label[:1000])
    assert model.score(features[1000:], label[1000:]) < 0.15


def test_every_background_and_class_occurs():
    scenes = Scenes(300, seed=3)
    assert set(scenes.labels[:, 0].tolist()) == set(range(len(CLASSES)))
    assert set(scenes._backdrop["kind"].tolist()) == set(range(len(BACKGROUNDS)))


def test_size_and_zoom():
    small, large = (Scenes(50, seed=4, size=64, zoom=zoom)[:] for zoom in (1.0, 1.4))
    assert small.image.shape == (50, 3, 64, 64)
    assert large.masks.sum() > 1.6 * small.masks.sum()


def test_bad_requests_are_refused():
    with pytest.raises(OptionError, match="objects=4"):
        Scenes(3, objects=4)
    with pytest.raises(OptionError, match="objects"):
        Scenes(3, objects=(0,))
    with pytest.raises(InputError, match="n=0"):
        Scenes(0)
    with pytest.raises(IndexError):
        Scenes(3)[3]
    with pytest.raises(OptionError, match="train"):
        handwritten_digits("validation")


def test_digits_split_and_strokes():
    train, test = handwritten_digits("train"), handwritten_digits("test")
    assert (len(train), len(test)) == (1437, 360)
    assert torch.equal(test.image[:, 0] > 0, test.strokes)
    assert test.without().abs().max() == 0
    assert 0.15 < test.strokes.float().mean() < 0.4
    assert np.bincount(test.labels).min() > 20
    known = {image.numpy().tobytes() for image in train.image}
    assert sum(image.numpy().tobytes() in known for image in test.image) == 0


def test_warped_digits_are_seeded_and_only_from_the_training_part():
    first, again, other = warped_digits(64, 1), warped_digits(64, 1), warped_digits(64, 2)
    assert torch.equal(first.image, again.image) and not torch.equal(first.image, other.image)
    assert first.image.min() >= 0 and first.image.max() <= 1
