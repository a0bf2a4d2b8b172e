"""Texts of one file each (20 Newsgroups, IMDb) and of your own CSV, whole and damaged."""

import json

import numpy as np
import pytest
from text_files import GROUPS, POST, copied, write_imdb, write_lines, write_newsgroups

from xai_lib.datasets import datasets_table, open_dataset
from xai_lib.datasets.base import TextSample
from xai_lib.datasets.opening import dataset_states
from xai_lib.datasets.texts.newsgroups import strip_post
from xai_lib.errors import InputError, MissingDataError, OptionError


def test_newsgroups(tmp_path, monkeypatch):
    monkeypatch.setenv("XAI_20NEWSGROUPS", str(write_newsgroups(tmp_path)))
    data, train = open_dataset("20newsgroups"), open_dataset("20newsgroups#train")
    assert len(data) == len(train) == 9, "a post of which nothing is left is left out"
    assert data.class_names == GROUPS and [s.label for s in data] == [0] * 3 + [1] * 3 + [2] * 3
    assert data[0].key == "comp.graphics/9", "numbers are in order: 9 before 10"
    assert data[4].text == "It depends on the test sci.med 1 .\nAsk your doctor , naïve or not ."
    inner = tmp_path / "20news-bydate-test"
    assert open_dataset(f"20newsgroups:{inner}").fingerprint() == data.fingerprint()
    assert train.fingerprint() != data.fingerprint()
    with pytest.raises(OptionError, match=r"no split 'validation'. It has: train, test"):
        open_dataset("20newsgroups#validation")


def test_posts_are_stripped_as_scikit_learn_does():
    from sklearn.datasets import _twenty_newsgroups as theirs

    draw = np.random.default_rng(1)
    lines = ["> quoted", "x writes:", "a word", "", "--", " -- ", "Name", "| bar", "In article <1>"]
    posts = [POST.format("dose"), "no header", "h\n\n", "h\n\n--\nonly a signature"]
    posts += ["h: v\n\n" + "\n".join(draw.choice(lines, draw.integers(1, 9))) for _ in range(300)]
    for post in posts:
        expected = theirs.strip_newsgroup_header(post)
        expected = theirs.strip_newsgroup_footer(expected)
        assert strip_post(post) == theirs.strip_newsgroup_quoting(expected)


def test_newsgroups_of_another_form(tmp_path):
    with pytest.raises(InputError, match=r"no folder '20news-bydate-test'.*bydate.tar.gz"):
        open_dataset("20newsgroups", path=tmp_path)
    (tmp_path / "20news-bydate-test").mkdir()
    with pytest.raises(InputError):
        open_dataset("20newsgroups", path=tmp_path)
    (tmp_path / "20news-bydate-test" / "sci.med").mkdir()
    with pytest.raises(InputError, match=r"sci\.med"):
        open_dataset("20newsgroups", path=tmp_path)
    (tmp_path / "20news-bydate-test" / "sci.med" / "1").write_text("")
    with pytest.raises(InputError, match=r"sci\.med/1"):
        open_dataset("20newsgroups", path=tmp_path)


def test_imdb(tmp_path):
    data = open_dataset("imdb", path=write_imdb(tmp_path))
    assert data.class_names == ("negative", "positive") and [s.label for s in data] == [0, 0, 1, 1]
    sample = data[3]
    assert sample == TextSample(
        "pos/1_9.txt", "A pos film .<br /><br />Number 1 , naïve .", None, 1
    )
    inner = open_dataset(f"imdb:{tmp_path / 'aclImdb'}")
    assert inner.fingerprint() == copied(data).fingerprint()
    assert open_dataset(f"imdb:{tmp_path}#train").fingerprint() == inner.fingerprint()
    with pytest.raises(OptionError, match="no split 'validation'"):
        open_dataset("imdb#dev", path=tmp_path)


def test_damaged_imdb(tmp_path):
    write_imdb(tmp_path)
    folder = tmp_path / "aclImdb" / "test" / "pos"
    (folder / "1_9.txt").write_bytes(b"na\xefve")
    data = open_dataset("imdb", path=tmp_path)
    assert data[2].label == 1
    with pytest.raises(InputError, match=r"1_9\.txt' is not UTF-8: byte 0xef at position 2"):
        data[3]
    (folder / "1_9.txt").unlink()
    with pytest.raises(InputError, match=r"Cannot read .*1_9\.txt'"):
        data[3]
    (folder / "5_2.txt").write_text("bad")
    with pytest.raises(InputError, match=r"5_2\.txt.* 7 to 10"):
        open_dataset("imdb", path=tmp_path)
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(InputError, match="pos"):
        open_dataset("imdb", path=tmp_path)
    folder.rmdir()
    with pytest.raises(InputError, match="'pos'"):
        open_dataset("imdb", path=tmp_path)
    with pytest.raises(InputError, match=r"no file of the split 'test': expected .*aclImdb"):
        open_dataset("imdb", path=tmp_path / "aclImdb" / "test" / "neg")


def test_texts_of_your_own(tmp_path):
    spans = json.dumps([[8, 12], [2, 6]]).replace('"', '""')
    path = write_lines(
        tmp_path / "own.csv",
        "id,label,text,rationale,pair",
        f'a,good,"a fine, 😀film",{chr(34)}{spans}{chr(34)},',
        'b,bad,"two\nlines",[],"why ""so"""',
        "c,,unknown,,",
    )
    data = open_dataset(f"csv:{path}")
    assert data.class_names == ("bad", "good") and data.has_labels and data.has_rationales
    assert data[0] == TextSample("a", "a fine, 😀film", None, 1, ((2, 6), (8, 12)))
    assert data[1] == TextSample("b", "two\nlines", 'why "so"', 0, ())
    assert data[2] == TextSample("c", "unknown")
    assert copied(data).fingerprint() == data.fingerprint()
    assert data.fingerprint()["dataset"] == "csv"


def test_numbered_and_absent_labels(tmp_path):
    path = write_lines(tmp_path / "own.csv", "text,label", "x,3", "y,0")
    data = open_dataset(f"csv:{path}")
    assert data.class_names is None and [s.label for s in data] == [3, 0]
    assert [s.key for s in data] == ["000000", "000001"] and not data.has_rationales
    data = open_dataset(f"csv:{write_lines(path, 'text', 'x')}")
    assert not data.has_labels and data[0] == TextSample("000000", "x")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("sentence,label", "x,1"), r"columns 'sentence', 'label'; expected a header with text\["),
        (("text;label", "x;1"), r"columns 'text;label'; expected .* between commas"),
        (("text,text", "x,y"), "expected a header"),
        (("text,label",), None),
        (("text,label", "x"), "Line 2 of .* has 1 columns; expected 2: text . label"),
        (("text,id", "x,1", "y,2", "z,1"), "Line 4 of .*id '1'.*Line 2 of "),
        (("text,label", '"x,1', "y,0"), "line 2 of "),
        ((), None),
    ],
)
def test_damaged_files_of_your_own(tmp_path, lines, message):
    path = write_lines(tmp_path / "own.csv", *lines)
    with pytest.raises(InputError, match=message):
        open_dataset(f"csv:{path}")


@pytest.mark.parametrize(
    "rationale",
    ["[[0, 99]]", "[[2, 2]]", "[[-1, 2]]", "[[0, 2], [1, 3]]", "[[0]]", "0:2", "[[0, 1.5]]"],
)
def test_wrong_rationales_are_their_samples_error(tmp_path, rationale):
    path = write_lines(tmp_path / "own.csv", "text,rationale", "ok,", f'a film,"{rationale}"')
    data = open_dataset(f"csv:{path}")
    assert data[0].rationale is None
    with pytest.raises(InputError, match=r"Line 3 of .*rationale"):
        data[1]


def test_names_that_are_none(tmp_path):
    for name in ("sst", "sst2x#train", "csv:", "csv", "eraser", "reviews:PATH", "#train"):
        with pytest.raises(OptionError, match="Unknown data set"):
            open_dataset(name)
    with pytest.raises(OptionError, match="Did you mean 'semeval'"):
        open_dataset("semval")
    with pytest.raises(OptionError, match="path"):
        open_dataset("csv:x.csv", path=tmp_path)
    with pytest.raises(OptionError):
        open_dataset("csv:x.csv#train")
    with pytest.raises(OptionError):
        open_dataset("sst2", revision="main")
    with pytest.raises(MissingDataError, match=r"no file 'x\.csv'.*text\[,label\]"):
        open_dataset("csv:x.csv")


def test_the_table_and_the_doctor_list_them(tmp_path, monkeypatch):
    monkeypatch.setenv("XAI_IMDB", str(tmp_path))
    monkeypatch.delenv("XAI_YELP5", raising=False)
    table = datasets_table().set_index("name")
    assert table.loc["imdb", "present"] and not table.loc["yelp5", "present"]
    assert table.loc["movies", "evidence"] == "rationales" and table.loc["imdb", "kind"] == "text"
    states = dataset_states()
    assert "25,000 in the split test" in states["imdb"] and str(tmp_path) in states["imdb"]
    assert states["yelp5"].startswith("missing: XAI_YELP5 is not set")
