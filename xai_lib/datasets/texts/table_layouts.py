"""The tables in which text data sets are published: file names, columns, separators, label maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

NEGATIVE_POSITIVE = ("negative", "positive")
THREE_CLASSES = ("negative", "neutral", "positive")
FIVE_CLASSES = ("very negative", "negative", "neutral", "positive", "very positive")


@dataclass(frozen=True)
class Layout:
    """One form of table.

    files: by split. columns: what each is, of "text", "pair", "label" and "" for others. header:
    its first line, None for none, () for one whose names differ between copies. form: "tsv"
    (nothing is quoted), "csv" (RFC 4180), "tree" (one a line) or "spaced" (the label, a space and
    the text). labels: the class of each label, or a function of it; None leaves the row out.
    newlines: the two characters backslash and n stand for a line's end.
    """

    files: Mapping[str, str]
    columns: tuple[str, ...] = ("text", "label")
    header: tuple[str, ...] | None = None
    form: str = "tsv"
    labels: Mapping[str, int] | Callable[[str], int | None] | None = None
    newlines: bool = False

    def described(self) -> str:
        """Return what a file of this layout looks like, for an error."""
        if self.form == "tree":
            return "one tree a line, as '(3 (2 It) (4 works))'"
        if self.form == "spaced":
            return "a label, a space and the text in each line"
        mark = "tabs" if self.form == "tsv" else "commas"
        names = self.header or [column or "..." for column in self.columns]
        head = "without a header" if self.header is None else "with a header"
        return f"{' | '.join(names)} between {mark}, {head}"


@dataclass(frozen=True)
class Task:
    """A data set of tables: its classes, and the layouts in which it is found."""

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


_GLUE = _splits("{}.tsv")
_GLUE_TEST = {"test": "test.tsv"}
_TWO_FILES = {"train": "train", "test": "test"}


def _wu_ong(name: str, labels, **options) -> Layout:
    """Return the tables that the code of Wu and Ong reads: text and label, any header."""
    files = _splits(f"{{}}_{name}.csv")
    return Layout(files, header=(), form="csv", labels=labels, **options)


def _yelp(name: str, classes: int) -> Task:
    # Zhang et al., NeurIPS 2015: classes count from 1, or are the stars from 1 to 5.
    released = Layout(
        _splits("{}.csv", **_TWO_FILES),
        ("label", "text"),
        form="csv",
        labels=_numbered(classes, 1),
        newlines=True,
    )
    names = NEGATIVE_POSITIVE if classes == 2 else ("1 star", *(f"{n} stars" for n in (2, 3, 4, 5)))
    return Task(names, (released, _wu_ong(name, _numbered(classes, 1))))


def _glue(columns: tuple[str, ...], header: tuple[str, ...], labels: dict[str, int]) -> Layout:
    return Layout(_GLUE, columns, header, labels=labels)


def _own(labels: dict[str, int]) -> tuple[Layout, Layout]:
    header = ("text", "label")
    table = Layout(_splits("{}.csv"), header=header, form="csv", labels=labels)
    return _glue(header, header, labels), table


_MRPC = ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String")
_PARAPHRASES = _splits("msr_paraphrase_{}.txt", **_TWO_FILES)
_TREES = _splits("{}.txt")
_POLARITY = {"negative": 0, "neutral": 1, "positive": 2}
_TWEETS = ("", "label", "text")
_THREE_OF_FIVE = {"0": 0, "1": 0, "2": 1, "3": 2, "4": 2}

TASKS = {
    "sst2": Task(
        NEGATIVE_POSITIVE,
        (
            _glue(("text", "label"), ("sentence", "label"), _numbered(2)),
            Layout(_GLUE_TEST, ("", "text"), ("index", "sentence")),
        ),
    ),
    "sst3": Task(
        THREE_CLASSES,
        (
            Layout(_TREES, form="tree", labels=_THREE_OF_FIVE),
            Layout(_splits("stsa.fine.{}"), form="spaced", labels=_THREE_OF_FIVE),
            *_own(_THREE_OF_FIVE),
            _wu_ong("SST", three_of_rating),
        ),
    ),
    "sst5": Task(
        FIVE_CLASSES,
        (
            Layout(_TREES, form="tree", labels=_numbered(5)),
            Layout(_splits("stsa.fine.{}"), form="spaced", labels=_numbered(5)),
            *_own(_numbered(5)),
        ),
    ),
    "imdb": Task(NEGATIVE_POSITIVE, (_wu_ong("IMDb", _numbered(2)),)),
    "semeval": Task(
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
            Layout(_splits("{}.tsv"), _TWEETS, labels=_POLARITY),
            Layout(_splits("{}.txt"), _TWEETS, labels=_POLARITY),
            _wu_ong("SemEval", _numbered(3)),
        ),
    ),
    "qnli": Task(
        ("entailment", "not_entailment"),
        (
            _glue(
                ("", "text", "pair", "label"),
                ("index", "question", "sentence", "label"),
                {"entailment": 0, "not_entailment": 1},
            ),
            Layout(_GLUE_TEST, ("", "text", "pair"), ("index", "question", "sentence")),
        ),
    ),
    "mrpc": Task(
        ("not_equivalent", "equivalent"),
        (
            _glue(("label", "", "", "text", "pair"), _MRPC, _numbered(2)),
            Layout(_PARAPHRASES, ("label", "", "", "text", "pair"), _MRPC, labels=_numbered(2)),
            Layout(_GLUE_TEST, ("", "", "", "text", "pair"), ("index", *_MRPC[1:])),
        ),
    ),
    "yelp2": _yelp("Yelp2", 2),
    "yelp5": _yelp("Yelp5", 5),
}
