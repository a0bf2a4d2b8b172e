"""Folders of images and ImageNet's validation set, whole and damaged."""

import numpy as np
import psutil
import pytest
from PIL import Image

from xai_lib.datasets import open_dataset
from xai_lib.datasets.images.imagenet_labels import DEVKIT, KAGGLE, META, WNIDS, class_index, wnids
from xai_lib.errors import InputError, MissingDataError

# Not in the devkit's order: its class 1 is the wnid n02119789, the sorted order's 278.
CHOSEN = ("n02119789", "n01440764", "n15075141", "n02123045", "n02119789", "n03995372")
EXPECTED = [278, 0, 999, 281, 278, 740]


def picture(path, seed=0, size=(24, 18)):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(array).save(path, quality=95)
    return array


@pytest.fixture
def animals(tmp_path):
    for seed, name in enumerate(
        ["dog/b.png", "dog/a.png", "cat/z.PNG", "cat/deep/y.png", "ant/x.jpg"]
    ):
        picture(tmp_path / "animals" / name, seed)
    (tmp_path / "animals" / "README.txt").write_text("about")
    (tmp_path / "animals" / "cat" / ".DS_Store").write_bytes(b"litter")
    return tmp_path / "animals"


@pytest.fixture
def flat(tmp_path):
    """ImageNet's validation images in one folder, without labels yet."""
    for number in range(1, len(CHOSEN) + 1):
        picture(tmp_path / "val" / f"ILSVRC2012_val_{number:08d}.JPEG", number)
    return tmp_path / "val"


def imagenet(path):
    return open_dataset("imagenet-val", path=path)


def labels(data):
    return [data[i].label for i in range(len(data))]


def test_class_folders_in_the_order_of_names(animals):
    data = open_dataset(f"folder:{animals}")
    assert data.class_names == ("ant", "cat", "dog") and data.has_labels and not data.has_masks
    keys = [data[i].key for i in range(len(data))]
    assert keys == ["ant/x.jpg", "cat/deep/y.png", "cat/z.PNG", "dog/a.png", "dog/b.png"]
    assert labels(data) == [0, 1, 1, 2, 2]
    expected = np.random.default_rng(1).integers(0, 256, (18, 24, 3), np.uint8)
    assert np.array_equal(data[3].image, expected) and data[3].mask is None
    assert data[-1].key == "dog/b.png"
    with pytest.raises(IndexError):
        data[5]


def test_flat_folder_has_no_labels(tmp_path):
    picture(tmp_path / "b.png")
    picture(tmp_path / "a.png")
    data = open_dataset(f"folder:{tmp_path}")
    assert [data[0].key, data[1].key] == ["a.png", "b.png"]
    assert data[0].label is None and not data.has_labels


def test_fingerprint_is_of_names_sizes_and_labels(animals, tmp_path):
    first = open_dataset(f"folder:{animals}").fingerprint()
    moved = tmp_path / "moved"
    animals.rename(moved)
    assert open_dataset(f"folder:{moved}").fingerprint() == first
    (moved / "ant" / "x.jpg").rename(moved / "ant" / "w.jpg")
    assert open_dataset(f"folder:{moved}").fingerprint() != first


def test_a_damaged_image_is_its_samples_error(animals):
    path = animals / "ant" / "x.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    (animals / "cat" / "z.PNG").write_text("not a picture")
    data = open_dataset(f"folder:{animals}")
    with pytest.raises(InputError, match=r"x\.jpg"):
        data[0]
    with pytest.raises(InputError, match=r"z\.PNG"):
        data[2]
    assert data[1].image.size == (24, 18)


def test_folders_that_are_refused(animals, tmp_path):
    with pytest.raises(MissingDataError):
        open_dataset(f"folder:{tmp_path / 'none'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        open_dataset(f"folder:{tmp_path / 'empty'}")
    (animals / "eel").mkdir()
    with pytest.raises(InputError, match="eel"):
        open_dataset(f"folder:{animals}")
    (animals / "eel" / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"notes\.txt"):
        open_dataset(f"folder:{animals}")
    (animals / "eel" / "notes.txt").unlink()
    picture(animals / "eel" / "e.png")
    picture(animals / "stray.png")
    with pytest.raises(InputError, match=r"stray\.png"):
        open_dataset(f"folder:{animals}")
    picture(tmp_path / "mixed" / "a.png")
    (tmp_path / "mixed" / "a.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.mp4"):
        open_dataset(f"folder:{tmp_path / 'mixed'}")


def test_imagenet_class_folders_have_the_models_index(tmp_path, monkeypatch):
    """The label is the wnid's place among all 1,000, not among the folders that are there."""
    for seed, wnid in enumerate(CHOSEN):
        picture(tmp_path / wnid / f"ILSVRC2012_val_{seed + 1:08d}.JPEG", seed)
    monkeypatch.setenv("XAI_IMAGENET_VAL", str(tmp_path))
    data = open_dataset("imagenet-val")
    assert len(data) == 6 and sorted(labels(data)) == sorted(EXPECTED)
    assert all(wnids()[data[i].label] == data[i].key.split("/")[0] for i in range(6))
    assert len(data.class_names) == 1000 and data.class_names[0].startswith("tench")
    (tmp_path / "n00000001").mkdir()
    with pytest.raises(InputError, match="n00000001"):
        imagenet(tmp_path)
    (tmp_path / "n00000001").rename(tmp_path / "n01443537")
    with pytest.raises(InputError, match="n01443537"):
        imagenet(tmp_path)


def test_imagenet_is_read_as_torchvision_does(tmp_path):
    """A photograph marked as turned stays as stored in imagenet-val, and is upright elsewhere."""
    from torchvision.datasets.folder import pil_loader

    from xai_lib.models.processors.image import Processor

    path = tmp_path / "n01440764" / "ILSVRC2012_val_00000293.JPEG"
    picture(path, size=(24, 18))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path, exif=exif, quality=95)
    theirs = pil_loader(str(path))
    ours = imagenet(tmp_path)[0].image
    assert ours.size == (24, 18) and np.array_equal(ours, theirs)
    squashed = Processor((18, 24), (0, 0, 0), (1, 1, 1)).squash(ours)
    assert np.array_equal((squashed * 255).round().permute(1, 2, 0), theirs)
    assert open_dataset(f"folder:{tmp_path}")[0].image.size == (18, 24)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(InputError, match="00000293"):
        imagenet(tmp_path)[0]
    data = imagenet(tmp_path)
    path.unlink()
    with pytest.raises(InputError, match="00000293"):
        data[0]


def test_the_thousand_wnids():
    assert len(wnids()) == len(set(wnids())) == 1000 and list(wnids()) == sorted(wnids())
    assert class_index()["n01440764"] == 0 and class_index()["n15075141"] == 999


def write_devkit(folder, numbers):
    """The devkit's pair: numbers of its own order, and meta.mat as MATLAB 5 struct array."""
    from scipy.io import savemat

    folder.mkdir(parents=True, exist_ok=True)
    (folder / DEVKIT).write_text("".join(f"{number}\n" for number in numbers))
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    order = ["n02119789", "n02123045", "n03995372", "n15075141", "n01440764"]
    rows = [(float(k), wnid, "some words", 0.0) for k, wnid in enumerate(order, 1)]
    # Inner nodes of the hierarchy follow the leaves; they are no classes.
    rows.append((6.0, "n00001740", "entity", 2.0))
    synsets = np.array(rows, kinds)[:, None]
    savemat(folder / META, {"synsets": synsets})


DEVKIT_NUMBERS = [1, 5, 4, 2, 1, 3]


@pytest.mark.parametrize("place", [".", "..", "../ILSVRC2012_devkit_t12/data"])
def test_devkit_numbers_are_translated_by_its_meta_file(flat, place):
    write_devkit(flat / place, DEVKIT_NUMBERS)
    assert labels(imagenet(flat)) == EXPECTED


def test_devkit_numbers_alone_are_refused(flat):
    """1 is n02119789 (index 278) in the devkit and would be goldfish in the sorted order."""
    (flat / DEVKIT).write_text("".join(f"{number}\n" for number in DEVKIT_NUMBERS))
    with pytest.raises(InputError, match=r"expected meta\.mat"):
        imagenet(flat)
    (flat / META).write_bytes(b"not a mat file" * 50)
    with pytest.raises(InputError):
        imagenet(flat)


def test_kaggles_csv_may_list_more_and_in_any_order(flat):
    rows = [f"ILSVRC2012_val_{k:08d},{w} 85 1 499 272" for k, w in enumerate(CHOSEN, 1)]
    rows.append("ILSVRC2012_val_00049999,n01440764 1 2 3 4 n01440764 5 6 7 8")
    (flat / KAGGLE).write_text("\n".join(["ImageId,PredictionString", *reversed(rows)]))
    assert labels(imagenet(flat)) == EXPECTED
    (flat / KAGGLE).write_text("\n".join(["ImageId,PredictionString", *rows[1:]]))
    with pytest.raises(InputError, match="00000001"):
        imagenet(flat)
    (flat / KAGGLE).write_text("ImageId,PredictionString\nILSVRC2012_val_00000001,\n")
    with pytest.raises(InputError, match="expected image,wnid"):
        imagenet(flat)


def test_wnid_lists_by_place_and_by_name(flat):
    (flat / WNIDS).write_text("\n".join(CHOSEN))
    assert labels(imagenet(flat)) == EXPECTED
    pairs = [f"ILSVRC2012_val_{k:08d}.JPEG {w}" for k, w in enumerate(CHOSEN, 1)]
    (flat / WNIDS).write_text("\n".join(reversed(pairs)))
    assert labels(imagenet(flat)) == EXPECTED
    (flat / WNIDS).write_text("\n".join([*pairs[:-1], "ILSVRC2012_val_00000006.JPEG 740"]))
    with pytest.raises(InputError, match="'740'"):
        imagenet(flat)
    (flat / WNIDS).write_text("\n".join([*CHOSEN[:-1], "n00001740"]))
    with pytest.raises(InputError, match="n00001740"):
        imagenet(flat)


@pytest.mark.parametrize("count", [5, 7, 0])
def test_a_ground_truth_of_another_length(flat, count):
    (flat / WNIDS).write_text("\n".join((CHOSEN * 2)[:count]))
    with pytest.raises(InputError, match=f"{count} lines for 6 images" if count else "is empty"):
        imagenet(flat)


def test_counted_labels_need_the_original_names(flat):
    (flat / WNIDS).write_text("\n".join(CHOSEN))
    (flat / "ILSVRC2012_val_00000006.JPEG").rename(flat / "ILSVRC2012_val_00000100.JPEG")
    with pytest.raises(InputError, match="ILSVRC2012_val_00000100"):
        imagenet(flat)


def test_missing_labels_and_missing_set(flat, monkeypatch):
    with pytest.raises(MissingDataError, match=f"no ground-truth file.*{DEVKIT}.*{META}"):
        imagenet(flat)
    monkeypatch.delenv("XAI_IMAGENET_VAL", raising=False)
    with pytest.raises(MissingDataError) as caught:
        open_dataset("imagenet-val")
    for part in ("image-net.org", "6,744,924,160 bytes", "XAI_IMAGENET_VAL", "path="):
        assert part in str(caught.value)
    assert "c7e06a6c0baccf06d8dbeb6577d71efff84673a5dbdd50633ab44f8ea0456ae0" in str(caught.value)


def test_a_foreign_file_among_the_flat_images(flat):
    (flat / WNIDS).write_text("\n".join(CHOSEN))
    (flat / "thesis.docx").write_bytes(b"x")
    with pytest.raises(InputError, match=r"thesis\.docx"):
        imagenet(flat)


def test_memory_stays_flat(tmp_path):
    """2,000 JPEGs of 300 x 300 (540 MB decoded): read in sequence within a few MB."""
    picture(tmp_path / "a" / "0000.jpg", size=(300, 300))
    content = (tmp_path / "a" / "0000.jpg").read_bytes()
    for number in range(1, 2000):
        (tmp_path / "a" / f"{number:04d}.jpg").write_bytes(content)
    data = open_dataset(f"folder:{tmp_path}")
    process = psutil.Process()
    for index in range(100):
        data[index]
    before = process.memory_info().rss
    for index in range(100, 2000):
        data[index]
    assert process.memory_info().rss - before < 40 * 2**20
