"""VQA v2 in both forms, joined with images and region features; prompts; damaged copies."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from text_files import copied
from vqa_files import (
    ANSWERS,
    HEIGHT,
    QUESTIONS,
    WIDTH,
    coco,
    lxmert_records,
    regions,
    tsv_line,
    vqa2_records,
    write_images,
    write_json,
    write_npz,
    write_questions,
    write_tsv,
    write_vqa,
)

from xai_lib.datasets import (
    QuestionDataset,
    class_prompts,
    datasets_table,
    imagenet_names,
    open_dataset,
)
from xai_lib.datasets.images.coco import CocoImages
from xai_lib.datasets.images.imagenet_labels import class_names
from xai_lib.datasets.questions.answers import read_answers
from xai_lib.datasets.questions.records import soft_scores
from xai_lib.errors import InputError, MissingDataError, OptionError

REAL = Path(__file__).parent.parent.parent / "shared" / "data" / "vqa"
ASKED, TOLD = "v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"


@pytest.mark.parametrize("form", ["lxmert", "vqa2"])
def test_questions_regions_images_and_answers_are_joined(tmp_path, form):
    data = open_dataset("vqa2", path=write_vqa(tmp_path, form))
    assert isinstance(data, QuestionDataset) and data.modality == "question"
    assert data.class_names == ANSWERS and data.has_labels and not data.has_evidence
    assert len(data) == len(QUESTIONS)
    for sample, (key, image, text, said, scores) in zip(data, QUESTIONS, strict=True):
        assert (sample.key, sample.question) == (str(key), text)
        features, boxes = regions(image)
        assert np.array_equal(sample.features, features)
        size = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT], np.float32)
        np.testing.assert_allclose(sample.boxes, boxes / size, rtol=0, atol=1e-6)
        assert sample.image.size == (WIDTH, HEIGHT) and sample.image.mode == "RGB"
        assert np.abs(np.asarray(sample.image)[0, 0] - np.array([image, 0, 255 - image])).max() < 9
        if form == "vqa2":
            scores = {a: min(said.count(a) / 3, 1) for a in set(said) & set(ANSWERS)}
        assert sample.answers == scores
        best = max(scores, key=scores.get) if scores else None
        assert sample.label == (ANSWERS.index(best) if scores else None)
        assert sample.regions is None and sample.rationale is None
    with pytest.raises(IndexError):
        data[4]
    assert data[-1].key == data.question(3).key == "74000" and data.question(0).image[-2:] == "42"


def test_soft_scores_count_people():
    said = ["yes"] * 4 + ["no"] * 3 + ["2"] * 2 + ["Yes"]
    known = {answer: place for place, answer in enumerate(ANSWERS)}
    assert soft_scores(said, known) == {"yes": 1, "no": 1, "2": pytest.approx(2 / 3)}


def test_equal_answers_give_the_first_class(tmp_path):
    records = lxmert_records()
    records[0]["label"] = {"red": 0.9, "no": 0.9, "yes": 0}
    records[1]["label"] = {"yes": 0}
    write_json(write_vqa(tmp_path) / "valid.json", records)
    data = open_dataset(f"vqa2:{tmp_path}")
    assert [data[0].label, data[1].label] == [ANSWERS.index("no"), None]


def test_regions_or_images_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XAI_VQA2", str(write_questions(tmp_path)))
    with pytest.raises(InputError, match="'val2014'"):
        open_dataset("vqa2")
    folder = write_images(tmp_path)
    assert open_dataset("vqa2")[0].features is None
    folder.rename(tmp_path / "elsewhere")
    write_npz(tmp_path / "features", size=None, boxes=None)
    sample = open_dataset("vqa2")[0]
    assert sample.image is None and sample.boxes is None and sample.features.shape == (5, 6)


def test_other_splits_and_their_features(tmp_path):
    write_vqa(tmp_path)
    write_tsv(tmp_path / "train2014_obj36.tsv", [tsv_line(42)])
    write_json(tmp_path / "train.json", lxmert_records()[:2])
    write_json(tmp_path / "minival.json", lxmert_records()[2:3])
    train = open_dataset("vqa2#train", path=tmp_path)
    assert len(train) == 2 and train[0].image is None and len(train.regions) == 1
    minival = open_dataset(f"vqa2:{tmp_path}#minival")
    assert [sample.key for sample in minival] == ["73000"]
    assert len(open_dataset("vqa2#valid", path=tmp_path)) == 4
    with pytest.raises(InputError, match=r"'nominival\.json'"):
        open_dataset("vqa2#nominival", path=tmp_path)
    with pytest.raises(OptionError, match=r"no split 'test'. It has: validation, train"):
        open_dataset("vqa2#test", path=tmp_path)
    with pytest.raises(OptionError):
        open_dataset(f"vqa2:{tmp_path}", path=tmp_path)


def test_the_published_protocol(tmp_path):
    """10,000 questions by shuffling all indices with the seed 1234; images only of those."""
    write_questions(tmp_path)
    records = [lxmert_records()[0] | {"question_id": n, "img_id": n} for n in range(10_007)]
    write_json(tmp_path / "valid.json", records)
    order = list(range(10_007))
    random.seed(1234)
    random.shuffle(order)
    chosen = order[:10_000]
    left_out = order[10_000:]
    folder = tmp_path / "val2014"
    folder.mkdir()
    for number in chosen:
        (folder / f"{coco(number)}.jpg").touch()
    data = open_dataset("vqa2#protocol", path=tmp_path)
    assert [data.question(i).key for i in range(10_000)] == [str(n) for n in chosen]
    with pytest.raises(InputError, match=f"no file of 7 images .*such as '{min(left_out)}'"):
        open_dataset("vqa2", path=tmp_path)
    few = data.subset(3, seed=5)
    order = list(range(10_000))
    random.Random(5).shuffle(order)
    assert [few.question(i).key for i in range(3)] == [str(chosen[n]) for n in order[:3]]
    for wrong in (0, 10_001, 2.0, True):
        with pytest.raises(OptionError, match="expected a whole number from 1 to 10,000"):
            data.subset(wrong)


def test_the_protocol_needs_as_many_questions(tmp_path):
    with pytest.raises(OptionError, match=r"samples is 10000; expected .* from 1 to 4"):
        open_dataset("vqa2#protocol", path=write_vqa(tmp_path))


def test_copies_and_fingerprints(tmp_path):
    data = open_dataset("vqa2", path=write_vqa(tmp_path / "a"))
    again = copied(data)
    assert torch.equal(again[2].features, data[2].features)
    assert again.fingerprint() == data.fingerprint()
    assert data.fingerprint() == open_dataset(f"vqa2:{write_vqa(tmp_path / 'b')}").fingerprint()
    assert data.fingerprint()["dataset"] == "vqa2" and data.fingerprint()["samples"] == 4
    prints = [data.fingerprint(), data.subset(4, seed=1).fingerprint()]
    records = lxmert_records()
    records[3]["label"] = {"2": 0.3}
    write_json(tmp_path / "b" / "valid.json", records)
    prints.append(open_dataset(f"vqa2:{tmp_path / 'b'}").fingerprint())
    write_json(tmp_path / "a" / "trainval_label2ans.json", [*ANSWERS, "blue"])
    prints.append(open_dataset(f"vqa2:{tmp_path / 'a'}").fingerprint())
    (tmp_path / "a" / "val2014_obj36.tsv").unlink()
    prints.append(open_dataset(f"vqa2:{tmp_path / 'a'}").fingerprint())
    Image.new("RGB", (9, 9)).save(tmp_path / "a" / "val2014" / f"{coco(73)}.jpg")
    prints.append(open_dataset(f"vqa2:{tmp_path / 'a'}").fingerprint())
    assert len({entry["digest"] for entry in prints}) == len(prints)


def test_half_a_character_is_part_of_the_fingerprint(tmp_path):
    """JSON may hold surrogates without their other half, which UTF-8 cannot."""
    records = lxmert_records()
    records[0]["sent"] = "what \ud83d?"
    (write_vqa(tmp_path) / "valid.json").write_text(json.dumps(records))
    data = open_dataset("vqa2", path=tmp_path)
    first = data.fingerprint()
    records[0]["sent"] = "what \ud83e?"
    (tmp_path / "valid.json").write_text(json.dumps(records))
    assert open_dataset("vqa2", path=tmp_path).fingerprint() != first


def test_missing_says_what_where_and_how(tmp_path, monkeypatch):
    monkeypatch.delenv("XAI_VQA2", raising=False)
    with pytest.raises(MissingDataError, match=r"visualqa\.org.*set XAI_VQA2 to it"):
        open_dataset("vqa2")
    with pytest.raises(MissingDataError, match="path="):
        open_dataset(f"vqa2:{tmp_path / 'none'}")
    table = datasets_table().set_index("name")
    assert table.loc["vqa2", "kind"] == "question" and not table.loc["vqa2", "present"]
    monkeypatch.setenv("XAI_VQA2", str(tmp_path))
    assert datasets_table().set_index("name").loc["vqa2", "present"]


def test_questions_without_their_images(tmp_path):
    write_vqa(tmp_path)
    write_tsv(tmp_path / "val2014_obj36.tsv", [tsv_line(42)])
    with pytest.raises(
        InputError,
        match=rf"obj36\.tsv' has no region features of 2 images .*'{coco(73)}' of question 73000",
    ):
        open_dataset("vqa2", path=tmp_path)
    (tmp_path / "val2014_obj36.tsv").unlink()
    (tmp_path / "val2014" / f"{coco(74)}.jpg").unlink()
    with pytest.raises(InputError, match=rf"val2014' has no file of 1 images .*'{coco(74)}'"):
        open_dataset("vqa2", path=tmp_path)
    write_npz(tmp_path / "features")
    write_tsv(tmp_path / "val2014_obj36.tsv")
    with pytest.raises(InputError, match=r"'features' and 'val2014_obj36\.tsv': which"):
        open_dataset("vqa2", path=tmp_path)


def test_a_damaged_image_or_region_is_its_own_error(tmp_path):
    write_vqa(tmp_path)
    (tmp_path / "val2014" / f"{coco(73)}.jpg").write_bytes(b"no image")
    lines = [tsv_line(42), tsv_line(73), tsv_line(74, boxes="AAAA")]
    write_tsv(tmp_path / "val2014_obj36.tsv", lines)
    data = open_dataset("vqa2", path=tmp_path)
    assert data[1].key == "42001"
    with pytest.raises(InputError, match=rf"{coco(73)}\.jpg"):
        data[2]
    with pytest.raises(InputError, match=rf"image '{coco(74)}'"):
        data[3]


def test_image_folders(tmp_path):
    images = CocoImages(write_images(tmp_path))
    assert len(images) == 3 and 42 in images and "scene" not in images
    assert images[coco(42)].size == (WIDTH, HEIGHT)
    with pytest.raises(InputError, match="no file of the image 7; it has 3 others, such as 'COCO"):
        images[7]
    Image.new("RGB", (2, 2)).save(tmp_path / "val2014" / "42.png")
    with pytest.raises(InputError):
        CocoImages(tmp_path / "val2014")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        CocoImages(tmp_path / "empty")


# What replaces a field of LXMERT's second record (None takes it away), and the error.
RECORDS = {
    "no id": ({"question_id": None}, "Record 1 of .*'question_id' is None; expected a number"),
    "no image": ({"img_id": None}, "Record 1 of .*'img_id' is None"),
    "image of another kind": ({"img_id": [42]}, r"Record 1 of .*'img_id' is \[42\]"),
    "no text": ({"sent": None}, "Question 42001 of .*'sent' is None; expected a text"),
    "empty text": ({"sent": " "}, "Question 42001 of .*'sent' is ' '"),
    "no label": ({"label": None}, "Question 42001 of .*'label' is nothing; expected {answer: sco"),
    "list": ({"label": ["2"]}, "Question 42001 of .*'label' is a list"),
    "unknown": ({"label": {"two": 1}}, "Question 42001 .*answer 'two' is not among the 5 of the l"),
    "score": ({"label": {"2": 1.2}}, "Question 42001 .*score of '2' is 1.2; expected one from 0"),
    "no score": ({"label": {"2": "1"}}, "Question 42001 .*score of '2' is '1'"),
    "nan": ({"label": {"2": float("nan")}}, "Question 42001 .*score of '2' is nan"),
    "twice": ({"question_id": 42000}, "has the question 42000 twice"),
}


@pytest.mark.parametrize("case", RECORDS)
def test_a_damaged_record_is_named(tmp_path, case):
    fields, message = RECORDS[case]
    records = lxmert_records()
    changed = records[1] | fields
    records[1] = {name: value for name, value in changed.items() if value is not None}
    write_json(write_vqa(tmp_path) / "valid.json", records)
    with pytest.raises(InputError, match=message) as caught:
        open_dataset("vqa2", path=tmp_path)
    assert "valid.json" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"questions": []}, r"valid\.json"),
        ([], None),
        ([{"question_id": 1, "img_id": "a", "sent": "b"}], "has the answers' scores.*test split"),
        (["a", {"label": {}}], "Record 0 of "),
    ],
)
def test_a_file_of_another_form(tmp_path, content, message):
    write_json(write_vqa(tmp_path) / "valid.json", content)
    with pytest.raises(InputError, match=message):
        open_dataset("vqa2", path=tmp_path)


@pytest.mark.parametrize("name", [ASKED, TOLD, "trainval_label2ans.json"])
def test_truncated_json(tmp_path, name):
    file = write_vqa(tmp_path, "vqa2") / name
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(InputError, match=rf"{name}' is no JSON, damaged or truncated.*line 1"):
        open_dataset("vqa2", path=tmp_path)


def damaged_vqa2(root, change):
    """Write VQA v2's files after `change` of the two contents."""
    asked, told = json.loads(json.dumps(vqa2_records()))
    change(asked, told)
    write_json(write_vqa(root, "vqa2") / ASKED, asked)
    write_json(root / TOLD, told)
    return root


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, t: t.pop("annotations"), "'info', 'data_subtype'"),
        (lambda a, t: t.update(annotations=[]), "annotations"),
        (lambda a, t: a.pop("questions"), "questions"),
        (lambda a, t: t["annotations"].pop(), "42000"),
        (lambda a, t: a["questions"].pop(), "74000"),
        (lambda a, t: t["annotations"].append(t["annotations"][0]), "74000"),
        (lambda a, t: t["annotations"][0].update(image_id=9), "image 9"),
        (lambda a, t: t["annotations"][0].pop("answers"), "74000 .*'answers'"),
        (lambda a, t: t["annotations"][0].update(answers=[{}]), "'answers'"),
        (lambda a, t: t["annotations"][0].pop("question_id"), "Record 0 .*'question_id' is None"),
        (lambda a, t: a["questions"][1].pop("question"), "Question 42001 of .*'question' is None"),
        (lambda a, t: a["questions"].append(a["questions"][0]), "question 42000 twice"),
    ],
)
def test_damaged_files_of_vqa2(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        open_dataset("vqa2", path=damaged_vqa2(tmp_path, change))


def test_answers_that_nobody_gave_are_another_sets(tmp_path):
    write_vqa(tmp_path, "vqa2")
    write_json(tmp_path / "trainval_label2ans.json", ["cat", "dog"])
    with pytest.raises(InputError, match=r"No answer in .*is among the 2 of the list"):
        open_dataset("vqa2", path=tmp_path)


@pytest.mark.parametrize(("here", "missing"), [(ASKED, TOLD), (TOLD, ASKED)])
def test_half_of_vqa2(tmp_path, here, missing):
    (write_vqa(tmp_path, "vqa2") / missing).unlink()
    with pytest.raises(InputError, match=f"has '{here}' but not '{missing}'"):
        open_dataset("vqa2", path=tmp_path)
    (tmp_path / here).unlink()
    with pytest.raises(InputError, match=rf"expected 'valid\.json', or '{ASKED}' together with"):
        open_dataset("vqa2", path=tmp_path)
    (tmp_path / "trainval_label2ans.json").unlink()
    with pytest.raises(InputError, match=r"has neither trainval_label2ans\.json nor"):
        open_dataset("vqa2", path=tmp_path)
    with pytest.raises(InputError):
        open_dataset("vqa2", path=tmp_path / "val2014_obj36.tsv")


def test_lists_of_answers(tmp_path):
    by_answer = {answer: place for place, answer in reversed(list(enumerate(ANSWERS)))}
    listed = write_json(tmp_path / "trainval_label2ans.json", list(ANSWERS))
    indexed = write_json(tmp_path / "trainval_ans2label.json", by_answer)
    lines = tmp_path / "answers_vqa.txt"
    lines.write_text("<unk>\nyes\nno\n")
    assert read_answers(listed) == read_answers(indexed) == ANSWERS
    assert read_answers(lines) == ("<unk>", "yes", "no")
    write_vqa(tmp_path)
    assert open_dataset("vqa2", path=tmp_path).class_names == ANSWERS
    write_json(indexed, by_answer | {"yes": 2, "no": 1})
    with pytest.raises(InputError):
        open_dataset("vqa2", path=tmp_path)
    for content, message in (
        (["yes", "no", "yes"], "0 and 2 .*'yes'"),
        (["yes", 2], "answer 1 is 2; expected a text"),
        ([], None),
        ("yes", "str"),
        ({"yes": 0, "no": 2}, "from 0 to 1"),
        ({"yes": 0, "no": True}, "from 0 to 1"),
    ):
        with pytest.raises(InputError, match=message):
            read_answers(write_json(listed, content))


def test_the_real_list_of_answers():
    if not REAL.is_dir():
        pytest.skip("LXMERT's lists of answers are not here")
    answers = read_answers(REAL / "trainval_label2ans.json")
    assert len(answers) == 3129 and answers[1] == "woods"
    assert read_answers(REAL / "trainval_ans2label.json") == answers


def test_prompts_are_the_published_ones():
    assert class_prompts(["cat", "owl", " great  white shark "]) == (
        "a photo of a cat",
        "a photo of a owl",
        "a photo of a great white shark",
    )
    assert class_prompts(["x{}y"], "{}, drawn") == ("x{}y, drawn",)
    for names, message in (
        ([], "names"),
        (["cat", " "], r"names\[1\] is ' '"),
        (["cat", None], r"names\[1\] is None"),
        (["Cat", "dog", "cat "], r"names\[0\] and names\[2\].*'cat'"),
        ("cat", "expected a list of class names"),
    ):
        with pytest.raises(InputError, match=message):
            class_prompts(names)
    for template in ("a photo", "{} and {}", None, "{0}"):
        with pytest.raises(OptionError, match=r"expected a text with one '\{\}'"):
            class_prompts(["cat"], template)


def test_imagenets_thousand_names_are_distinct():
    names = imagenet_names()
    assert len(set(class_prompts(names))) == 1000
    assert (names[0], names[134], names[517]) == ("tench", "crane, bird", "crane, machine")
    assert (names[263][:8], names[474]) == ("Pembroke", "cardigan") and "corgi" in names[264]
    others = [i for i in range(1000) if i not in (134, 517)]
    assert all(class_names()[i].startswith(names[i]) for i in others)
    with pytest.raises(InputError, match=r"names\[134\] and names\[517\] are both 'crane'"):
        class_prompts(class_names())
