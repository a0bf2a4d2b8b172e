"""The text data sets that are published as tables: a row of facts for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from xai_lib.datasets.missing import Source
from xai_lib.datasets.registry import PATH, PLACE, SPLIT, Asked, dataset, no_split
from xai_lib.datasets.texts.records import Records, first_record
from xai_lib.datasets.texts.table import Layout, Table
from xai_lib.errors import InputError, OptionError

NEGATIVE_POSITIVE = ("negative", "positive")
THREE_CLASSES = ("negative", "neutral", "positive")
FIVE_CLASSES = ("very negative", "negative", "neutral", "positive", "very positive")
# Folders that the archives of these sets unpack to, beside the place itself.
_INSIDE = (
    ".",
    "trees",
    "SST-2",
    "QNLI",
    "MRPC",
    "yelp_review_polarity_csv",
    "yelp_review_full_csv",
)
# The archive of the sentiment treebank holds both of its tasks.
_TREEBANK = "https://nlp.stanford.edu/sentiment/trainDevTestTrees_PTB.zip"
_SOCHER = "Socher et al., EMNLP 2013"
_GLUE = "GLUE: Wang et al., ICLR 2019"
_GLUE_FILES = "https://dl.fbaipublicfiles.com/glue/data/{}.zip"


@dataclass(frozen=True)
class Published:
    """A data set of tables: where it comes from, its classes, the layouts in which it is found."""

    source: Source
    class_names: tuple[str, ...]
    layouts: tuple[Layout, ...]


def _numbered(classes: int, start: int = 0) -> dict[str, int]:
    return {str(number + start): number for number in range(classes)}


def three_of_rating(rating: str) -> int | None:
    """Return the class of three for a rating in [0, 1], as Wu and Ong's code cuts it, or None.

    Negative up to 0.2, neutral from 0.4 to 0.6, positive from 0.8; what lies between is left out.
    Raises ValueError for what is no such rating.
    """
    value = float(rating)
    if not 0 <= value <= 1:
        raise ValueError(rating)
    bounds = ((0.0, 0.2), (0.4, 0.6), (0.8, 1.0))
    return next((n for n, (low, high) in enumerate(bounds) if low <= value <= high), None)


def _splits(pattern: str, **words: str) -> dict[str, str]:
    words = words or {"train": "train", "validation": "dev", "test": "test"}
    return {split: pattern.format(word) for split, word in words.items()}


_TSV, _TSV_TEST = _splits("{}.tsv"), {"test": "test.tsv"}
_TWO_FILES = {"train": "train", "test": "test"}


def wu_ong(name: str, labels) -> Layout:
    """Return the tables that the code of Wu and Ong reads: text and label, any header."""
    return Layout(_splits(f"{{}}_{name}.csv"), header=(), form="csv", labels=labels)


def _treebank(labels: Mapping[str, int]) -> tuple[Layout, ...]:
    """Return the forms of the sentiment treebank: trees, Kim's lines, and tables of one's own."""
    own = ("text", "label")
    return (
        Layout(_splits("{}.txt"), form="tree", labels=labels),
        Layout(_splits("stsa.fine.{}"), form="spaced", labels=labels),
        Layout(_TSV, own, own, labels=labels),
        Layout(_splits("{}.csv"), own, own, "csv", labels),
    )


def _yelp(classes: int, archive: str, samples: int, names: tuple[str, ...]) -> Published:
    # Classes count from 1, or are the stars from 1 to 5.
    labels = _numbered(classes, 1)
    files = _splits("{}.csv", **_TWO_FILES)
    released = Layout(files, ("label", "text"), form="csv", labels=labels, newlines=True)
    return Published(
        Source(
            f"yelp{classes}",
            f"Yelp in {'two' if classes == 2 else 'five'} classes, Zhang, Zhao and LeCun, NeurIPS "
            "2015",
            f"https://s3.amazonaws.com/fast-ai-nlp/{archive}.tgz",
            samples,
            "test",
        ),
        names,
        (released, wu_ong(f"Yelp{classes}", labels)),
    )


_MRPC = ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String")
_MRPC_COLUMNS = ("label", "", "", "text", "pair")
_TWEETS = ("", "label", "text")
_POLARITY = {"negative": 0, "neutral": 1, "positive": 2}
_THREE_OF_FIVE = {"0": 0, "1": 0, "2": 1, "3": 2, "4": 2}

# samples: in the split that is opened where none is named, the labelled one the papers report on.
PUBLISHED = (
    Published(
        Source("sst2", f"SST-2, {_GLUE}", _GLUE_FILES.format("SST-2"), 872, "validation"),
        NEGATIVE_POSITIVE,
        (
            Layout(_TSV, header=("sentence", "label"), labels=_numbered(2)),
            Layout(_TSV_TEST, ("", "text"), ("index", "sentence")),
        ),
    ),
    Published(
        Source("sst3", f"SST in three classes, {_SOCHER}", _TREEBANK, 2210, "test"),
        THREE_CLASSES,
        (*_treebank(_THREE_OF_FIVE), wu_ong("SST", three_of_rating)),
    ),
    Published(
        Source("sst5", f"SST in five classes, {_SOCHER}", _TREEBANK, 2210, "test"),
        FIVE_CLASSES,
        _treebank(_numbered(5)),
    ),
    Published(
        Source(
            "semeval",
            "Tweets, SemEval-2017 task 4 A: Rosenthal et al., 2017",
            "https://alt.qcri.org/semeval2017/task4/",
            12_284,
            "test",
            archive="the English files of subtask A",
        ),
        THREE_CLASSES,
        (
            Layout(
                {
                    "train": "twitter-2016train-A.txt",
                    "validation": "twitter-2016dev-A.txt",
                    "test": "SemEval2017-task4-test.subtask-A.english.txt",
                },
                _TWEETS,
                labels=_POLARITY,
            ),
            Layout(_TSV, _TWEETS, labels=_POLARITY),
            Layout(_splits("{}.txt"), _TWEETS, labels=_POLARITY),
            wu_ong("SemEval", _numbered(3)),
        ),
    ),
    Published(
        Source("qnli", f"QNLI, {_GLUE}", _GLUE_FILES.format("QNLIv2"), 5463, "validation"),
        ("entailment", "not_entailment"),
        (
            Layout(
                _TSV,
                ("", "text", "pair", "label"),
                ("index", "question", "sentence", "label"),
                labels={"entailment": 0, "not_entailment": 1},
            ),
            Layout(_TSV_TEST, ("", "text", "pair"), ("index", "question", "sentence")),
        ),
    ),
    Published(
        Source(
            "mrpc",
            f"MRPC: Dolan and Brockett 2005, in {_GLUE}",
            "https://www.microsoft.com/en-us/download/details.aspx?id=52398",
            408,
            "validation",
            archive="the paraphrase corpus (msr_paraphrase_test.txt, split 'test', or GLUE's TSV)",
        ),
        ("not_equivalent", "equivalent"),
        (
            Layout(_TSV, _MRPC_COLUMNS, _MRPC, labels=_numbered(2)),
            Layout(
                _splits("msr_paraphrase_{}.txt", **_TWO_FILES),
                _MRPC_COLUMNS,
                _MRPC,
                labels=_numbered(2),
            ),
            Layout(_TSV_TEST, ("", *_MRPC_COLUMNS[1:]), ("index", *_MRPC[1:])),
        ),
    ),
    _yelp(2, "yelp_review_polarity_csv", 38_000, NEGATIVE_POSITIVE),
    _yelp(5, "yelp_review_full_csv", 50_000, ("1 star", *(f"{n} stars" for n in (2, 3, 4, 5)))),
)


def open_table(asked: Asked, published: Published, hint: str = "") -> Table:
    """Return the split that is asked for, in the folder where the set lies, or the file.

    hint: what else was looked for, for errors. Raises OptionError for a split that is named beside
    a single file, of which no split is known, or of which there is none; InputError where a split
    has no file, or one of another form.
    """
    place, split = asked.locate(), asked.chosen_split
    if place.is_file():
        if asked.split is not None:
            raise OptionError(f"{asked.text!r}: {str(place)!r} is one file; leave '#{split}' away.")
        return _recognised(asked.text, place, published.layouts, published.class_names)
    layouts = [layout for layout in published.layouts if split in layout.files]
    if not layouts:
        every = dict.fromkeys(key for layout in published.layouts for key in layout.files)
        raise no_split(asked.text, split, every)
    for folder in _INSIDE:
        for layout in layouts:
            path = place / folder / layout.files[split]
            if path.is_file():
                alike = tuple(x for x in layouts if x.files[split] == path.name)
                return _recognised(asked.text, path, alike, published.class_names)
    names = dict.fromkeys(layout.files[split] for layout in layouts)
    raise InputError(
        f"{str(place)!r} has no file of the split {split!r}: expected {' or '.join(names)}{hint}."
    )


def _recognised(
    name: str, path: Path, layouts: tuple[Layout, ...], class_names: tuple[str, ...]
) -> Table:
    """Return the table by the first layout that the file's first record fits."""
    first = ""
    for layout in layouts:
        first = first_record(path, layout.quoted)
        if layout.fits(first):
            return Table(name, Records(path, layout.quoted), layout, class_names)
    described = "; or ".join(dict.fromkeys(layout.described() for layout in layouts))
    raise InputError(
        f"{str(path)!r} has other columns than its data set: expected {described}. It begins with "
        f"{first[:80]!r}."
    )


TABLES = {published.source.name: published for published in PUBLISHED}


def _open(asked: Asked) -> Table:
    return open_table(asked, TABLES[asked.entry.name])


for _name, _published in TABLES.items():
    dataset(_name, modality="text", takes=(PLACE, SPLIT, PATH), source=_published.source)(_open)
