"""Verify and extract ImageNet's validation images, which a user downloads with an own account.

    python data_scripts/fetch_imagenet_val.py ILSVRC2012_img_val.tar \\
        --devkit ILSVRC2012_devkit_t12.tar.gz --out data/imagenet-val

Both archives are on https://image-net.org/challenges/LSVRC/2012/ and are checked against the MD5
sums that torchvision publishes. `--layout folders` makes one folder a class; `flat` keeps one
folder, with the ground truth beside the images. Without the devkit, `--labels` takes another label
file that `open_dataset("imagenet-val")` reads.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
from fetching import GIB, FetchError, expect, extract, new_folder

from xai_lib.datasets.images.imagenet import IMAGENET_VAL, open_imagenet_val
from xai_lib.datasets.images.imagenet_labels import (
    DEVKIT,
    DEVKIT_FOLDER,
    KAGGLE,
    META,
    WNIDS,
    wnids,
)
from xai_lib.errors import XAIError

ARCHIVE_MD5 = "29b22e2961454d5413ddabcf34fc5622"
DEVKIT_MD5 = "fa75699e90414af021442c21a62c3abf"


def image_place(name: str) -> str | None:
    """Return the file name of a validation image of the archive, None for anything else."""
    file = name.rpartition("/")[2]
    return file if file.startswith("ILSVRC2012_val_") and file.endswith(".JPEG") else None


def devkit_place(name: str) -> str | None:
    """Return the file name of the ground truth and of the class list in the devkit, else None."""
    wanted = {f"{DEVKIT_FOLDER}/data/{file}": file for file in (DEVKIT, META)}
    return wanted.get(name.removeprefix("./"))


def sort_into_folders(flat: Path) -> None:
    """Move the images of an extracted folder into one folder a class, by their labels."""
    images = open_imagenet_val(flat)
    for index in range(len(images)):
        file, label = images.entry(index)
        (flat / wnids()[label]).mkdir(exist_ok=True)
        (flat / file).rename(flat / wnids()[label] / file)
    for path in flat.iterdir():
        if path.is_file():
            path.unlink()


def main(
    archive: Annotated[Path, typer.Argument(help="ILSVRC2012_img_val.tar")],
    devkit: Annotated[Path | None, typer.Option(help="ILSVRC2012_devkit_t12.tar.gz")] = None,
    labels: Annotated[Path | None, typer.Option(help="another label file")] = None,
    out: Annotated[Path, typer.Option(help="folder to make")] = Path("data/imagenet-val"),
    layout: Annotated[str, typer.Option(help="folders or flat")] = "flat",
    md5: Annotated[str, typer.Option(help="expected of the archive")] = ARCHIVE_MD5,
    devkit_md5: Annotated[str, typer.Option(help="expected of the devkit")] = DEVKIT_MD5,
    samples: Annotated[int, typer.Option(help="expected images")] = IMAGENET_VAL.samples,
):
    """Check the archives, extract them into a new folder, and open the result."""
    try:
        if layout not in ("folders", "flat"):
            raise FetchError(f"--layout {layout}: give folders or flat.")
        if (devkit is None) == (labels is None):
            raise FetchError("The images have no labels in them: give one of --devkit, --labels.")
        if labels is not None and (labels.name not in (KAGGLE, WNIDS) or not labels.is_file()):
            raise FetchError(f"--labels {labels}: expected an existing {KAGGLE} or {WNIDS}.")
        expect(archive, "md5", md5)
        with new_folder(out) as folder:
            if devkit is not None:
                expect(devkit, "md5", devkit_md5)
                extract(devkit, folder, devkit_place, count=2, size=GIB)
            else:
                shutil.copyfile(labels, folder / labels.name)
            found = extract(archive, folder, image_place, count=samples, size=GIB // 8)
            if found != samples:
                raise FetchError(f"{archive} has {found} images, expected {samples}.")
            if layout == "folders":
                sort_into_folders(folder)
            open_imagenet_val(folder)
    except (FetchError, XAIError, OSError) as error:
        print(f"fetch_imagenet_val: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    print(f"{out}: {found:,} images")
    print(f"export {IMAGENET_VAL.variable}={out.resolve()}")


if __name__ == "__main__":
    typer.run(main)
