"""Text sets of the Hugging Face hub: which columns are the texts and the label."""

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Features, List, Value

from xai_lib.datasets import TextDataset, open_dataset
from xai_lib.datasets.base import TextSample
from xai_lib.errors import InputError

STRING = Value("string")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """The library converts what it opens; not into the cache of whoever runs the tests."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "converted")


def write(path, columns, features=None, rows=2):
    """Write what `Dataset.to_parquet` writes; without features, what other programs write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if features is None:
        pq.write_table(pa.table(columns), path)
    else:
        made = datasets.Dataset.from_dict(columns, features=Features(features))
        made.to_parquet(path, batch_size=rows)
    return path


def open_copy(folder, name="hf:own/texts"):
    return open_dataset(name, path=folder)


def test_texts_labels_and_names(tmp_path):
    texts = [f"text {number} ." for number in range(7)]
    columns = {"idx": range(7), "text": texts, "label": [0, 1, 0, 1, 0, 1, -1]}
    types = {"idx": Value("int32"), "text": STRING, "label": ClassLabel(names=["neg", "pos"])}
    write(tmp_path / "data" / "validation-00000-of-00001.parquet", columns, types)
    data = open_copy(tmp_path)
    assert isinstance(data, TextDataset) and data.class_names == ("neg", "pos") and len(data) == 7
    assert data[3] == TextSample("000003", "text 3 .", None, 1)
    assert data[6].label is None and [s.text for s in data] == texts
    assert data.fingerprint()["dataset"] == "hf:own/texts"
    theirs = datasets.load_dataset(str(tmp_path), split="validation", cache_dir=tmp_path / "c")
    assert [s.text for s in data] == theirs["text"][:]
    with pytest.raises(InputError, match="no column 'evidences'"):
        data.annotation(0)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"question": ["Q"], "sentence": ["S"], "label": [0]}, ("Q", "S", 0)),
        ({"sentence2": ["B"], "id": ["x"], "sentence1": ["A"], "label": [1]}, ("A", "B", 1)),
        ({"title": ["T"], "content": ["C"], "label": [1]}, ("C", None, 1)),
        ({"words": ["W"], "label": [2]}, ("W", None, 2)),
        ({"text": ["A"], "label_text": ["odd"]}, ("A", None, None)),
    ],
)
def test_columns_of_texts(tmp_path, columns, expected):
    write(tmp_path / "test.parquet", columns)
    data = open_copy(tmp_path)
    assert (data[0].text, data[0].pair, data[0].label) == expected
    assert data.has_labels == ("label" in columns) and data.class_names is None


def test_names_beside_numbers_and_labels_that_are_names(tmp_path):
    columns = {"text": ["a", "b", "c"], "label": [1, 0, 1], "label_text": ["med", "cars", "med"]}
    write(tmp_path / "test.parquet", columns)
    assert open_copy(tmp_path).class_names == ("cars", "med")
    write(tmp_path / "test.parquet", columns | {"label_text": ["med", "cars", "else"]})
    assert open_copy(tmp_path).class_names is None
    write(tmp_path / "test.parquet", {"text": ["a", "b", "c"], "label": ["med", "cars", None]})
    data = open_copy(tmp_path)
    assert data.class_names == ("cars", "med") and [s.label for s in data] == [1, 0, None]


def test_the_movie_reviews_of_eraser(tmp_path):
    columns = {
        "review": ["a thin plot .\nbut well\nacted .", "fun .\n"],
        "label": [0, 1],
        "evidences": [["well acted .", "thin plot"], []],
    }
    types = {
        "review": STRING,
        "label": ClassLabel(names=["NEG", "POS"]),
        "evidences": List(STRING),
    }
    write(tmp_path / "default" / "test" / "0000.parquet", columns, types)
    data = open_copy(tmp_path, "hf:eraser-benchmark/movie_rationales@refs/convert/parquet#test")
    assert data.has_rationales and data[1].rationale == ()
    found = [data[0].text[start:end] for start, end in data[0].rationale]
    assert found == ["thin plot", "well\nacted ."]
    annotation = data.annotation(0)
    assert annotation.classification == "NEG" and annotation.annotation_id == data[0].key
    assert annotation.spans == ((1, 3), (5, 8))


def test_evidence_that_is_not_in_its_review_is_that_samples_error(tmp_path):
    columns = {"review": ["fun", "dull"], "label": [1, 0], "evidences": [["fun"], ["no fun"]]}
    write(tmp_path / "test.parquet", columns)
    data = open_copy(tmp_path)
    assert data[0].rationale == ((0, 3),)
    with pytest.raises(InputError, match="evidence 'no fun' of '000001' is not in its text"):
        data[1]


def test_texts_that_are_none(tmp_path):
    write(tmp_path / "test.parquet", {"text": ["a", None, " "], "label": [0, 1, 0]})
    data = open_copy(tmp_path)
    assert data[0].label == 0
    for index in (1, 2):
        with pytest.raises(InputError, match=f"Sample {index} of hf:own/texts has no text in 't"):
            data[index]
    write(tmp_path / "test.parquet", {"title": ["a"], "body": ["b"], "label": [0]})
    with pytest.raises(InputError, match=r"'title', 'body'.*Expected one column.*question\+sent"):
        open_copy(tmp_path)
