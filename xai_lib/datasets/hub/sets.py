"""Sets of the Hugging Face hub, of images or texts: their columns decide."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from xai_lib.datasets.hub.files import HubName, fetch_split
from xai_lib.datasets.hub.parquet import ParquetRows
from xai_lib.errors import needs_extra

if TYPE_CHECKING:
    from xai_lib.datasets.hub.images import HubImages
    from xai_lib.datasets.hub.texts import HubTexts


def open_hub(
    text: str, path: Path | None = None, revision: str | None = None
) -> HubImages | HubTexts:
    """Return the set of a name such as "hf:OWNER/NAME@REVISION#SPLIT", cached or from the hub.

    `path` is a local copy of the repository, used instead; `revision` the same as after "@". The
    split is by default the validation split, else the test split. A set with a column of images is
    of images, any other of texts.
    """
    needs_extra("data", "datasets")
    from xai_lib.datasets.hub.images import HubImages, image_columns
    from xai_lib.datasets.hub.texts import HubTexts

    name = HubName.parse(text, revision)
    rows = ParquetRows(str(name), fetch_split(name, path))
    return (HubImages if image_columns(rows.features) else HubTexts)(str(name), rows)
