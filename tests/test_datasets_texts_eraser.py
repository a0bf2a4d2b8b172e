"""ERASER's layout: documents, labels, evidence as words and as characters; damaged copies."""

import json
from pathlib import Path

import pytest
from text_files import LABELLED, MOVIES, annotation, copied, write_eraser, write_jsonl

from xai_lib.datasets import TextDataset, open_dataset
from xai_lib.datasets.base import TextSample
from xai_lib.datasets.texts.eraser import annotation_of, find_evidence
from xai_lib.errors import InputError, MissingDataError, OptionError

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT.parent / "shared" / "goldens" / "bert" / "eraser_metrics.json"


@pytest.mark.parametrize("form", ["docs", "jsonl", "tokens"])
def test_texts_labels_and_rationales(tmp_path, form):
    data = open_dataset("movies", path=write_eraser(tmp_path, form=form))
    assert isinstance(data, TextDataset) and data.has_rationales and data.has_labels
    assert data.class_names == ("NEG", "POS") and len(data) == 3
    for index, (key, (label, groups)) in enumerate(LABELLED.items()):
        sample = data[index]
        assert (sample.key, sample.text, sample.pair) == (key, MOVIES[key], None)
        assert data.class_names[sample.label] == label
        # Independent of the reader: the words of the evidence, by plain splitting.
        words = MOVIES[key].split()
        marked = sorted({n for group in groups for span in group for n in range(*span)})
        found = [w for start, end in sample.rationale for w in sample.text[start:end].split()]
        assert found == [words[n] for n in marked]
        assert [tuple((e.start, e.end) for e in g) for g in data.annotation(index).evidences] == [
            tuple(group) for group in groups
        ]
    ((start, end),) = data[0].rationale  # stretches that touch are one
    assert data[0].text[start:end] == "plot is thin .\ni was bored"
    assert data[2].rationale == ()
    assert data.annotation(0).spans == ((1, 4), (4, 6), (6, 8))
    with pytest.raises(IndexError):
        data[3]


def test_splits_and_the_archives_inner_folder(tmp_path, monkeypatch):
    write_eraser(tmp_path / "movies")
    assert [len(open_dataset(f"movies:{tmp_path}{s}")) for s in ("", "#train", "#val")] == [3, 1, 1]
    monkeypatch.setenv("XAI_MOVIES", str(tmp_path))
    assert open_dataset("movies#validation")[0].key == "posR_2.txt"
    assert open_dataset("movies").class_names == open_dataset("movies#train").class_names
    (tmp_path / "movies" / "val.jsonl").unlink()
    with pytest.raises(OptionError, match=r"no split 'validation'.*train, test"):
        open_dataset("movies#dev")
    with pytest.raises(OptionError):
        open_dataset(f"movies:{tmp_path}", path=tmp_path)


def test_missing_data_says_from_where_and_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.delenv("XAI_MOVIES", raising=False)
    with pytest.raises(MissingDataError, match=r"movies\.tar\.gz.*eraserbenchmark.*XAI_MOVIES"):
        open_dataset("movies")
    with pytest.raises(MissingDataError):
        open_dataset("movies", path=tmp_path / "none")
    with pytest.raises(MissingDataError):
        open_dataset(f"eraser:{tmp_path / 'none'}")


def test_other_sets_have_their_own_classes_queries_and_second_documents(tmp_path):
    documents = {"a": "cats sleep a lot", "b": "an animal rests"}
    lines = [
        annotation("1", "True", [[(0, 2)]], "a", query="do cats sleep", docids=["a"]),
        annotation("2", "False", [[(0, 1)]], "a", query="do cats fly", docids=["a"]),
        annotation("3", "maybe", [[(1, 2)]], "b", query="q", docids=["a", "b"]),
    ]
    write_eraser(tmp_path, documents, {"train": lines[2:], "test": lines}, "jsonl")
    data = open_dataset(f"eraser:{tmp_path}")
    assert data.class_names == ("False", "True", "maybe")
    assert open_dataset(f"eraser:{tmp_path}#train").class_names == data.class_names
    assert data[0] == TextSample("1", "cats sleep a lot", "do cats sleep", 1, ((0, 10),))
    # Evidence in the second document is no rationale of the first.
    assert data[2] == TextSample("3", "cats sleep a lot", "an animal rests", 2, ())
    assert data.annotation(2).evidences[0][0].docid == "b"


def test_documents_are_read_when_asked_for_and_the_set_pickles(tmp_path):
    data = open_dataset("movies", path=write_eraser(tmp_path))
    data = copied(data)
    (tmp_path / "docs" / "negR_3.txt").write_bytes(b"na\xefve film")
    assert data[0].label == 0
    with pytest.raises(InputError, match=r"negR_3\.txt' is not UTF-8: byte 0xef at position 2"):
        data[2]
    (tmp_path / "docs" / "negR_3.txt").write_text(" \n")
    with pytest.raises(InputError, match=r"negR_3\.txt"):
        data[2]


def test_fingerprint_is_of_the_content_not_the_place(tmp_path):
    first = open_dataset("movies", path=write_eraser(tmp_path / "a")).fingerprint()
    again = open_dataset(f"movies:{write_eraser(tmp_path / 'b')}").fingerprint()
    assert first == again and first["samples"] == 3
    (tmp_path / "b" / "docs" / "negR_1.txt").write_text("shorter .")
    assert open_dataset(f"movies:{tmp_path / 'b'}").fingerprint() != first
    assert open_dataset(f"movies:{tmp_path / 'a'}#train").fingerprint() != first


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([annotation("x")], "document 'x'"),
        ([annotation("../../negR_1.txt")], None),
        ([annotation("negR_1.txt")] * 2, "Line 2 of .*annotation_id 'negR_1.txt'"),
        ([annotation("negR_1.txt", "good")], "'good'.* NEG, POS"),
        ([annotation("negR_1.txt", groups=[[(3, 3)]])], "3 to 3"),
        ([annotation("negR_1.txt", groups=[[(-1, 3)]])], "-1 to 3"),
        ([annotation("negR_1.txt", groups=[[("1", 3)]])], "from token '1' to 3"),
        ([annotation("negR_1.txt", evidences=[{"docid": "negR_1.txt"}])], None),
        ([annotation("negR_1.txt", evidences=5)], None),
        ([annotation("a", docids=[*MOVIES])], "3"),
        ([{"id": 1}], "expected 'annotation_id', 'classification' and 'evidences', it has 'id'"),
        ([[1, 2]], None),
        ([], None),
    ],
)
def test_damaged_annotations_are_found_on_opening(tmp_path, lines, message):
    with pytest.raises(InputError, match=message):
        open_dataset("movies", path=write_eraser(tmp_path, splits={"test": lines}))


def test_evidence_outside_its_document_is_that_samples_error(tmp_path):
    lines = [annotation("negR_1.txt"), annotation("negR_3.txt", groups=[[(3, 6)]])]
    data = open_dataset("movies", path=write_eraser(tmp_path, splits={"test": lines}))
    assert data[0].rationale == ()
    with pytest.raises(InputError, match="words 3 to 6"):
        data[1]


def test_truncated_lines_are_named(tmp_path):
    write_eraser(tmp_path, form="jsonl")
    for file, line in (("test.jsonl", 3), ("docs.jsonl", 3)):
        whole = (tmp_path / file).read_bytes()
        (tmp_path / file).write_bytes(whole[:-20])
        with pytest.raises(InputError, match=rf"Line {line} of .*{file}' is no JSON.*truncated"):
            open_dataset("movies", path=tmp_path)
        (tmp_path / file).write_bytes(whole)


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([{"docid": "a", "document": "x"}] * 2, "Line 2 of .*docid 'a'"),
        ([{"docid": "a", "text": "x"}], "expected 'docid' and 'document'"),
        ([{"docid": 3, "document": "x"}], "expected 'docid' and 'document'"),
    ],
)
def test_damaged_documents_are_found_on_opening(tmp_path, documents, message):
    write_eraser(tmp_path, splits={"test": [annotation("a")]}, form="jsonl")
    write_jsonl(tmp_path / "docs.jsonl", documents)
    with pytest.raises(InputError, match=message):
        open_dataset("movies", path=tmp_path)


@pytest.mark.parametrize("document", [5, ["no list"], [["two words"]], [[""]], [[3]], "", []])
def test_documents_that_are_no_text_are_their_samples_error(tmp_path, document):
    write_eraser(tmp_path, splits={"test": [annotation("a")]}, form="jsonl")
    write_jsonl(tmp_path / "docs.jsonl", [{"docid": "a", "document": document}])
    data = open_dataset("movies", path=tmp_path)
    with pytest.raises(InputError, match=r"Line 1 of .*docs\.jsonl"):
        data[0]


def test_layouts_that_are_none(tmp_path):
    (tmp_path / "test.txt").write_text("x")
    with pytest.raises(InputError):
        open_dataset("movies", path=tmp_path / "test.txt")
    with pytest.raises(InputError):
        open_dataset("movies", path=tmp_path)
    write_jsonl(tmp_path / "test.jsonl", [annotation("a")])
    with pytest.raises(InputError, match="docs"):
        open_dataset("movies", path=tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs.jsonl").write_text("{}")
    with pytest.raises(InputError):
        open_dataset("movies", path=tmp_path)


def test_annotations_of_sets_that_have_none_come_from_their_rationales():
    class One(list):
        class_names = ("bad", "good")

    data = One([TextSample("k", "a truly great film", label=1, rationale=((4, 13), (15, 16)))])
    found = annotation_of(data, 0)
    assert (found.annotation_id, found.docid, found.classification) == ("k", "k", "good")
    assert found.spans == ((1, 3), (3, 4))


def test_evidence_known_by_its_words_is_found_across_lines():
    text = "good .\nvery\ngood ."
    assert [(e.start, e.end) for e in find_evidence("k", text, ["very good .", "good"])] == [
        (2, 5),
        (0, 1),
    ]
    for stretch in ("bad", "", "good . very good . good"):
        with pytest.raises(InputError):
            find_evidence("k", text, [stretch])


@pytest.mark.skipif(not GOLDEN.is_file(), reason="the goldens of ERASER's metrics are not here")
def test_the_goldens_documents_have_the_evidence_that_their_annotations_quote(tmp_path):
    """The evidence's own text, which the reader does not look at, is what the spans mark."""
    cases, quoted = json.loads(GOLDEN.read_text())["cases"], 0
    for name, case in cases.items():
        if not all(isinstance(text, str) for text in case["docs"].values()):
            continue
        folder = tmp_path / name
        write_eraser(folder, case["docs"], {"test": case["annotations"]})
        data = open_dataset(f"eraser:{folder}")
        for index, line in enumerate(case["annotations"]):
            sample, words = data[index], data[index].text.split()
            for group, stated in zip(
                data.annotation(index).evidences, line["evidences"], strict=True
            ):
                for found, evidence in zip(group, stated, strict=True):
                    assert " ".join(words[found.start : found.end]) == evidence["text"]
                    quoted += 1
            marked = " ".join(sample.text[start:end] for start, end in sample.rationale).split()
            spans = data.annotation(index).spans
            assert marked == [words[n] for n in sorted({n for s in spans for n in range(*s)})]
    assert quoted > 10
