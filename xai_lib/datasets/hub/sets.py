"""Sets of the Hugging Face hub, of images or texts: their columns decide."""

from __future__ import annotations

from pathlib import Path

from xai_lib.datasets.hub.files import HubName, fetch_split
from xai_lib.datasets.hub.images import HubImages, image_columns
from xai_lib.datasets.hub.rows import HubRows
from xai_lib.datasets.hub.texts import HubTexts
from xai_lib.datasets.registry import PATH, PLACE, REVISION, Asked, dataset
from xai_lib.errors import needs_extra


@dataset(
    "hf",
    modality="image or text",
    evidence="by column",
    origin="Hugging Face hub; @REVISION, #SPLIT",
    takes=(PLACE, PATH, REVISION),
    form="hf:OWNER/NAME",
)
def open_hub(asked: Asked) -> HubImages | HubTexts:
    """Return the set of a name such as "hf:OWNER/NAME@REVISION#SPLIT", cached or from the hub.

    path= is a local copy of the repository, used instead; revision= the same as after "@". The
    split is by default the validation split, else the test split. A set with a column of images is
    of images, any other of texts.
    """
    needs_extra("data", "datasets")
    name = HubName.parse(asked.text, asked.revision)
    path = None if asked.path is None else Path(asked.path).expanduser()
    rows = HubRows(str(name), fetch_split(name, path))
    return (HubImages if image_columns(rows.features) else HubTexts)(str(name), rows)
