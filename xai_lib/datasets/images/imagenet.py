"""The validation images of ImageNet ILSVRC 2012, in class folders or in one folder."""

from __future__ import annotations

from pathlib import Path

from xai_lib.datasets.images.folders import (
    ImageFiles,
    class_images,
    flat_images,
    is_image,
    split_entries,
)
from xai_lib.datasets.images.imagenet_labels import (
    DEVKIT_FOLDER,
    LABEL_FILES,
    META,
    class_index,
    class_names,
    find_label_file,
    read_labels,
)
from xai_lib.datasets.missing import Source
from xai_lib.datasets.registry import PATH, Asked, dataset
from xai_lib.errors import InputError

IMAGENET_VAL = Source(
    name="imagenet-val",
    title="ImageNet ILSVRC 2012, validation images",
    place="https://image-net.org/challenges/LSVRC/2012/ (with an account of your own)",
    archive="ILSVRC2012_img_val.tar",
    samples=50_000,
    script="fetch_imagenet_val.py",
    # As torchvision's prototype reader and others list them; not measured by us.
    sha256="c7e06a6c0baccf06d8dbeb6577d71efff84673a5dbdd50633ab44f8ea0456ae0",
    size=6_744_924_160,
)


def open_imagenet_val(path: Path) -> ImageFiles:
    """Return ImageNet's validation images (Russakovsky et al., IJCV 2015) with their class index.

    `path` holds a folder of images for each class, named by its wnid (n01440764 is class 0: the
    sorted order, whichever of the 1,000 are there), or all images ILSVRC2012_val_00000001.JPEG ...
    in one folder with a label file that `find_label_file` knows. Images are not turned by their
    EXIF orientation: torchvision's loader, with which the papers evaluate, does not.

    Raises InputError for a folder that is no wnid or is empty, for other files than images, and for
    labels that do not fit; MissingDataError where there is no label file.
    """
    if not path.is_dir():
        raise InputError(f"{str(path)!r} is no folder: expected the extracted validation images.")
    folders, files = split_entries(path)
    folders = [folder for folder in folders if folder != DEVKIT_FOLDER]
    if not folders:
        images = flat_images(path, [f for f in files if f not in (*LABEL_FILES, META)])
        labels = read_labels(find_label_file(path), images)
        return ImageFiles("imagenet-val", path, images, labels, class_names(), as_stored=True)
    for folder in folders:
        if folder not in class_index():
            raise InputError(
                f"The folder {str(path / folder)!r} is not named by a wnid of ILSVRC 2012, such as "
                "n01440764: give the folder that holds the class folders, and nothing else in it."
            )
    beside = next((file for file in files if is_image(file)), None)
    if beside is not None:
        raise InputError(f"{str(path / beside)!r} lies beside the class folders: in which class?")
    images, places = class_images(path, folders)
    labels = [class_index()[folders[place]] for place in places]
    return ImageFiles("imagenet-val", path, images, labels, class_names(), as_stored=True)


@dataset("imagenet-val", modality="image", takes=(PATH,), source=IMAGENET_VAL)
def open_here(asked: Asked) -> ImageFiles:
    """Return the validation images at path= or where XAI_IMAGENET_VAL points."""
    return open_imagenet_val(asked.locate())
