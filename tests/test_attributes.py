"""Attribute scenes and their captions: what is said of a scene is there, and only there."""

import pytest
import torch

from xai_lib.datasets.worlds.attribute_scenes import AttributeScenes
from xai_lib.datasets.worlds.attributes import (
    ATTRIBUTE_CLASSES,
    CAPTION_ZOOM,
    COLOURS,
    PLACES,
    SHAPES,
    SIZES,
    boxes_of,
)
from xai_lib.datasets.worlds.captions import (
    COLOUR_WORDS,
    KINDS,
    PLACE_WORDS,
    SHAPE_WORDS,
    SIZE_WORDS,
    caption_of,
    prompts,
    vocabulary,
)
from xai_lib.datasets.worlds.wording import Draw
from xai_lib.errors import InputError, OptionError

WORDS = {"shape": SHAPE_WORDS, "colour": COLOUR_WORDS, "size": SIZE_WORDS, "place": PLACE_WORDS}


@pytest.fixture(scope="module")
def scenes():
    return AttributeScenes(200, seed=3, objects=range(1, 7))[:]


def test_scene_depends_on_seed_and_index_alone(scenes):
    again = AttributeScenes(9, seed=3, objects=range(1, 7))
    for i in (0, 7, -1):
        assert torch.equal(again[i].image, scenes[range(9)[i]].image)
        assert again.objects(i) == again[i].objects == scenes[range(9)[i]].objects
    other = AttributeScenes(9, seed=4, objects=range(1, 7))[0]
    assert not torch.equal(other.image, scenes[0].image)
    many = AttributeScenes(9, seed=(3, 1), objects=6)
    assert torch.equal(many[[2, 4]][1].masks, many[4].masks)


def test_outside_the_masks_nothing_changes(scenes):
    for scene in scenes:
        covered = scene.masks.any(0)
        assert torch.equal(scene.image[:, ~covered], scene.background[:, ~covered])
        assert (scene.image - scene.background).abs().sum(0)[covered].mean() > 0.1
        assert scene.masks.sum(0).max() <= 1, "a pixel belongs to one object"
        assert torch.equal(scene.without(), scene.background)
        assert 0 <= scene.image.min() and scene.image.max() <= 1


def test_one_object_can_be_taken_away_or_kept(scenes):
    scene = next(s for s in scenes if len(s.objects) == 3)
    lost = scene.without(1)
    assert torch.equal(lost[:, scene.masks[1]], scene.background[:, scene.masks[1]])
    assert torch.equal(lost[:, scene.masks[0]], scene.image[:, scene.masks[0]])
    kept = scene.only(1, backdrop=0.25)
    assert torch.equal(kept[:, scene.masks[1]], scene.image[:, scene.masks[1]])
    assert (kept[:, ~scene.masks[1]] == 0.25).all()


def test_boxes_fit_the_masks_and_lie_at_the_place(scenes):
    for scene in scenes:
        assert len(scene.objects) == len(scene.masks) == len(scene.boxes)
        for mask, box, thing in zip(scene.masks, scene.boxes, scene.objects, strict=True):
            y, x = mask.nonzero().double().add(0.5).mean(0) / 64
            assert PLACES.index(thing.place) == 3 * int(3 * y) + int(3 * x)
            x0, y0, x1, y1 = (64 * box).long().tolist()
            inside = mask[y0:y1, x0:x1]
            assert inside.sum() == mask.sum()
            assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


def test_box_of_a_known_mask():
    masks = torch.zeros(1, 8, 16, dtype=torch.bool)
    masks[0, 2:4, 4:12] = True
    assert boxes_of(masks).tolist() == [[0.25, 0.25, 0.75, 0.5]]


def test_sizes_and_colours_are_what_they_are_called(scenes):
    area, tone = {size: [] for size in SIZES}, {colour: [] for colour in COLOURS}
    for scene in scenes:
        for mask, box, thing in zip(scene.masks, scene.boxes, scene.objects, strict=True):
            if thing.shape == "disc":
                area[thing.size].append((box[2] - box[0]).item())
            tone[thing.colour].append(scene.image[:, mask].mean(1))
    assert max(area["small"]) < min(area["large"])
    means = torch.stack([torch.stack(values).mean(0) for values in tone.values()])
    for number, values in enumerate(tone.values()):
        nearest = torch.cdist(torch.stack(values), means).argmin(1)
        assert (nearest == number).float().mean() > 0.95


def test_objects_of_a_scene_differ_and_share(scenes):
    shared = 0
    for scene in scenes:
        assert len({thing.name for thing in scene.objects}) == len(scene.objects)
        assert len({thing.place for thing in scene.objects}) == len(scene.objects)
        shared += len({thing.shape for thing in scene.objects}) < len(scene.objects)
    assert shared > 60, "there must be something to count"
    assert {len(scene.objects) for scene in scenes} == set(range(1, 7))


def test_attributes_are_even_and_independent():
    scenes = AttributeScenes(2000, seed=1)
    drawn = [scenes.objects(i)[0] for i in range(2000)]
    for kind, words in {"shape": SHAPES, "colour": COLOURS, "size": SIZES, "place": PLACES}.items():
        counts = [sum(getattr(thing, kind) == word for thing in drawn) for word in words]
        wanted = 2000 / len(words)
        assert max(abs(count - wanted) for count in counts) < 4 * wanted**0.5, kind
    assert len({thing.name for thing in drawn}) == len(ATTRIBUTE_CLASSES) == 64


def test_scenes_with_captions_have_larger_objects_that_do_not_overlap():
    plain = AttributeScenes(60, seed=3, objects=(1, 2))[:]
    large = AttributeScenes(60, seed=3, objects=(1, 2), zoom=CAPTION_ZOOM)[:]
    for one, two in zip(plain, large, strict=True):
        if len(one.objects) == 1:
            assert two.objects == one.objects and torch.equal(two.background, one.background)
            ratio = two.masks.sum() / one.masks.sum()
            assert 1.6 < ratio < 2.8
        else:
            spots = [divmod(PLACES.index(thing.place), 3) for thing in two.objects]
            assert max(abs(a - b) for a, b in zip(*spots, strict=True)) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"zoom": 1.5, "objects": 3},
        {"zoom": 3},
        {"objects": 0},
        {"objects": (1, 7)},
        {"objects": ()},
        {"n": 0},
        {"size": 16},
    ],
)
def test_impossible_scenes_are_refused(wrong):
    with pytest.raises(
        (InputError, OptionError), match=r"need n >= 1|is not possible|give a number"
    ):
        AttributeScenes(**{"n": 4} | wrong)


def test_evidence_of_a_caption_is_its_attribute_words(scenes):
    for i, scene in enumerate(scenes):
        slots = range(min(2, len(scene.objects)))
        caption = caption_of(scene.objects, Draw(i), slots)
        assert [mention.slot for mention in caption.mentions] == list(slots)
        for mention in caption.mentions:
            for kind, (start, end) in mention.words.items():
                value = getattr(scene.objects[mention.slot], kind)
                assert caption.text[start:end] in WORDS[kind][value]


def test_captions_say_what_they_are_asked_to():
    objects = AttributeScenes(1, seed=0).objects(0)
    caption = caption_of(objects, Draw(0), kinds=("colour", "shape"))
    assert set(caption.mentions[0].words) == {"colour", "shape"}
    texts = {caption_of(objects, Draw(i), kinds=KINDS).text for i in range(40)}
    assert len(texts) > 30, "wording varies"


def test_words_can_be_masked_and_kept(scenes):
    caption = caption_of(scenes[0].objects, Draw(1), kinds=KINDS)
    masked = caption.without("?", ("colour",))
    colour = caption.mentions[0].words["colour"]
    assert masked.text == caption.text[: colour[0]] + "?" + caption.text[colour[1] :]
    assert set(masked.mentions[0].words) == {"shape", "size", "place"}
    for kind, (start, end) in masked.mentions[0].words.items():
        assert masked.text[start:end] in WORDS[kind][getattr(scenes[0].objects[0], kind)]
    assert caption.without("?").mentions[0].words == {}
    assert caption.without("?").text.count("?") == 4
    spans = [caption.text[start:end] for start, end in caption.evidence]
    assert caption.only() == " ".join(spans) and len(spans) == 4


def test_vocabulary_holds_every_word_of_a_caption(scenes):
    known = set(vocabulary())
    for i, scene in enumerate(scenes):
        words = caption_of(scene.objects, Draw(i)).text.replace(".", " ").split()
        assert set(words) <= known


def test_prompts_have_the_right_article():
    assert prompts(["orange ring", "red star"], "a photo of {}") == [
        "a photo of an orange ring",
        "a photo of a red star",
    ]
