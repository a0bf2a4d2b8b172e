"""Evidence as ERASER (DeYoung et al., ACL 2020) annotates it: stretches of a document's words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xai_lib.datasets.base import TextDataset
from xai_lib.errors import InputError
from xai_lib.streams.words import Span, spaced_words_of


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


def annotation_of(data: TextDataset, index: int) -> Annotation:
    """Return a sample's ERASER annotation, made of its rationale where the data set has none.

    Each span of the rationale is then a group of its own, widened to whole words.
    """
    if hasattr(data, "annotation"):
        return data.annotation(index)
    sample = data[index]
    words = spaced_words_of(sample.text)
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
    words = spaced_words_of(text)
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
