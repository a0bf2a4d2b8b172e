"""gtsegs_ijcv.mat: read exactly, in any process, and refused with a reason where it is damaged."""

import multiprocessing
import pickle

import h5py
import numpy as np
import psutil
import pytest
import torch
from gtsegs_files import WNIDS, pictures, write_gtsegs

from xai_lib.datasets import open_dataset
from xai_lib.datasets.images.imagenet_labels import class_names
from xai_lib.errors import InputError, MissingDataError

N = 7


@pytest.fixture
def pairs():
    return pictures(N)


@pytest.fixture
def mat(tmp_path, pairs):
    return write_gtsegs(tmp_path / "gtsegs_ijcv.mat", pairs)


def open_gtsegs(path):
    return open_dataset("gtsegs", path=path)


def same(data, pairs):
    for index, (image, mask) in enumerate(pairs):
        sample = data[index]
        assert np.array_equal(np.asarray(sample.image), image) and sample.image.mode == "RGB"
        assert sample.mask.dtype == torch.int8 and np.array_equal(sample.mask, mask)
    return True


@pytest.mark.parametrize("cells", [True, False], ids=["cell", "direct"])
@pytest.mark.parametrize("row", [False, True], ids=["column", "row"])
@pytest.mark.parametrize("names", [True, False], ids=["named", "unnamed"])
def test_images_and_masks_are_those_written(tmp_path, pairs, cells, row, names):
    path = write_gtsegs(tmp_path / "a.mat", pairs, cells=cells, row=row, names=names)
    data = open_gtsegs(path)
    assert len(data) == N and data.has_masks and same(data, pairs)
    assert data.has_labels is names
    assert data[1].key == (f"{WNIDS[1]}_1" if names else "0001")
    with pytest.raises(IndexError):
        data[N]
    assert np.array_equal(data[-1].image, pairs[-1][0])


def test_the_published_way_of_reading_agrees(mat):
    """value/img one reference, value/gt two, both column-major: what the papers' loaders do."""
    data = open_gtsegs(mat)
    with h5py.File(mat) as file:
        for index in range(N):
            image = np.array(file[file["value/img"][index, 0]]).transpose((2, 1, 0))
            mask = np.array(file[file[file["value/gt"][index, 0]][0, 0]]).transpose((1, 0))
            assert np.array_equal(data[index].image, image)
            assert np.array_equal(data[index].mask, mask)


def test_labels_are_imagenets_by_wnid(mat):
    data = open_gtsegs(mat)
    assert [data[i].label for i in range(3)] == [0, 281, 0]
    assert data.class_names == class_names() and "tabby" in data.class_names[281]


def test_a_class_outside_the_thousand_has_no_label(tmp_path, pairs, monkeypatch):
    import gtsegs_files

    monkeypatch.setattr(gtsegs_files, "WNIDS", ("n01440764", "n00000001"))
    data = open_gtsegs(write_gtsegs(tmp_path / "a.mat", pairs))
    assert [data[0].label, data[1].label] == [0, None] and not data.has_labels


def test_the_file_is_found_by_the_environment(mat, monkeypatch):
    monkeypatch.setenv("XAI_GTSEGS", str(mat))
    assert len(open_dataset("gtsegs")) == N


def _read(data, index, queue):
    queue.put((index, np.asarray(data[index].image)))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_open_the_file_for_themselves(mat, pairs, method):
    data = open_gtsegs(mat)
    data[0]  # the parent holds the file open while its children read
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    workers = [context.Process(target=_read, args=(data, i, queue)) for i in (1, 2)]
    for worker in workers:
        worker.start()
    images = dict(queue.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join(60)
    assert all(np.array_equal(images[i], pairs[i][0]) for i in (1, 2))
    assert same(data, pairs)


def test_copies_by_pickle_have_no_open_file(mat, pairs):
    data = open_gtsegs(mat)
    data[0]
    text = pickle.dumps(data)
    assert len(text) < 100_000  # names of all classes, no pixels
    copied = vars(data) | {"_opened": None}
    assert data.__getstate__() == copied and data._opened is not None


def test_fingerprint_is_of_the_content_not_the_place(mat, pairs, tmp_path):
    other = tmp_path / "elsewhere" / "renamed.mat"
    other.parent.mkdir()
    other.write_bytes(mat.read_bytes())
    assert open_gtsegs(mat).fingerprint() == open_gtsegs(other).fingerprint()
    shorter = write_gtsegs(tmp_path / "b.mat", pairs[:-1])
    assert open_gtsegs(shorter).fingerprint() != open_gtsegs(mat).fingerprint()


def test_missing_says_what_where_and_how(tmp_path, monkeypatch):
    monkeypatch.delenv("XAI_GTSEGS", raising=False)
    with pytest.raises(MissingDataError) as caught:
        open_dataset("gtsegs")
    for part in ("gtsegs_ijcv.mat", "http://calvin-vision.net", "unknown to us", "path="):
        assert part in str(caught.value)
    assert "XAI_GTSEGS" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(MissingDataError, match=r"nowhere\.mat.*path= points"):
        open_gtsegs(tmp_path / "nowhere.mat")
    monkeypatch.setenv("XAI_GTSEGS", str(tmp_path / "gone.mat"))
    with pytest.raises(MissingDataError, match=r"gone\.mat.*XAI_GTSEGS points"):
        open_dataset("gtsegs")
    with pytest.raises(InputError):
        open_gtsegs(tmp_path)


def test_truncated_file(mat):
    whole = mat.read_bytes()
    for length in (len(whole) - 1, len(whole) // 2, 600):
        mat.write_bytes(whole[:length])
        with pytest.raises(InputError, match="Fetch it again"):
            open_gtsegs(mat)


def test_other_formats_under_the_name(mat):
    mat.write_bytes(b"<html>404 not found</html>" * 100)
    with pytest.raises(InputError):
        open_gtsegs(mat)
    mat.write_bytes(b"")
    with pytest.raises(InputError):
        open_gtsegs(mat)


def test_a_version_5_file_is_told_apart(tmp_path):
    from scipy.io import savemat

    path = tmp_path / "gtsegs_ijcv.mat"
    savemat(path, {"value": {"img": np.zeros((2, 2)), "gt": np.zeros((2, 2))}})
    with pytest.raises(InputError, match=r"version 5: expected version 7\.3.*-v7\.3"):
        open_gtsegs(path)


def test_hdf5_without_the_groups(tmp_path):
    path = tmp_path / "a.mat"
    with h5py.File(path, "w") as file:
        file["other"] = np.zeros(3)
    with pytest.raises(InputError, match="'value/img'"):
        open_gtsegs(path)
    with h5py.File(path, "w") as file:
        file["value/img"] = np.zeros((3, 1))
    with pytest.raises(InputError, match="'value/img'"):
        open_gtsegs(path)


def test_other_numbers_of_masks_and_names(tmp_path, pairs):
    with pytest.raises(InputError, match="4276"):
        open_gtsegs(write_gtsegs(tmp_path / "a.mat", pairs, masks=N - 2))
    with pytest.raises(InputError):
        open_gtsegs(write_gtsegs(tmp_path / "b.mat", []))


def test_a_damaged_sample_is_its_own_error(tmp_path, pairs):
    """The set opens, the others are read, and the error names the sample."""
    pairs[2] = (pairs[2][0], pairs[2][1][:-3])
    pairs[4] = (pairs[4][0], pairs[4][1] * 7)
    pairs[5] = (pairs[5][0][..., :2], pairs[5][1])
    path = write_gtsegs(tmp_path / "a.mat", pairs)
    with h5py.File(path, "r+") as file:
        file["value/img"][6, 0] = h5py.Reference()
        endless = file.create_dataset("#refs#/endless", (3, 10**6, 10**6), np.uint8, chunks=True)
        file["value/img"][0, 0] = endless.ref
    data = open_gtsegs(path)
    for index, message in {
        2: r"mask is \(19, 33\), its image \(22, 33\)",
        4: "other values than 0, 1 and -1",
        5: r"expected uint8 \(3, W, H\)",
        6: "cannot be read",
        0: "claims 3,000,000,000,000 values",
    }.items():
        with pytest.raises(InputError, match=f"Sample {index} of a.mat.*{message}"):
            data[index]
    assert np.array_equal(data[3].image, pairs[3][0])


def test_damage_within_the_pixels_is_that_samples(mat, pairs):
    """Bytes overwritten inside one compressed image: found on reading, the rest stays readable."""
    with h5py.File(mat) as file:
        dataset = file[file["value/img"][3, 0]]
        info = dataset.id.get_chunk_info(0)
    # The stored offset counts from the end of MATLAB's 512-byte block.
    content = bytearray(mat.read_bytes())
    start = info.byte_offset
    content[start : start + info.size] = b"\xff" * info.size
    mat.write_bytes(content)
    data = open_gtsegs(mat)
    with pytest.raises(InputError, match="Sample 3 of"):
        data[3]
    assert same(data, pairs[:3])


@pytest.mark.slow
def test_memory_stays_flat(tmp_path):
    """2,000 images of 160 x 160, 150 MB decoded, are read in sequence within a few MB."""
    rng = np.random.default_rng(0)
    few = [(rng.integers(0, 256, (160, 160, 3), np.uint8), np.ones((160, 160), np.uint8))] * 2000
    data = open_gtsegs(write_gtsegs(tmp_path / "big.mat", few, names=False))
    process = psutil.Process()
    for index in range(100):
        data[index]
    before = process.memory_info().rss
    for index in range(100, 2000):
        data[index]
    assert process.memory_info().rss - before < 40 * 2**20
