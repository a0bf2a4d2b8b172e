"""The ERASER benchmark's layout (DeYoung et al., ACL 2020): documents, labels and their evidence."""

from __future__ import annotations

from dataclasses import dataclass


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
    def spans(self) -> tuple[tuple[int, int], ...]:
        """Return the evidence as word spans (start, end), in order, of all groups, once each."""
        return tuple(sorted({(e.start, e.end) for group in self.evidences for e in group}))
