"""`open_dataset`: a name to a data set; `datasets_table`: what names there are."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from xai_lib.datasets.base import ImageDataset
from xai_lib.datasets.missing import GTSEGS, IMAGENET_VAL, Source
from xai_lib.errors import OptionError, unknown_name

if TYPE_CHECKING:
    from pandas import DataFrame

_SOURCES = {source.name: source for source in (GTSEGS, IMAGENET_VAL)}
_EMBEDDED = ("scenes", "scenes-2", "digits")
_FORMS = ("folder:PATH", "hf:OWNER/NAME")


def open_dataset(
    name: str, *, path: str | os.PathLike | None = None, revision: str | None = None
) -> ImageDataset:
    """Return the data set `name`; samples are read when they are asked for.

    Embedded: "scenes" (10,000 scenes of one object that no model was trained on), "scenes-2" (two
    objects; sample i asks for object i % 2), "digits" (the 360 held-out ones). To be brought:
    "gtsegs" and "imagenet-val", at `path` or where XAI_GTSEGS and XAI_IMAGENET_VAL point. Any
    folder of images: "folder:PATH". Any image-classification set of the Hugging Face hub in
    parquet: "hf:OWNER/NAME", "hf:OWNER/NAME@REVISION", "hf:OWNER/NAME@REVISION#SPLIT" (default:
    the validation split, else test), or its local copy at `path`.

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
    if name not in (*_EMBEDDED, *_SOURCES) and not is_hub and not is_folder:
        raise unknown_name("data set", name, (*_EMBEDDED, *_SOURCES, *_FORMS))
    if revision is not None and not is_hub:
        raise OptionError(f"The data set {name!r} has no revisions; only hf:OWNER/NAME has.")
    if path is not None and not is_hub and name not in _SOURCES:
        raise OptionError(f"The data set {name!r} takes no path; {', '.join(_SOURCES)} and hf: do.")
    if is_hub:
        from xai_lib.datasets.hub_images import open_hub_images

        return open_hub_images(name, None if path is None else Path(path).expanduser(), revision)
    if is_folder:
        from xai_lib.datasets.folders import open_folder

        return open_folder(rest)
    if name in _SOURCES:
        return _open_source(_SOURCES[name], path)
    return _open_embedded(name)


def _open_source(source: Source, path: str | os.PathLike | None) -> ImageDataset:
    place = source.locate(path)
    if source is GTSEGS:
        from xai_lib.datasets.gtsegs import GtSegs

        return GtSegs(place)
    from xai_lib.datasets.imagenet import open_imagenet_val

    return open_imagenet_val(place)


def _open_embedded(name: str) -> ImageDataset:
    from xai_lib.datasets.generated import DigitImages, SceneImages

    if name == "digits":
        return DigitImages()
    return SceneImages(name, objects=2 if name == "scenes-2" else 1)


def datasets_table() -> DataFrame:
    """Return the known data sets: name, samples, labels, masks, present, where from.

    Nothing is opened: present says that something lies where the environment variable points.
    """
    import pandas as pd

    has_digits = find_spec("sklearn") is not None
    rows = [
        ("scenes", "10,000", "yes", "yes", True, "generated, seed never trained on"),
        ("scenes-2", "10,000", "yes", "yes", True, "generated; two objects, one is asked for"),
        ("digits", "360", "yes", "yes", has_digits, "bundled with scikit-learn, held-out part"),
    ]
    for source in _SOURCES.values():
        place = source.looked_for()
        present = place is not None and place.exists()
        rows.append(
            (
                source.name,
                f"{source.samples:,}",
                "yes",
                "yes" if source is GTSEGS else "no",
                present,
                f"{source.place}; point {source.variable} at the {source.kind}",
            )
        )
    rows += [
        ("folder:PATH", "any", "by class folder", "no", None, "your own images"),
        ("hf:OWNER/NAME", "any", "yes", "no", None, "Hugging Face hub; @REVISION, #SPLIT"),
    ]
    columns = ["name", "samples", "labels", "masks", "present", "where from"]
    return pd.DataFrame(rows, columns=columns)


def dataset_states() -> dict[str, str]:
    """Return for each known data set, in words, whether it is here and where it was looked for."""
    states = {}
    for row in datasets_table().itertuples(index=False):
        name, samples, present, origin = row[0], row[1], row[4], row[5]
        if name in _SOURCES:
            source = _SOURCES[name]
            place = source.looked_for()
            if place is None:
                states[name] = f"missing: {source.variable} is not set; from {source.place}"
            elif present:
                states[name] = f"present: {place} ({source.variable}); {samples} in the original"
            else:
                states[name] = f"missing: nothing at {place} ({source.variable})"
        elif present is not None:
            here = f"present: {samples} samples" if present else "missing"
            states[name] = f"{here}, {origin}"
    return states
