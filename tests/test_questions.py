"""Generated questions: answers follow from question and scene together, from neither alone."""

import copy
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from xai_lib.datasets.samples.questions import sample_questions
from xai_lib.datasets.worlds import question_scenes
from xai_lib.datasets.worlds.attributes import COLOURS, PLACES, SHAPES, SIZES
from xai_lib.datasets.worlds.question_scenes import QuestionScenes, background_features, features_of
from xai_lib.datasets.worlds.question_wording import ANSWERS, KINDS, PLURALS
from xai_lib.datasets.worlds.questions import EVALUATION_SEED, GeneratedQuestions
from xai_lib.errors import InputError, OptionError

sys.path.insert(0, str(Path(__file__).parents[1] / "data_scripts"))

from proofs.questions import blind_accuracy, on_background, only_regions, without_words

N = 400
SINGULAR = {plural: shape for shape, plural in PLURALS.items()}
STEPS = {"left": (-1, 0), "right": (1, 0), "above": (0, -1), "below": (0, 1)}


@pytest.fixture(scope="module")
def data():
    return GeneratedQuestions(N, 5, images=False)


@pytest.fixture(scope="module")
def samples(data):
    return [data[i] for i in range(N)]


def cell(each):
    at = PLACES.index(each.place)
    return np.array((at % 3, at // 3))


def named(objects, name):
    (found,) = [each for each in objects if each.name == name]
    return found


def solve(question, objects):
    """Answer a question from its words and the objects, by other code than it was made with."""
    words = question.removesuffix(" ?").split()
    if match := re.fullmatch(r"where is the (.+)", " ".join(words)):
        return named(objects, match[1]).place
    if match := re.fullmatch(r"what (\w+) is the (.+?)( object)?", " ".join(words)):
        told = set(match[2].split())
        (found,) = [o for o in objects if told <= {o.shape, o.colour, o.size}]
        return getattr(found, match[1])
    if words[:2] == ["how", "many"]:
        word = SINGULAR.get(words[2], words[2])
        return str(sum(word in (o.shape, o.colour) for o in objects))
    if words[:2] == ["is", "there"]:
        return "yes" if " ".join(words[3:]) in {o.name for o in objects} else "no"
    if match := re.fullmatch(r"what is just (\w+)( of)? the (.+)", " ".join(words)):
        there = cell(named(objects, match[3])) + STEPS[match[1]]
        (found,) = [o for o in objects if (cell(o) == there).all()]
        return found.shape
    match = re.fullmatch(r"is the (\w+ \w+) (\w+)( of)? the (\w+ \w+)", " ".join(words))
    way = cell(named(objects, match[1])) - cell(named(objects, match[4]))
    return "yes" if way @ STEPS[match[2]] > 0 else "no"


def test_answers_follow_from_the_scene(data, samples):
    for i, sample in enumerate(samples):
        answer = solve(sample.question, data.scenes.objects(i))
        assert sample.answers == {answer: 1.0} and ANSWERS[sample.label] == answer
        assert answer in sample.domain


def test_only_what_decides_is_needed(data, samples):
    """Any object that does not decide may be taken away, and each that does changes something."""
    for i, sample in enumerate(samples):
        objects, (deciding, answer) = data.scenes.objects(i), truth(data, i)
        assert solve(sample.question, [objects[k] for k in deciding]) == answer
        for k in deciding:
            rest = [each for j, each in enumerate(objects) if j != k]
            try:
                assert solve(sample.question, rest) != answer
            except ValueError:
                continue  # what the question speaks of is gone


def truth(data, i):
    question = data.question(i)
    return question.deciding, question.answer


def test_all_kinds_and_answers_occur(samples):
    kinds = Counter(sample.kind for sample in samples)
    assert set(kinds) == set(KINDS) and min(kinds.values()) > N / len(KINDS) * 0.75
    many = GeneratedQuestions(2000, 5, images=False)
    assert {many.question(i).answer for i in range(2000)} == set(ANSWERS)
    assert len(set(ANSWERS)) == 33


def test_regions_and_rationale_mark_what_the_question_speaks_of(data, samples):
    fixed = "what is the where how many are there a an object objects just of ?"
    function = set(fixed.split())
    for i, sample in enumerate(samples):
        deciding, _ = truth(data, i)
        assert sample.regions.sum() == len(deciding)
        assert torch.equal(sample.roles > 0, sample.regions)
        asks_neighbour = sample.question.startswith("what is just")
        assert (sample.roles == 3).sum() == asks_neighbour
        compares = sample.kind == "relation" and not asks_neighbour
        assert (sample.roles == 2).sum() == compares
        told = [sample.question[a:b] for a, b in sample.rationale]
        outside = without_words(sample, "").question.split()
        assert set(outside) <= function and told and "" not in told
        assert not set(" ".join(told).split()) & (function - {"where"})


def test_regions_are_objects_and_background(data, samples):
    for i, sample in enumerate(samples[:100]):
        objects, owners, features, boxes = data.scenes.detect(i)
        assert torch.equal(features, sample.features) and torch.equal(boxes, sample.boxes)
        assert 11 <= len(boxes) <= 13 and features.shape == (len(boxes), 64)
        assert boxes.min() >= 0 and boxes.max() <= 1 and (boxes[:, 2:] > boxes[:, :2]).all()
        assert sorted(owners[owners >= 0]) == list(range(6))
        expected = features_of(objects)[owners[owners >= 0]]
        error = features[torch.from_numpy(owners >= 0)] - torch.from_numpy(expected)
        assert abs(error.std() - question_scenes.NOISE) < 0.05
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        for owner, (x, y) in zip(owners, centres.tolist(), strict=True):
            at = PLACES[int(y * 3) * 3 + int(x * 3)]
            places = [each.place for each in objects]
            assert at == places[owner] if owner >= 0 else at not in places


def test_boxes_lie_around_the_painted_objects():
    scenes = QuestionScenes(20, 3)
    for i in range(20):
        _, owners, _, boxes = scenes.detect(i)
        painted = scenes[i].boxes
        for owner, box in zip(owners, boxes, strict=True):
            if owner >= 0:
                low, high = torch.maximum(box, painted[owner]), torch.minimum(box, painted[owner])
                shared = (high[2:] - low[:2]).clamp_min(0).prod()
                sizes = [(b[2:] - b[:2]).prod() for b in (box, painted[owner])]
                assert shared / (sum(sizes) - shared) > 0.45


def test_features_tell_objects_apart_and_from_the_background():
    """The nearest of the 129 noiseless vectors is the object's own, nearly always."""
    scenes = QuestionScenes(200, 4)
    kinds = [
        type(scenes.objects(0)[0])(s, c, z, "top") for s in SHAPES for c in COLOURS for z in SIZES
    ]
    vectors = np.concatenate((features_of(tuple(kinds)), question_scenes.background_vector()[None]))
    names = [(each.name, each.size) for each in kinds] + [None]
    right = []
    for i in range(200):
        objects, owners, features, _ = scenes.detect(i)
        true = [(objects[k].name, objects[k].size) if k >= 0 else None for k in owners]
        nearest = torch.cdist(features.double(), torch.from_numpy(vectors)).argmin(1)
        right += [names[at] == name for at, name in zip(nearest.tolist(), true, strict=True)]
    assert np.mean(right) > 0.999


def test_neither_the_question_nor_the_scene_gives_the_answer():
    blind = blind_accuracy(400, 9)
    ceilings = {"attribute": 0.4, "count": 0.4, "existence": 0.6, "relation": 0.5}
    for kind, most in ceilings.items():
        assert blind[f"blind_question_{kind}"] < most, kind
    ceilings = {"attribute": 0.55, "count": 0.4, "existence": 0.6, "relation": 0.55}
    for kind, most in ceilings.items():
        assert blind[f"blind_regions_{kind}"] < most, kind


def test_every_number_can_be_counted_in_every_scene():
    scenes = QuestionScenes(50, 2)
    for i in range(50):
        objects = scenes.objects(i)
        for axis in ("colour", "shape"):
            counts = Counter(getattr(each, axis) for each in objects)
            assert sorted(counts.values()) == [1, 2, 3]
        assert Counter(each.size for each in objects) == {"small": 3, "large": 3}
        assert len({each.name for each in objects}) == len({each.place for each in objects}) == 6


def test_questions_depend_on_seed_and_index_alone():
    one, two = GeneratedQuestions(9, 3), GeneratedQuestions(50, 3, images=False)
    for i in (0, 8):
        assert one[i].question == two[i].question and torch.equal(one[i].features, two[i].features)
    assert torch.equal(one[4].image, one[-5].image) and one[4].image.shape == (3, 64, 64)
    assert two[0].image is None and copy.deepcopy(one)[5].question == one[5].question
    assert one.fingerprint() == GeneratedQuestions(9, 3).fingerprint()
    assert one.fingerprint()["digest"] != GeneratedQuestions(9, 4).fingerprint()["digest"]
    with pytest.raises(IndexError):
        one[9]


def test_evaluation_questions_are_not_training_questions():
    """Equal words occur, equal scenes do not."""
    held = {QuestionScenes(N, EVALUATION_SEED).objects(i) for i in range(N)}
    for part in (10, 11):
        assert not held & {QuestionScenes(N, (0, part)).objects(i) for i in range(N)}


def test_regions_on_the_background(samples):
    rng = np.random.default_rng(0)
    sample = next(s for s in samples if s.regions.sum() == 2)
    lost = on_background(sample, sample.regions, rng)
    assert torch.equal(lost.features[~sample.regions], sample.features[~sample.regions])
    changed = lost.features[sample.regions] - torch.from_numpy(question_scenes.background_vector())
    assert changed.std() < 0.5 and torch.equal(lost.boxes, sample.boxes)
    kept = only_regions(sample, rng)
    assert torch.equal(kept.features, sample.features[sample.regions]) and kept.regions.all()
    none = next(s for s in samples if not s.regions.any())
    assert only_regions(none, rng).features.shape == (1, 64)
    assert background_features(3, rng).shape == (3, 64)


def test_words_lost():
    sample = sample_questions("lxmert-questions").samples["attribute"]
    sample = type(sample)("k", "what colour is the large star ?", rationale=((5, 11), (19, 29)))
    assert without_words(sample).question == "what [MASK] is the [MASK] [MASK] ?"
    assert without_words(sample, "").question == "what is the ?"


def test_sample_questions():
    found = sample_questions("visualbert-questions", count=6)
    assert found.names == [*KINDS, "attribute 2", "count 2"] and len(found.list()) == 6
    for sample in found.list():
        assert sample.image is not None and len(sample.boxes) == len(sample.features)
    assert sample_questions("lxmert-questions", count=2).names == found.names[:2]
    own = sample_questions("lxmert-questions", "is it red ?", count=2)
    assert [s.question for s in own.list()] == ["is it red ?"] * 2
    assert {s.label for s in own.list()} == {s.regions for s in own.list()} == {None}


def test_bad_requests_are_refused():
    with pytest.raises(InputError, match="n=0"):
        GeneratedQuestions(0)
    with pytest.raises(OptionError, match="kind='colour'"):
        GeneratedQuestions(3, kind="colour")
    with pytest.raises(InputError, match="count=0"):
        sample_questions("lxmert-questions", count=0)
    with pytest.raises(OptionError, match="own detector"):
        sample_questions("hf:someone/vqa")
