"""Region features in each format in which they are published, whole and damaged."""

import multiprocessing
from base64 import b64encode

import numpy as np
import pytest
import torch
from text_files import copied
from vqa_files import (
    HEIGHT,
    IMAGES,
    WIDTH,
    coco,
    mmf_value,
    npy_bytes,
    npz_bytes,
    regions,
    tensor_bytes,
    tsv_line,
    write_h5,
    write_lmdb,
    write_npy,
    write_npz,
    write_tsv,
)

from xai_lib.datasets import open_regions
from xai_lib.datasets.images.coco import image_key
from xai_lib.datasets.regions import tsv as regions_tsv
from xai_lib.errors import InputError


def normalised(number):
    return regions(number)[1] / np.array([WIDTH, HEIGHT, WIDTH, HEIGHT], np.float32)


def database(path, subdir=True, value=npz_bytes, key=str):
    return write_lmdb(path, {key(number): value(number) for number in IMAGES}, subdir)


WRITERS = {
    "tsv": lambda root: write_tsv(root / "val2014_obj36.tsv"),
    "tsv-crlf": lambda root: write_tsv(root / "a.tsv", end="\r\n", last=""),
    "npz": lambda root: write_npz(root / "npz"),
    "npy": lambda root: write_npy(root / "npy"),
    "h5": lambda root: write_h5(root / "a.h5"),
    "lmdb": lambda root: database(root / "a.lmdb"),
    "lmdb-file": lambda root: database(root / "a.lmdb", subdir=False),
    "lmdb-tensors": lambda root: database(root / "a.lmdb", value=tensor_bytes, key=coco),
}


@pytest.fixture(params=WRITERS)
def written(request, tmp_path):
    return open_regions(WRITERS[request.param](tmp_path))


def test_features_and_boxes_are_those_written(written):
    assert len(written) == len(IMAGES) == len(written.keys())
    for number in IMAGES:
        features, boxes = regions(number)
        found = written[coco(number)]
        assert found.features.dtype == found.boxes.dtype == torch.float32
        assert np.array_equal(found.features, features)
        np.testing.assert_allclose(found.boxes, normalised(number), rtol=0, atol=1e-6)
        assert found.boxes[0].tolist() == [0, 0, 1, 1] and boxes.max() > 1
        assert found.size == (None if written.format == "npy" else (HEIGHT, WIDTH))


def test_images_go_by_any_of_their_names(written):
    for name in (42, "42", "000000000042", "COCO_val2014_000000000042", "x/COCO_train2014_42"):
        assert name in written and torch.equal(written[name].features, written[42].features)
    assert 43 not in written and None not in written
    with pytest.raises(InputError, match="43"):
        written[43]


def _first_feature(data, queue):
    queue.put(float(data[73].features[0, 0]))


def test_nothing_stays_open_between_processes(written, tmp_path):
    written[42]
    again = copied(written)
    assert torch.equal(again[42].features, written[42].features)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    worker = context.Process(target=_first_feature, args=(written, queue))
    worker.start()
    assert queue.get(timeout=60) == float(regions(73)[0][0, 0])
    worker.join(60)


def test_fingerprints_are_of_the_content_not_the_place(written, tmp_path):
    here, fewer = written.fingerprint(IMAGES), written.fingerprint([coco(i) for i in IMAGES[:2]])
    moved = open_regions(written.path.rename(tmp_path / f"moved{written.path.suffix}"))
    assert moved.fingerprint() == here == moved.fingerprint([coco(i) for i in IMAGES])
    assert here["images"] == 3 and here["bytes"] > fewer["bytes"] > 0
    assert fewer == moved.fingerprint(IMAGES[:2]) and fewer["digest"] != here["digest"]


def test_names_of_one_image():
    assert {image_key(n) for n in (7, "7", "007", "COCO_test2015_000000000007")} == {"7"}
    assert image_key("val2014/scene-12") == "scene-12" and image_key("0") == "0"


def test_other_formats_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("x")
    for path, message in (
        (tmp_path / "a.csv", "expected LXMERT's .tsv"),
        (tmp_path, None),
        (tmp_path / "none.tsv", "none.tsv"),
    ):
        with pytest.raises(InputError, match=message):
            open_regions(path)
    both = write_npz(tmp_path / "both")
    (both / "1.npy").write_bytes(npy_bytes(regions(1)[0]))
    with pytest.raises(InputError, match=r"\.npz and \.npy files: which"):
        open_regions(both)


# Arrays of an .npz (None takes one away) and what the error must say of them.
NAN = np.where(np.arange(30).reshape(5, 6) == 13, np.nan, 1.0)
DAMAGED = {
    "nan": ({"features": NAN}, "features of its region 2 are NaN or infinite"),
    "infinite": ({"features": NAN * 0 + np.inf}, "NaN or infinite"),
    "too large": ({"features": np.full((5, 6), 1e300)}, "NaN or infinite"),
    "flat": ({"features": np.ones(6)}, r"shape \(6,\); expected \(regions, dim\)"),
    "empty": ({"features": np.ones((0, 6))}, "expected"),
    "texts": ({"features": np.array([["a"]])}, "expected floating-point numbers"),
    "absent": ({"features": None}, r"has the arrays 'boxes', 'size': expected features"),
    "fewer boxes": ({"boxes": np.ones((4, 4))}, "4 boxes but the features of 5 regions"),
    "flat boxes": ({"boxes": np.ones((5, 2))}, r"boxes are \(5, 2\); expected \(regions, 4\)"),
    "outside": (
        {"boxes": np.array([[0, 0, 1, 1]] * 4 + [[0, 0, 40.5, 9]])},
        r"box 4, \(0, 0, 40\.5, 9\), is not within .*pixels of an image of 30 x 40",
    ),
    "negative": ({"boxes": np.full((5, 4), -0.5)}, "box 0, .* is not within the image"),
    "nan box": ({"boxes": np.full((5, 4), np.nan)}, "box 0, .* is not within the image"),
    "turned": ({"boxes": np.array([[9, 0, 3, 9]] * 5)}, "box 0, .* ends before it begins"),
    "pixels": ({"size": None}, "is not within .*parts of the image, as no size is given"),
    "one number": ({"size": np.array([30])}, "height and width: .*expected 2 whole numbers"),
    "no height": ({"size": np.array([0, 40])}, "height and width: .*expected 2 whole numbers"),
    "half a size": ({"size": None, "image_h": np.array(30)}, "only one of image_h and image_w"),
    "count": ({"num_boxes": np.array(6)}, "counts 6 boxes but has the features of 5"),
    "no count": ({"num_boxes": np.array(0)}, "number of boxes: .*expected a whole number from 1"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_arrays_are_one_images_error(tmp_path, case):
    """The file opens, the other images are read, and the error names the image's file."""
    more, message = DAMAGED[case]
    folder = write_npz(tmp_path / "npz")
    (folder / f"{coco(73)}.npz").write_bytes(npz_bytes(73, **more))
    data = open_regions(folder)
    with pytest.raises(InputError, match=rf"{coco(73)}\.npz.*{message}"):
        data[73]
    assert np.array_equal(data[74].features, regions(74)[0])
    # The same arrays, as the value of a database.
    value = {"74": npz_bytes(74), "73": npz_bytes(73, **more)}
    with pytest.raises(InputError, match=rf"value of image '73'.*{message}"):
        open_regions(write_lmdb(tmp_path / "a.lmdb", value))[73]


def test_names_of_bottom_up_attention_and_padding(tmp_path):
    features, boxes = regions(42)
    folder = tmp_path / "features"
    folder.mkdir()
    np.savez(
        folder / "42.npz",
        x=features,
        bbox=boxes,
        num_bbox=3,
        image_h=HEIGHT,
        image_w=WIDTH,
        info=np.array({"objects_id": [1]}, object),
    )
    found = open_regions(folder)[42]
    assert np.array_equal(found.features, features[:3]) and found.boxes.shape == (3, 4)
    assert found.size == (HEIGHT, WIDTH)


def test_boxes_at_the_border_may_be_off_by_rounding(tmp_path):
    boxes = np.array([[-1e-7, 0, 1 + 2e-6, 1]] * 5)
    write_npz(tmp_path / "npz", boxes=boxes, size=None)
    found = open_regions(tmp_path / "npz")[42].boxes
    assert found.min() == 0 and found.max() == 1


def test_files_of_another_kind_and_damaged_headers(tmp_path):
    """numpy's own errors for these are of many types, one of them names pickles."""
    (write_npz(tmp_path / "a") / f"{coco(73)}.npz").write_bytes(b"<html>404</html>")
    with pytest.raises(InputError, match=r"begins with b'<html>'.*expected an \.npz file with"):
        open_regions(tmp_path / "a")[73]
    file = write_npy(tmp_path / "b") / f"{coco(73)}.npy"
    content = file.read_bytes()
    for wrong, message in (
        (b"<html>404</html>", r"begins with b'<html>'.*expected the bytes of an \.npy file"),
        (content.replace(b"}", b"("), "damaged or truncated"),
        (content.replace(b"(5, 6)", b"(5, 7)"), "damaged or truncated"),
        (b"", "begins with b''"),
    ):
        file.write_bytes(wrong)
        with pytest.raises(InputError, match=rf"{coco(73)}\.npy' .*{message}"):
            open_regions(tmp_path / "b")[73]
    np.savez(tmp_path / "a" / f"{coco(73)}.npz", features=np.array([{}], object))
    with pytest.raises(InputError, match="'features'"):
        open_regions(tmp_path / "a")[73]


@pytest.mark.parametrize("cut", [1, 60, 200])
def test_truncated_numpy_files(tmp_path, cut):
    for folder, name in ((write_npz(tmp_path / "a"), ".npz"), (write_npy(tmp_path / "b"), ".npy")):
        file = folder / f"{coco(73)}{name}"
        file.write_bytes(file.read_bytes()[:-cut])
        with pytest.raises(InputError, match=rf"{coco(73)}\{name}.*damaged or truncated"):
            open_regions(folder)[73]


def test_pickles_of_mmf_are_refused_and_the_way_out_works(tmp_path):
    folder = write_npy(tmp_path / "npy", info="pickle")
    with pytest.raises(InputError, match=r"_info\.npy' is a Python pickle.*savez.*without boxes"):
        open_regions(folder)
    for file in folder.glob("*_info.npy"):
        file.unlink()
    found = open_regions(folder)[42]
    assert found.boxes is None and np.array_equal(found.features, regions(42)[0])
    (folder / f"{coco(73)}.npy").write_bytes(mmf_value(73))
    with pytest.raises(InputError, match=rf"{coco(73)}\.npy"):
        open_regions(folder)[73]


def test_pickled_values_of_lmdb_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"image '42'.*is a Python pickle.*savez.*as the value"):
        open_regions(database(tmp_path / "a.lmdb", value=mmf_value))
    mixed = {"42": npz_bytes(42), "73": mmf_value(73), "keys": mmf_value(1)}
    data = open_regions(write_lmdb(tmp_path / "b.lmdb", mixed))
    assert data.keys() == ("42", "73"), "MMF's list of keys is no image"
    with pytest.raises(InputError, match="image '73'"):
        data[73]


def test_values_of_lmdb(tmp_path):
    whole = tensor_bytes(74)
    values = {
        "42": npy_bytes(regions(42)[0]),
        "73": b"neither of these",
        "74": whole[: len(whole) - 8],
        "75": npz_bytes(75)[:-30],
    }
    data = open_regions(write_lmdb(tmp_path / "a.lmdb", values))
    assert data[42].boxes is None and np.array_equal(data[42].features, regions(42)[0])
    for number, message in (
        (73, "begins with b'neithe': expected the bytes of an .npz, .npy or safetensors"),
        (74, "cannot be read as safetensors"),
        (75, "cannot be read .*damaged or truncated"),
    ):
        with pytest.raises(InputError, match=f"value of image '{number}'.*{message}"):
            data[number]


def test_damaged_lmdb(tmp_path):
    path = database(tmp_path / "a.lmdb", subdir=False)
    content = path.read_bytes()
    path.write_bytes(content[:-4096])
    with pytest.raises(InputError):
        open_regions(path)
    path.write_bytes(b"something else" * 1000)
    with pytest.raises(InputError):
        open_regions(path)
    with pytest.raises(InputError):
        open_regions(write_lmdb(tmp_path / "b.lmdb", {}))
    twice = {"42": npz_bytes(42), coco(42): npz_bytes(42)}
    with pytest.raises(InputError):
        open_regions(write_lmdb(tmp_path / "c.lmdb", twice))


def test_h5_of_features_alone_and_by_name(tmp_path):
    names = np.array([coco(number) for number in IMAGES], "S")
    path = write_h5(tmp_path / "a.hdf5", image_ids=names, boxes=None, sizes=None, num_boxes=None)
    found = open_regions(path)[73]
    assert found.boxes is None and found.features.shape == (7, 6)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"features": None}, "'features'; it has 'boxes', 'image_ids'"),
        ({"image_ids": None}, "'image_ids'"),
        ({"image_ids": np.array([42, 73])}, r"boxes is of shape|features is of shape"),
        ({"image_ids": np.array([42, 73, 42])}, "Row 2 of .*image '42'"),
        ({"image_ids": np.array([0.5, 1, 2])}, r"image_ids\[0\] is 0\.5; expected a number"),
        ({"boxes": np.ones((3, 7, 3))}, r"boxes is of shape \(3, 7, 3\)"),
        ({"sizes": np.ones((3, 1))}, r"sizes is of shape \(3, 1\)"),
    ],
)
def test_h5_of_arrays_that_do_not_fit(tmp_path, more, message):
    with pytest.raises(InputError, match=message):
        open_regions(write_h5(tmp_path / "a.h5", **more))


def test_damaged_h5(tmp_path):
    path = write_h5(tmp_path / "a.h5", num_boxes=np.array([5, 8, 5]))
    with pytest.raises(InputError, match=r"Row 1 of .*image '73': it counts 8 boxes"):
        open_regions(path)[73]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError):
        open_regions(path)


def packed(count):
    return b64encode(np.ones(count, "<f4").tobytes()).decode()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"features": packed(30)[:-3]}, "features"),
        ({"features": "!!!!" * 40}, "features"),
        ({"features": packed(31)}, "its features are 124 bytes; expected 5 x dim float32"),
        ({"features": ""}, "features are 0"),
        ({"boxes": packed(16)}, "its boxes are 64 bytes; expected 5 x 4 .*, as num_boxes is 5"),
        ({"boxes": "AB"}, "boxes"),
        ({"num_boxes": 4}, "its boxes are 80 bytes; expected 4 x 4"),
        ({"img_h": "tall"}, "its img_h is 'tall'; expected a whole number from 1"),
        ({"img_w": 0}, "its img_w is '0'"),
        ({"img_w": 30}, "its box 0, .* is not within the image"),
    ],
)
def test_a_damaged_line_is_one_images_error(tmp_path, fields, message):
    lines = [tsv_line(42), tsv_line(73, **fields), tsv_line(74)]
    data = open_regions(write_tsv(tmp_path / "a.tsv", lines))
    with pytest.raises(InputError, match=rf"Line 2 of .*a\.tsv', image '{coco(73)}'.*{message}"):
        data[73]
    assert np.array_equal(data[74].features, regions(74)[0])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([tsv_line(42), "1\t2\t3"], "Line 2 of .* has 3 fields between tabs; expected 10: img_id"),
        ([tsv_line(42) + "\tmore"], "Line 1 of .* has 11 fields"),
        ([tsv_line(42), tsv_line(73, num_boxes="many")], "Line 2 .*num_boxes is 'many'"),
        ([tsv_line(42), tsv_line(73, num_boxes="9" * 30)], "Line 2 .*num_boxes is '9999"),
        ([tsv_line(42), tsv_line(42)], "Line 2 of "),
        ([""], "has no lines: expected img_id"),
        ([tsv_line(42), tsv_line(73)[:-40]], "Line 2 "),
    ],
)
def test_a_tsv_of_another_form_does_not_open(tmp_path, lines, message):
    with pytest.raises(InputError, match=message):
        open_regions(write_tsv(tmp_path / "a.tsv", lines, last=""))


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("head", [1 << 9, 1 << 10])
def test_long_lines_are_stepped_over(tmp_path, monkeypatch, end, head):
    """Lines longer than what is read of them; the second has another number of regions."""
    monkeypatch.setattr(regions_tsv, "_HEAD", head)
    drawn = {number: regions(number, count=3 + number % 2, dim=200) for number in IMAGES}
    lines = [tsv_line(number, drawn[number]) for number in IMAGES]
    for last in ("", end, end * 2):
        data = open_regions(write_tsv(tmp_path / "a.tsv", lines, end, last))
        for number, (features, _) in drawn.items():
            assert np.array_equal(data[number].features, features)
    # The last of them breaks off, and one in the middle does.
    with pytest.raises(InputError, match="Line 3 of "):
        open_regions(write_tsv(tmp_path / "a.tsv", [*lines[:2], lines[2][:-400]], end, ""))
    data = open_regions(write_tsv(tmp_path / "a.tsv", [lines[0], lines[1][:-401], lines[2]], end))
    with pytest.raises(InputError, match=r"Line 2 of .*features"):
        data[73]
    assert np.array_equal(data[74].features, drawn[74][0])
    # What is left may be whole base64 of whole rows, of another length.
    data = open_regions(write_tsv(tmp_path / "a.tsv", [lines[0], lines[2][:-64], lines[1]], end))
    with pytest.raises(InputError, match=r"Line 2 of .*of 196 numbers.*200"):
        data[74]


def test_opening_a_tsv_does_not_read_the_features(tmp_path, monkeypatch):
    read = []
    step = regions_tsv.TsvRegions._step

    def counted(self, file, *place):
        class Counted:
            seek = file.seek

            def read(self, size):
                read.append(size)
                return file.read(size)

            def readline(self, size):
                read.append(len(line := file.readline(size)))
                return line

        return step(self, Counted(), *place)

    monkeypatch.setattr(regions_tsv.TsvRegions, "_step", counted)
    lines = [tsv_line(n, regions(n, count=36, dim=2048)) for n in range(1, 21)]
    path = write_tsv(tmp_path / "a.tsv", lines)
    assert len(open_regions(path)) == 20
    assert sum(read) < path.stat().st_size / 8
