"""The embedded evaluation sets: fixed, never trained on, with exact masks."""

import copy
import pickle
import time

import pytest
import torch

import xai_lib as xai
from xai_lib.cli.doctor import facts
from xai_lib.datasets import Scenes, datasets_table, handwritten_digits, open_dataset, registry
from xai_lib.datasets.worlds.attribute_scenes import AttributeScenes
from xai_lib.datasets.worlds.attributes import CAPTION_ZOOM
from xai_lib.datasets.worlds.generated import EVALUATION_SEED, SceneImages
from xai_lib.errors import OptionError


@pytest.mark.parametrize(("name", "objects"), [("scenes", 1), ("scenes-2", 2)])
def test_scenes_are_lazy_fixed_and_masked(name, objects):
    registry.entries()  # imports what there is, once
    began = time.perf_counter()
    data = open_dataset(name)
    assert time.perf_counter() - began < 0.5 and len(data) == 10_000
    assert data.has_labels and data.has_masks and len(data.class_names) == 10
    for index in (0, 1, 499, 500, 9_999):
        sample, again = data[index], open_dataset(name)[index]
        assert torch.equal(sample.image, again.image) and torch.equal(sample.mask, again.mask)
        block = Scenes(500, (EVALUATION_SEED, objects, index // 500), objects)
        scene = block[index % 500]
        slot = index % objects
        assert torch.equal(sample.image, scene.image[0]) and sample.label == scene.labels[0, slot]
        assert torch.equal(sample.mask == 1, scene.masks[0, slot])
        assert set(sample.mask.unique().tolist()) == {0, 1}
    keys = {data[index].key for index in (0, 1, 2, 500)}
    assert len(keys) == 4


@pytest.mark.parametrize(("name", "objects"), [("attribute-scenes", 1), ("attribute-scenes-2", 2)])
def test_attribute_scenes_are_lazy_fixed_and_masked(name, objects):
    data = copy.deepcopy(open_dataset(name))
    assert len(data) == 10_000 and data.has_masks and len(data.class_names) == 64
    scenes = AttributeScenes(10_000, (EVALUATION_SEED, objects), objects, zoom=CAPTION_ZOOM)
    for index in (0, 1, 9_999):
        sample, scene, slot = data[index], scenes[index], index % objects
        assert torch.equal(sample.image, scene.image)
        assert torch.equal(sample.mask == 1, scene.masks[slot])
        assert data.class_names[sample.label] == scene.objects[slot].name
    with pytest.raises(IndexError):
        data[10_000]


def test_two_objects_are_asked_for_in_turn():
    data = open_dataset("scenes-2")
    scene = Scenes(500, (EVALUATION_SEED, 2, 0), 2)
    asked = [int(scene[i].labels[0, i % 2]) for i in range(20)]
    assert [data[i].label for i in range(20)] == asked
    other = [int(scene[i].labels[0, 1 - i % 2]) for i in range(20)]
    assert all(a != b for a, b in zip(asked, other, strict=True))


def test_no_scene_is_one_that_models_were_trained_or_graded_on():
    """Training draws from the seeds (0, 1 | 99, stage, step); the cards grade on 1_000_001, 002."""
    first = Scenes(4, (EVALUATION_SEED, 1, 0))
    keys = [(0, 1, 0, 1), (0, 99, 0, 1), (1_000_001, 1), (1_000_002, 1), 0, EVALUATION_SEED]
    for key in keys:
        assert not torch.equal(Scenes(4, key).place, first.place), key
    import json
    from pathlib import Path

    for card in Path(xai.__file__).parent.glob("weights/*-scenes.json"):
        facts = json.loads(card.read_text())
        assert EVALUATION_SEED not in (
            facts["seed"],
            facts["metrics"]["seed"],
            facts["evidence"]["seed"],
        )


def test_the_model_reads_them(one_thread):
    model, processor = xai.load("vit-scenes")
    data = open_dataset("scenes")
    images = torch.stack([processor.squash(data[i].image) for i in range(40)])
    labels = torch.tensor([data[i].label for i in range(40)])
    with torch.no_grad():
        logits = model(processor(images)["pixel_values"])
    assert (logits.argmax(1) == labels).double().mean() > 0.8


def test_digits_are_the_held_out_ones():
    data = open_dataset("digits")
    held = handwritten_digits("test")
    assert len(data) == 360 and data.has_masks
    for index in (0, 7, 359):
        sample = data[index]
        assert torch.equal(sample.image, held.image[index]) and sample.label == held.labels[index]
        assert torch.equal(sample.mask == 1, held.strokes[index])
    with pytest.raises(IndexError):
        data[360]


def test_only_one_block_of_scenes_is_held_and_none_is_pickled():
    data = SceneImages()
    for index in (0, 600, 9_000):
        data[index]
    assert data._block[0] == 18 and data._block[1].n == 500
    assert len(pickle.dumps(data)) < 2_000


@pytest.mark.parametrize("name", ["scenes", "scenes-2", "digits", "attribute-scenes"])
def test_fingerprints_tell_sets_apart(name):
    names = ("scenes", "scenes-2", "digits", "attribute-scenes", "attribute-scenes-2")
    prints = {n: open_dataset(n).fingerprint() for n in names}
    assert open_dataset(name).fingerprint() == prints[name]
    others = [value for other, value in prints.items() if other != name]
    assert prints[name] not in others


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("scene", {}, "Did you mean 'scenes"),
        ("imagenet", {}, "Did you mean 'imagenet-val'"),
        ("hf:", {}, "Unknown data set 'hf:'"),
        ("folder:", {}, "Unknown data set"),
        (3, {}, "name is 3"),
        ("scenes", {"path": "x"}, "takes no path"),
        ("gtsegs", {"revision": "main"}, "no revisions"),
        ("hf:onlyname", {}, "expected hf:OWNER/NAME"),
        ("hf:a/b@1", {"revision": "2"}, "contradict"),
    ],
)
def test_unknown_names_and_options(name, options, message):
    with pytest.raises(OptionError, match=message):
        open_dataset(name, **options)


def test_table_and_doctor_say_what_is_present_and_where(tmp_path, monkeypatch):
    monkeypatch.delenv("XAI_GTSEGS", raising=False)
    monkeypatch.setenv("XAI_IMAGENET_VAL", str(tmp_path))
    table = datasets_table().set_index("name")
    columns = ["kind", "samples", "labels", "evidence", "present", "where from"]
    assert list(table.columns) == columns and set(table["kind"]) >= {"image", "text"}
    assert table.loc["scenes", "present"] and table.loc["imagenet-val", "present"]
    assert not table.loc["gtsegs", "present"] and "calvin" in table.loc["gtsegs", "where from"]
    section = facts()["Data sets"]
    assert section["gtsegs"].startswith("missing: XAI_GTSEGS is not set")
    assert str(tmp_path) in section["imagenet-val"] and section["digits"].startswith("present")
    monkeypatch.setenv("XAI_GTSEGS", str(tmp_path / "none.mat"))
    assert "nothing at" in facts()["Data sets"]["gtsegs"]


def test_a_data_set_is_one_function_under_its_name(monkeypatch):
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry.entries()))

    @registry.dataset("few-scenes", modality="image", samples=3, origin="here", takes=("path",))
    def few(asked):
        return SceneImages(asked.text, n=int(asked.path))

    data = open_dataset("few-scenes", path="3")
    assert (data.name, len(data)) == ("few-scenes", 3)
    row = datasets_table().set_index("name").loc["few-scenes"]
    assert (row["samples"], row["present"], row["where from"]) == ("3", True, "here")
    with pytest.raises(OptionError, match="choose another name"):
        registry.dataset("scenes", modality="image")(few)
