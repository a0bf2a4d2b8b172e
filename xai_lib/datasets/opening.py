"""`open_dataset`: a name to a data set; `datasets_table`: what names there are."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from xai_lib.datasets.registry import PATH, REVISION, entries, parse_name
from xai_lib.errors import OptionError, unknown_name

if TYPE_CHECKING:
    from pandas import DataFrame

    from xai_lib.datasets.base import ImageDataset, QuestionDataset, TextDataset
    from xai_lib.datasets.registry import Entry


def open_dataset(
    name: str, *, path: str | os.PathLike | None = None, revision: str | None = None
) -> ImageDataset | TextDataset | QuestionDataset:
    """Return the data set `name`; samples are read when they are asked for.

    Images, embedded: "scenes" (10,000 scenes of one object that no model was trained on),
    "scenes-2" (two objects; sample i asks for object i % 2), "attribute-scenes" and
    "attribute-scenes-2" (the same with plain objects of 8 shapes in 8 colours, for `clip-scenes`),
    "digits" (the 360 held-out ones). To be brought: "gtsegs" and "imagenet-val", at `path` or where
    XAI_GTSEGS and XAI_IMAGENET_VAL point. Any folder of images: "folder:PATH".

    Texts, embedded: "reviews", "reviews-5" and "topics", none of them trained on. To be brought:
    "movies" (ERASER), "20newsgroups", "sst2", "sst3", "sst5", "imdb", "semeval", "qnli", "mrpc",
    "yelp2", "yelp5", in the folder `path`, as in "sst2:PATH", or where XAI_MOVIES, ... point;
    "#train", "#validation" or "#test" after the name choose the split. Any data set in ERASER's
    layout: "eraser:PATH#SPLIT". Your own texts: "csv:PATH" with the header
    text[,label][,pair][,rationale][,id].

    Questions on images, embedded: "questions" (10,000 on the regions of scenes of six objects). To
    be brought: "vqa2", in the folder `path`, as in "vqa2:PATH", or where XAI_VQA2 points, with the
    files that `vqa.open_vqa` names; "#validation" (the default), "#protocol" (10,000 of them, seed
    1234, as published), "#train", "#minival" and "#nominival".

    Any image- or text-classification set of the Hugging Face hub in parquet: "hf:OWNER/NAME",
    "hf:OWNER/NAME@REVISION", "hf:OWNER/NAME@REVISION#SPLIT" (default: the validation split, else
    test), or its local copy at `path`; its columns say whether it is of images or texts.

    Raises OptionError for unknown names and options that do not apply, MissingDataError for data
    that is not there, InputError for data that is damaged as far as opening can see.

    >>> open_dataset("scenes")[0].mask.shape
    torch.Size([96, 96])
    """
    if not isinstance(name, str):
        raise OptionError(f"name is {name!r}; expected the name of a data set, as text.")
    asked = parse_name(name, path, revision)
    if asked is None:
        raise unknown_name("data set", name, [entry.form for entry in entries().values()])
    takes = asked.entry.takes
    if revision is not None and REVISION not in takes:
        raise OptionError(f"The data set {name!r} has no revisions; only hf:OWNER/NAME has.")
    if path is not None and PATH not in takes:
        known = ", ".join(entry.form for entry in entries().values() if PATH in entry.takes)
        raise OptionError(f"The data set {name!r} takes no path; {known} do.")
    return asked.entry.open(asked)


def datasets_table() -> DataFrame:
    """Return the known data sets: name, kind, samples, labels, evidence, present, where from.

    kind: image, text or question. samples: of the split that is opened where none is named.
    evidence: what says where in a sample the label's evidence lies. Nothing is opened: present says
    that something lies where the environment variable points.
    """
    import pandas as pd

    rows = [
        (e.form, e.modality, _count(e), e.labels, e.evidence, e.is_here(), e.origin)
        for e in entries().values()
    ]
    columns = ["name", "kind", "samples", "labels", "evidence", "present", "where from"]
    return pd.DataFrame(rows, columns=columns)


def dataset_states() -> dict[str, str]:
    """Return for each known data set, in words, whether it is here and where it was looked for."""
    return {
        name: entry.source.state() if entry.source else _state(entry)
        for name, entry in entries().items()
        if entry.is_here() is not None
    }


def _state(entry: Entry) -> str:
    here = f"present: {_count(entry)} samples" if entry.is_here() else "missing"
    return f"{here}, {entry.origin}"


def _count(entry: Entry) -> str:
    return f"{entry.samples:,}" if isinstance(entry.samples, int) else entry.samples
