"""Tables of texts in the formats in which they are published, whole and damaged."""

import csv
import pickle
from pathlib import Path

import numpy as np
import pytest
from text_files import copied, write_lines

from xai_lib.datasets import open_dataset
from xai_lib.datasets.texts.imdb import IMDB
from xai_lib.datasets.texts.published import TABLES
from xai_lib.datasets.texts.records import Records
from xai_lib.datasets.texts.sentiment_trees import read_tree
from xai_lib.errors import InputError, MissingDataError, OptionError

SST2 = Path(__file__).parent.parent.parent / "shared" / "data" / "sst2"
TREE = "(3 (2 It) (4 (2 's) (4 (3 (2 a) (4 lovely)) (2 film))))"
MRPC = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"
YELP = ('"2","Good ""food"" , really .\\nWill return ."', '"1","No , never again"')

# Task, file, lines, split, and what the first and last sample must be: text, pair, label.
FORMATS = [
    (
        "sst2",
        "dev.tsv",
        ("sentence\tlabel", 'a "fine film \t1', "no\t0"),
        "validation",
        ('a "fine film ', None, 1),
        ("no", None, 0),
    ),
    (
        "sst2",
        "SST-2/test.tsv",
        ("index\tsentence", "0\tuneasy", "1\tdull ."),
        "test",
        ("uneasy", None, None),
        ("dull .", None, None),
    ),
    (
        "sst5",
        "trees/test.txt",
        (TREE, "(0 (2 -LRB-) (2 1\\/2\\*))"),
        "test",
        ("It 's a lovely film", None, 3),
        ("( 1/2*", None, 0),
    ),
    (
        "sst5",
        "test.tsv",
        ("text\tlabel", "ok\t2", "bad\t0"),
        "test",
        ("ok", None, 2),
        ("bad", None, 0),
    ),
    (
        "sst5",
        "dev.csv",
        ("text,label", '"ok , fine",3', "bad,0"),
        "dev",
        ("ok , fine", None, 3),
        ("bad", None, 0),
    ),
    (
        "sst5",
        "stsa.fine.test",
        ("4 so good .", "1 meh"),
        "test",
        ("so good .", None, 4),
        ("meh", None, 1),
    ),
    (
        "sst3",
        "train.txt",
        (TREE, "(1 (2 so) (1 so))"),
        "train",
        ("It 's a lovely film", None, 2),
        ("so so", None, 0),
    ),
    (
        "sst3",
        "dev.tsv",
        ("text\tlabel", "ok\t3", "bad\t1"),
        "dev",
        ("ok", None, 2),
        ("bad", None, 0),
    ),
    ("sst3", "stsa.fine.dev", ("2 a film", "1 meh"), "dev", ("a film", None, 1), ("meh", None, 0)),
    (
        "sst3",
        "test_SST.csv",
        ("sentence,score", "good,0.9", "left out,0.3", "plain,0.5", "left out,.7", "bad,0.2"),
        "test",
        ("good", None, 2),
        ("bad", None, 0),
    ),
    (
        "imdb",
        "test_IMDb.csv",
        ("review,sentiment", "good,1", '"bad\nfilm",0'),
        "test",
        ("good", None, 1),
        ("bad\nfilm", None, 0),
    ),
    (
        "semeval",
        "SemEval2017-task4-test.subtask-A.english.txt",
        ("801\tneutral\t\"What's up?\t", "802\tnegative\tno 😞", "802\tpositive\tyes"),
        "test",
        ("\"What's up?", None, 1),
        ("yes", None, 2),
    ),
    (
        "semeval",
        "dev.tsv",
        ("1\tpositive\tyes", "2\tnegative\tno"),
        "dev",
        ("yes", None, 2),
        ("no", None, 0),
    ),
    (
        "semeval",
        "train_SemEval.csv",
        ("t,l", "yes,2", "no,0"),
        "train",
        ("yes", None, 2),
        ("no", None, 0),
    ),
    (
        "qnli",
        "QNLI/dev.tsv",
        (
            "index\tquestion\tsentence\tlabel",
            '0\tWho "is?\tShe.\tentailment',
            "1\tWhat?\tIt.\tnot_entailment",
        ),
        "validation",
        ('Who "is?', "She.", 0),
        ("What?", "It.", 1),
    ),
    (
        "qnli",
        "test.tsv",
        ("index\tquestion\tsentence", "0\tWho?\tShe."),
        "test",
        ("Who?", "She.", None),
        ("Who?", "She.", None),
    ),
    (
        "mrpc",
        "dev.tsv",
        (MRPC, '1\t7\t8\t"One.\tTwo.', "0\t9\t10\tA.\tB."),
        "dev",
        ('"One.', "Two.", 1),
        ("A.", "B.", 0),
    ),
    (
        "mrpc",
        "msr_paraphrase_test.txt",
        ("\ufeff" + MRPC, "1\t7\t8\tOne.\tTwo."),
        "test",
        ("One.", "Two.", 1),
        ("One.", "Two.", 1),
    ),
    (
        "mrpc",
        "test.tsv",
        ("index" + MRPC[7:], "0\t7\t8\tOne.\tTwo."),
        "test",
        ("One.", "Two.", None),
        ("One.", "Two.", None),
    ),
    (
        "yelp2",
        "yelp_review_polarity_csv/test.csv",
        YELP,
        "test",
        ('Good "food" , really .\nWill return .', None, 1),
        ("No , never again", None, 0),
    ),
    ("yelp5", "train.csv", ('"5","Yes"', '"3","Hm"'), "train", ("Yes", None, 4), ("Hm", None, 2)),
    (
        "yelp5",
        "test_Yelp5.csv",
        ("text,label", "Yes,5", "No,1"),
        "test",
        ("Yes", None, 4),
        ("No", None, 0),
    ),
]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(("task", "file", "lines", "split", "first", "last"), FORMATS)
def test_formats(tmp_path, task, file, lines, split, first, last, end):
    path = write_lines(tmp_path / file, *lines, end=end)
    data = open_dataset(f"{task}#{split}", path=tmp_path)
    assert data.class_names == (TABLES | {"imdb": IMDB})[task].class_names
    for index, expected in ((0, first), (-1, last)):
        sample = data[index]
        assert (sample.text, sample.pair, sample.label) == expected
    assert data.has_labels == (first[2] is not None) and not data.has_rationales
    samples = [*data]
    assert len({sample.key for sample in samples}) == len(data)
    # The file alone, whose name says nothing, is recognised by its columns.
    other = path.rename(tmp_path / "data.bin")
    assert [*open_dataset(f"{task}:{other}")] == samples


def test_rows_that_the_rating_leaves_out_are_not_counted(tmp_path):
    ratings = [0, 0.2, 0.21, 0.39, 0.4, 0.6, 0.61, 0.8, 1]
    lines = [f"film {number},{rating}" for number, rating in enumerate(ratings)]
    write_lines(tmp_path / "test_SST.csv", "text,rating", *lines)
    data = open_dataset(f"sst3:{tmp_path}")
    assert [sample.label for sample in data] == [0, 0, 1, 1, 2, 2]
    assert [sample.text[-1] for sample in data] == list("014578")


def test_default_splits_are_the_labelled_ones(tmp_path, monkeypatch):
    for split, count in (("train", 3), ("dev", 2)):
        write_lines(tmp_path / f"{split}.tsv", "sentence\tlabel", *["x\t1"] * count)
    write_lines(tmp_path / "test.tsv", "index\tsentence", "0\tx")
    monkeypatch.setenv("XAI_SST2", str(tmp_path))
    assert [len(open_dataset(f"sst2{s}")) for s in ("", "#train", "#dev", "#test")] == [2, 3, 2, 1]
    with pytest.raises(OptionError, match=r"no split 'unseen'. It has: train, validation, test"):
        open_dataset("sst2#unseen")
    with pytest.raises(OptionError, match="leave '#train' away"):
        open_dataset("sst2#train", path=tmp_path / "train.tsv")
    (tmp_path / "dev.tsv").unlink()
    with pytest.raises(InputError, match=r"no file of the split 'validation': expected dev\.tsv"):
        open_dataset("sst2")
    monkeypatch.delenv("XAI_SST2")
    with pytest.raises(MissingDataError, match=r"SST-2\.zip.*XAI_SST2"):
        open_dataset("sst2")


def test_a_path_with_a_number_sign_is_not_a_split(tmp_path):
    path = write_lines(tmp_path / "data#train" / "dev.tsv", "sentence\tlabel", "x\t1")
    assert len(open_dataset(f"sst2:{path.parent}")) == 1
    assert len(open_dataset(f"sst2:{path.parent}#dev")) == 1


@pytest.mark.parametrize(
    ("task", "file", "lines", "message"),
    [
        ("sst2", "dev.tsv", ("text\tscore", "x\t1"), r"expected sentence \| label between tabs"),
        ("sst2", "dev.tsv", ("sentence,label", "x,1"), "begins with 'sentence,label'"),
        ("qnli", "dev.tsv", ("index\tsentence", "0\tx"), r"index \| question \| sentence \| label"),
        ("mrpc", "dev.tsv", ("Quality\tA\tB", "0\tx\ty"), r"Quality \| #1 ID \| #2 ID"),
        ("semeval", "test.tsv", ("1\tgood\tx",), r"\.\.\. \| label \| text between tabs, without"),
        ("yelp5", "test.csv", ('"9","x"',), r"label \| text between commas, without a header"),
        ("sst5", "test.txt", ("a film", "b"), "one tree a line"),
        # Without a header, the first row would be taken for one and lost.
        ("imdb", "test_IMDb.csv", ('"good, really",1', "bad,0"), "between commas, with a header"),
        ("sst3", "test_SST.csv", ("good,0.9", "bad,0.1"), "between commas, with a header"),
        ("sst2", "dev.tsv", ("sentence\tlabel",), None),
        ("sst2", "dev.tsv", (), None),
        ("sst2", "dev.tsv", ("", " "), None),
        (
            "yelp5",
            "test.csv",
            ('"1","x"', '"2","never closes', '"3","y"', '"4","z"'),
            "line 2 of .*never closes",
        ),
        ("sst3", "test_SST.csv", ("text,score", "x,1.4"), r"label '1\.4'; expected a rating"),
        ("sst3", "test_SST.csv", ("text,score", "x,0.3"), "label"),
    ],
)
def test_wrong_files_are_found_on_opening(tmp_path, task, file, lines, message):
    write_lines(tmp_path / file, *lines)
    split = Path(file).stem.partition("_")[0]
    with pytest.raises(InputError, match=message):
        open_dataset(f"{task}#{split}", path=tmp_path)


@pytest.mark.parametrize(
    ("task", "file", "line", "message"),
    [
        ("sst2", "dev.tsv", "x\t2", "'2'; expected one of 0, 1"),
        ("sst2", "dev.tsv", "x", "has 1 columns; expected 2: sentence . label"),
        ("sst2", "dev.tsv", "x\t1\ty", "has 3 columns; expected 2"),
        ("sst2", "dev.tsv", " \t1", "has no text"),
        ("sst5", "dev.csv", '"a" b,1', "is no row of a CSV file"),
    ],
)
def test_damaged_rows_are_their_samples_error_with_the_line(tmp_path, task, file, line, message):
    head = ("sentence\tlabel", "ok\t1") if task == "sst2" else ("text,label", "ok,1")
    write_lines(tmp_path / file, *head, "", line, head[1])
    data = open_dataset(f"{task}#dev", path=tmp_path)
    assert len(data) == 3 and data[0].label == data[2].label == 1
    with pytest.raises(InputError, match=f"Line 4 of .*({message})"):
        data[1]


def test_encodings_that_cannot_be_read_are_named_by_file_and_byte(tmp_path):
    path = tmp_path / "dev.tsv"
    path.write_bytes(b"sentence\tlabel\nna\xefve film\t1\n")
    with pytest.raises(InputError, match=r"dev\.tsv' is not UTF-8: byte 0xef at position 17"):
        open_dataset("sst2", path=tmp_path)
    path.write_text("sentence\tlabel\nx\t1\n", encoding="utf-16")
    with pytest.raises(InputError, match="byte 0xff at position 0"):
        open_dataset("sst2", path=tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("(3 (2 It) (4 works)", "1 of its parentheses do not close"),
        ("(3 (2 It) (4 works", "2 of its parentheses do not close"),
        ("(3 (2 It)) (4 works)", None),
        ("(3 (2 It)))", None),
        ("", None),
        ("word", None),
        ("((2 It))", "has no label"),
        ("(3 )", None),
        ("(good (2 It))", "label 'good'"),
    ],
)
def test_damaged_trees(line, message):
    with pytest.raises(InputError, match=message):
        read_tree(line, "Line 1")


def test_a_damaged_tree_is_its_samples_error(tmp_path):
    write_lines(tmp_path / "test.txt", TREE, TREE[:-2], TREE)
    data = open_dataset(f"sst5:{tmp_path}")
    with pytest.raises(InputError, match=r"Line 2 of .*2 of its parentheses do not close"):
        data[1]
    assert data[2].label == 3


def test_records_agree_with_the_csv_module(tmp_path):
    """Quoted line ends, doubled quotes, empty lines and a byte order mark, drawn at random."""
    draw = np.random.default_rng(0)
    pieces = ["a", '"', "\n", ",", "é", " ", "\\n", "b\tc"]
    rows = [["text", "label"]]
    rows += [["x" + "".join(draw.choice(pieces, 6)), str(n % 2)] for n in range(200)]
    path = tmp_path / "test_IMDb.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    assert len(Records(path, quoted=True)) == 201
    data = open_dataset(f"imdb:{tmp_path}")
    assert [(s.text, str(s.label)) for s in data] == [tuple(row) for row in rows[1:]]


def test_long_fields_pickling_and_fingerprints(tmp_path):
    path = write_lines(tmp_path / "test.csv", '"1","short"', f'"2","{"long text " * 30_000}"')
    data = copied(open_dataset(f"yelp2:{tmp_path}"))
    assert len(data[1].text) == 300_000 and len(pickle.dumps(data)) < 5_000
    moved = path.rename(tmp_path / "other.csv")
    assert open_dataset(f"yelp2:{moved}").fingerprint() == data.fingerprint()
    write_lines(moved, '"1","short"', '"2","other"')
    assert open_dataset(f"yelp2:{moved}").fingerprint() != data.fingerprint()


@pytest.mark.skipif(not SST2.is_dir(), reason="the real SST-2 is not beside this checkout")
def test_the_real_sst2():
    """Against pandas, which reads the same columns."""
    import pandas as pd

    for split, file, count in (
        ("train", "train", 67_349),
        ("dev", "dev", 872),
        ("test", "test", 1821),
    ):
        data = open_dataset(f"sst2:{SST2}#{split}")
        theirs = pd.read_csv(SST2 / f"{file}.tsv", sep="\t", quoting=csv.QUOTE_NONE)
        assert len(data) == len(theirs) == count
        assert [data[i].text for i in range(0, count, 97)] == [*theirs["sentence"][::97]]
        if split != "test":
            assert [data[i].label for i in range(0, count, 97)] == [*theirs["label"][::97]]
        else:
            assert not data.has_labels and data[0].label is None
