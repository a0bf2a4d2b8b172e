"""ERASER (DeYoung et al., ACL 2020): documents with labels, and the evidence for these."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from xai_lib.datasets.base import TextDataset, TextSample
from xai_lib.datasets.fingerprints import stated
from xai_lib.datasets.texts.eraser_documents import Documents, json_lines
from xai_lib.datasets.texts.records import Records
from xai_lib.errors import InputError, OptionError
from xai_lib.streams.words import Span, words_of

MOVIE_CLASSES = ("NEG", "POS")
_FILES = {"train": "train.jsonl", "validation": "val.jsonl", "test": "test.jsonl"}


@dataclass(frozen=True)
class Evidence:
    """One stretch of evidence: words start to end (exclusive) of the document's `split()`."""

    docid: str
    start: int
    end: int
    text: str = ""


@dataclass(frozen=True)
class Annotation:
    """What ERASER's scorer knows of one sample.

    annotation_id: unique in its split. docid: the document that is the sample's text.
    classification: the label as it was written. evidences: groups of stretches; each group alone
    is said to justify the label. query: the question asked of the document, or "".
    """

    annotation_id: str
    docid: str
    classification: str
    evidences: tuple[tuple[Evidence, ...], ...] = ()
    query: str = ""
    query_type: str | None = None

    @property
    def spans(self) -> tuple[Span, ...]:
        """Return the evidence in `docid` as word spans, in order, of all groups, once each."""
        found = {
            (e.start, e.end) for group in self.evidences for e in group if e.docid == self.docid
        }
        return tuple(sorted(found))


class EraserTexts(TextDataset):
    """One split of a data set in ERASER's layout; the key is the annotation's id.

    Words are `text.split()`, as Chefer et al. count them. The rationale is the words of all
    evidence groups. Where the split asks more than one query, the query is the sample's `pair`;
    where an annotation is of two documents, the second is. Documents are read when asked for;
    annotations are checked on opening, except that their spans lie within the document.

    class_names: the labels in order; None for those of all splits, sorted.
    """

    has_rationales = True

    def __init__(
        self,
        name: str,
        root: Path,
        split: str,
        class_names: tuple[str, ...] | None = None,
    ):
        self.name, self.root = name, root
        present = [key for key, file in _FILES.items() if (root / file).is_file()]
        if not present:
            raise InputError(
                f"{str(root)!r} has none of {', '.join(_FILES.values())}: it is not in ERASER's "
                "layout."
            )
        if split not in present:
            raise OptionError(f"{name!r} has no split {split!r}. It has: {', '.join(present)}.")
        self.documents = Documents(root)
        lines = Records(root / _FILES[split])
        self._digest = lines.digest
        self._second: dict[str, str] = {}
        self._annotations = tuple(self._read(line, place) for place, line in json_lines(lines))
        self._check_ids(lines)
        self.class_names = class_names or _labels(root / _FILES[key] for key in present)
        for number, annotation in enumerate(self._annotations):
            if annotation.classification not in self.class_names:
                raise InputError(
                    f"{lines.place(number)}: the classification {annotation.classification!r} is "
                    f"none of {', '.join(self.class_names)}."
                )
        self._asks = len({annotation.query for annotation in self._annotations}) > 1

    def __len__(self) -> int:
        return len(self._annotations)

    def __getitem__(self, index: int) -> TextSample:
        annotation = self._annotations[index]
        text = self.documents[annotation.docid]
        second = self._second.get(annotation.annotation_id)
        pair = self.documents[second] if second else annotation.query if self._asks else None
        return TextSample(
            annotation.annotation_id,
            text,
            pair or None,
            self.class_names.index(annotation.classification),
            rationale_of(annotation, text),
        )

    def annotation(self, index: int) -> Annotation:
        """Return what ERASER's scorer needs to know of a sample; its document is not read."""
        return self._annotations[index]

    def fingerprint(self) -> dict[str, str | int]:
        """Return number of samples, size and the digest of the annotations and documents' sizes."""
        digest, total = hashlib.sha256(self._digest.encode()), 0
        for file, size in self.documents.files():
            digest.update(f"{file}\0{size}\n".encode())
            total += size
        return stated(self.name, len(self), total, digest.hexdigest())

    def _read(self, line: dict, place: str) -> Annotation:
        label, key = line.get("classification"), line.get("annotation_id")
        if not isinstance(key, str) or not isinstance(label, str) or "evidences" not in line:
            raise InputError(
                f"{place}: expected 'annotation_id', 'classification' and 'evidences', it has "
                f"{', '.join(map(repr, line))}."
            )
        try:
            groups = tuple(
                tuple(
                    Evidence(e["docid"], e["start_token"], e["end_token"], str(e.get("text", "")))
                    for e in group
                )
                for group in line["evidences"] or ()
            )
        except (TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"{place}: its evidences are no list of lists of objects with 'docid', "
                "'start_token' and 'end_token'."
            ) from error
        stretches = [evidence for group in groups for evidence in group]
        for evidence in stretches:
            ends = evidence.start, evidence.end
            if not all(type(end) is int for end in ends) or not 0 <= ends[0] < ends[1]:
                raise InputError(
                    f"{place}: evidence from token {ends[0]!r} to {ends[1]!r} is no stretch of "
                    "words: expected 0 <= start_token < end_token."
                )
        # The movie reviews leave `docids` out: a review without evidence is named as its label is.
        named = [*(line.get("docids") or ()), *(evidence.docid for evidence in stretches)]
        docids = list(dict.fromkeys(named or [key]))
        for docid in docids:
            if docid not in self.documents:
                raise InputError(
                    f"{place}: the document {docid!r} of {key!r} is not in "
                    f"{str(self.documents.place)!r}."
                )
        if len(docids) > 2:
            raise InputError(f"{place}: {key!r} is of {len(docids)} documents; at most two can be.")
        if len(docids) == 2:
            self._second[key] = docids[1]
        query = line.get("query")
        query = query if isinstance(query, str) else ""
        return Annotation(key, docids[0], label, groups, query, line.get("query_type"))

    def _check_ids(self, lines: Records) -> None:
        seen = set()
        for number, annotation in enumerate(self._annotations):
            if annotation.annotation_id in seen:
                raise InputError(
                    f"{lines.place(number)}: the annotation_id {annotation.annotation_id!r} is "
                    "there a second time."
                )
            seen.add(annotation.annotation_id)


def annotation_of(data: TextDataset, index: int) -> Annotation:
    """Return a sample's ERASER annotation, made of its rationale where the data set has none.

    Each span of the rationale is then a group of its own, widened to whole words.
    """
    if hasattr(data, "annotation"):
        return data.annotation(index)
    sample = data[index]
    words = words_of(sample.text)
    groups = []
    for start, end in sample.rationale or ():
        inside = [n for n, (first, last) in enumerate(words) if first < end and last > start]
        if inside:
            stretch = Evidence(sample.key, inside[0], inside[-1] + 1, sample.text[start:end])
            groups.append((stretch,))
    names = data.class_names
    label = "" if sample.label is None else names[sample.label] if names else str(sample.label)
    return Annotation(sample.key, sample.key, label, tuple(groups))


def rationale_of(annotation: Annotation, text: str) -> tuple[Span, ...]:
    """Return the evidence's characters: spans of `text`, in order; touching stretches are one.

    Raises InputError for evidence that ends after the last word.
    """
    words = words_of(text)
    merged: list[list[int]] = []
    for start, end in annotation.spans:
        if end > len(words):
            raise InputError(
                f"The evidence of {annotation.annotation_id!r}, words {start} to {end}, lies "
                f"outside the document {annotation.docid!r}, which has {len(words)} words."
            )
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    return tuple((words[start][0], words[end - 1][1]) for start, end in merged)


def find_evidence(docid: str, text: str, stretches: Sequence[str]) -> tuple[Evidence, ...]:
    """Return where each stretch, known only by its words, first occurs in the text.

    The hub's copy of the movie reviews states evidence so. Raises InputError for one that does not
    occur.
    """
    words, found = text.split(), []
    for stretch in stretches:
        sought = stretch.split()
        starts = range(len(words) - len(sought) + 1) if sought else ()
        start = next((n for n in starts if words[n : n + len(sought)] == sought), None)
        if start is None:
            raise InputError(f"The evidence {stretch[:60]!r} of {docid!r} is not in its text.")
        found.append(Evidence(docid, start, start + len(sought), stretch))
    return tuple(found)


def _labels(files: Iterable[Path]) -> tuple[str, ...]:
    found = {line.get("classification") for file in files for _, line in json_lines(Records(file))}
    return tuple(sorted(label for label in found if isinstance(label, str)))
