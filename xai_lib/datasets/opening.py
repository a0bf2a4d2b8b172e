"""`open_dataset`: a name to a data set; `datasets_table`: what names there are."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from xai_lib.datasets.missing import GTSEGS, IMAGENET_VAL, VQA2, Source
from xai_lib.datasets.texts.opening import TextName, open_text_set
from xai_lib.datasets.texts.sources import TEXT_SOURCES
from xai_lib.errors import OptionError, unknown_name

if TYPE_CHECKING:
    from pandas import DataFrame

    from xai_lib.datasets.base import ImageDataset, QuestionDataset, TextDataset

_IMAGE_SOURCES = {source.name: source for source in (GTSEGS, IMAGENET_VAL)}
_QUESTION_SOURCES = {VQA2.name: VQA2}
_SOURCES = _IMAGE_SOURCES | TEXT_SOURCES | _QUESTION_SOURCES
_IMAGES = ("scenes", "scenes-2", "attribute-scenes", "attribute-scenes-2", "digits")
_TEXTS = ("reviews", "reviews-5", "topics")
_QUESTIONS = ("questions",)
_FORMS = ("folder:PATH", "eraser:PATH", "csv:PATH", "hf:OWNER/NAME")


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
    kind, _, rest = name.partition(":")
    is_hub = kind == "hf" and bool(rest)
    is_folder = kind == "folder" and bool(rest)
    text = TextName.parse(name)
    question = None if text else TextName.parse(name, _QUESTION_SOURCES)
    embedded = (*_IMAGES, *_TEXTS, *_QUESTIONS)
    known = is_hub or is_folder or text or question
    if not (known or name in embedded or name in _IMAGE_SOURCES):
        raise unknown_name("data set", name, (*embedded, *_SOURCES, *_FORMS))
    if revision is not None and not is_hub:
        raise OptionError(f"The data set {name!r} has no revisions; only hf:OWNER/NAME has.")
    takes_path = is_hub or name in _IMAGE_SOURCES or question
    takes_path = takes_path or (text and text.kind in TEXT_SOURCES)
    if path is not None and not takes_path:
        raise OptionError(f"The data set {name!r} takes no path; {', '.join(_SOURCES)} and hf: do.")
    if is_hub:
        from xai_lib.datasets.hub.sets import open_hub

        return open_hub(name, None if path is None else Path(path).expanduser(), revision)
    if is_folder:
        from xai_lib.datasets.images.folders import open_folder

        return open_folder(rest)
    if text:
        return open_text_set(name, text, path)
    if question:
        return _open_questions(name, question, path)
    if name in _IMAGE_SOURCES:
        return _open_source(_IMAGE_SOURCES[name], path)
    return _open_embedded(name)


def _open_source(source: Source, path: str | os.PathLike | None) -> ImageDataset:
    place = source.locate(path)
    if source is GTSEGS:
        from xai_lib.datasets.images.gtsegs import GtSegs

        return GtSegs(place)
    from xai_lib.datasets.images.imagenet import open_imagenet_val

    return open_imagenet_val(place)


def _open_questions(text: str, name: TextName, path: str | os.PathLike | None) -> QuestionDataset:
    from xai_lib.datasets.questions.vqa import open_vqa

    if name.place is not None and path is not None:
        raise OptionError(f"{text!r} and path={os.fspath(path)!r} both say where it is.")
    source = _QUESTION_SOURCES[name.kind]
    return open_vqa(text, source.locate(name.place or path), name.split or source.split)


def _open_embedded(name: str) -> ImageDataset | TextDataset | QuestionDataset:
    if name in _QUESTIONS:
        from xai_lib.datasets.worlds.questions import GeneratedQuestions

        return GeneratedQuestions()
    if name in _TEXTS:
        from xai_lib.datasets.worlds.generated_texts import open_embedded_text

        return open_embedded_text(name)
    from xai_lib.datasets.worlds.generated import AttributeImages, DigitImages, SceneImages

    if name == "digits":
        return DigitImages()
    if name.startswith("attribute-scenes"):
        return AttributeImages(name, objects=2 if name.endswith("-2") else 1)
    return SceneImages(name, objects=2 if name == "scenes-2" else 1)


def datasets_table() -> DataFrame:
    """Return the known data sets: name, kind, samples, labels, evidence, present, where from.

    kind: image, text or question. samples: of the split that is opened where none is named.
    evidence: what says where in a sample the label's evidence lies. Nothing is opened: present says
    that something lies where the environment variable points.
    """
    import pandas as pd

    has_digits = find_spec("sklearn") is not None
    unseen, bundled = "generated, seed never trained on", "bundled with scikit-learn, held-out part"
    asked = {"-2": f"{unseen}; one of two objects is asked for"}
    rows = [
        (name, "image", "10,000", "yes", "masks", True, asked.get(name[-2:], unseen))
        for name in _IMAGES
        if name != "digits"
    ]
    rows.append(("digits", "image", "360", "yes", "masks", has_digits, bundled))
    rows += [(name, "text", "10,000", "yes", "rationales", True, unseen) for name in _TEXTS]
    both = "regions and rationales"
    rows += [(name, "question", "10,000", "yes", both, True, unseen) for name in _QUESTIONS]
    for source in _SOURCES.values():
        place = source.looked_for()
        rows.append(
            (
                source.name,
                source.modality,
                f"{source.samples:,}",
                "yes",
                source.evidence,
                place is not None and place.exists(),
                f"{source.place}; point {source.variable} at the {source.kind}",
            )
        )
    any_hub = "Hugging Face hub; @REVISION, #SPLIT"
    rows += [
        ("folder:PATH", "image", "any", "by class folder", "no", None, "your own images"),
        ("csv:PATH", "text", "any", "by column", "by column", None, "your own texts"),
        ("eraser:PATH", "text", "any", "yes", "rationales", None, "any set in ERASER's layout"),
        ("hf:OWNER/NAME", "image or text", "any", "yes", "by column", None, any_hub),
    ]
    columns = ["name", "kind", "samples", "labels", "evidence", "present", "where from"]
    return pd.DataFrame(rows, columns=columns)


def dataset_states() -> dict[str, str]:
    """Return for each known data set, in words, whether it is here and where it was looked for."""
    states = {}
    for row in datasets_table().to_dict("records"):
        name, samples, present = row["name"], row["samples"], row["present"]
        if name in _SOURCES:
            source = _SOURCES[name]
            place = source.looked_for()
            if place is None:
                states[name] = f"missing: {source.variable} is not set; from {source.place}"
            elif present:
                whose = f"split {source.split}" if source.split else "original"
                states[name] = f"present: {place} ({source.variable}); {samples} in the {whose}"
            else:
                states[name] = f"missing: nothing at {place} ({source.variable})"
        elif present is not None:
            here = f"present: {samples} samples" if present else "missing"
            states[name] = f"{here}, {row['where from']}"
    return states
