"""Data sets in ERASER's layout (DeYoung et al., ACL 2020): documents, labels, their evidence."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from xai_lib.datasets.base import TextDataset, TextSample
from xai_lib.datasets.fingerprints import stated
from xai_lib.datasets.missing import Source
from xai_lib.datasets.registry import PATH, PLACE, SPLIT, Asked, dataset, no_split
from xai_lib.datasets.texts.eraser import Annotation, Evidence, rationale_of
from xai_lib.datasets.texts.eraser_documents import Documents, json_lines
from xai_lib.datasets.texts.records import Records
from xai_lib.errors import InputError, MissingDataError

MOVIES = Source(
    "movies",
    "Movie Reviews with rationales, ERASER: DeYoung et al., ACL 2020",
    "https://www.eraserbenchmark.com/zipped/movies.tar.gz",
    199,
    "test",
)
MOVIE_CLASSES = ("NEG", "POS")
_FILES = {"train": "train.jsonl", "validation": "val.jsonl", "test": "test.jsonl"}


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
            raise no_split(name, split, present)
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


def _labels(files: Iterable[Path]) -> tuple[str, ...]:
    found = {line.get("classification") for file in files for _, line in json_lines(Records(file))}
    return tuple(sorted(label for label in found if isinstance(label, str)))


@dataset(
    "movies",
    modality="text",
    evidence="rationales",
    takes=(PLACE, SPLIT, PATH),
    source=MOVIES,
)
def open_movies(asked: Asked) -> EraserTexts:
    """Return the movie reviews in the folder that the name or path= gives, or XAI_MOVIES."""
    return _open(asked, asked.locate(), asked.chosen_split, MOVIE_CLASSES)


@dataset(
    "eraser",
    modality="text",
    evidence="rationales",
    origin="any set in ERASER's layout",
    takes=(PLACE, SPLIT),
    form="eraser:PATH",
)
def open_eraser(asked: Asked) -> EraserTexts:
    """Return the set in the folder that the name gives, by default its test split."""
    place = Path(asked.place).expanduser()
    if not place.is_dir():
        raise MissingDataError(
            f"There is no folder {str(place)!r}: give 'eraser:PATH' with docs/ or docs.jsonl "
            "and train.jsonl, val.jsonl or test.jsonl."
        )
    return _open(asked, place, asked.split or "test")


def _open(
    asked: Asked, place: Path, split: str, class_names: tuple[str, ...] | None = None
) -> EraserTexts:
    if not place.is_dir():
        raise InputError(f"{str(place)!r} is no folder: extract the archive, and give its folder.")
    # The archive holds one folder of this name.
    inner = place / asked.entry.name
    root = inner if (inner / "test.jsonl").is_file() else place
    return EraserTexts(asked.text, root, split, class_names)
