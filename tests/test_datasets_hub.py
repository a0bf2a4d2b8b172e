"""Sets of the Hugging Face hub: parquet as the library writes it, and a hub on this machine."""

import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from text_files import copied

from xai_lib.datasets import open_dataset
from xai_lib.datasets.hub import files as hub_files
from xai_lib.datasets.hub.files import HubName
from xai_lib.errors import InputError, MissingDataError, OptionError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """The library converts what it opens; not into the cache of whoever runs the tests."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "converted")


NAMES = ["ant", "bee", "cat"]
SHA = "1234567890abcdef1234567890abcdef12345678"


def arrays(n, seed=0, size=(12, 16)):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*size, 3), np.uint8) for _ in range(n)]


def png(array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "png")
    return stream.getvalue()


def write_parquet(path, contents, labels, rows=4):
    """Write what `Dataset.to_parquet` and `push_to_hub` write: types in the schema's metadata."""
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)}
    )
    columns = {"image": [{"bytes": c, "path": None} for c in contents], "label": labels}
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(columns, features=features).to_parquet(path, batch_size=rows)
    return path


@pytest.fixture
def repo(tmp_path):
    """A repository of two validation files and one of training, and the images of the former."""
    images = arrays(11)
    labels = [i % 3 for i in range(10)] + [-1]
    data = tmp_path / "repo" / "data"
    write_parquet(data / "validation-00000-of-00002.parquet", map(png, images[:6]), labels[:6])
    write_parquet(data / "validation-00001-of-00002.parquet", map(png, images[6:]), labels[6:])
    write_parquet(data / "train-00000-of-00001.parquet", map(png, arrays(2, 1)), [0, 1])
    return tmp_path / "repo", images, labels


def open_copy(folder, name="hf:own/set"):
    return open_dataset(name, path=folder)


def test_images_labels_and_names_across_files_and_row_groups(repo):
    folder, images, labels = repo
    data = open_copy(folder)
    assert len(data) == 11 and data.class_names == tuple(NAMES) and data.has_labels
    for index in (0, 3, 4, 5, 6, 9, 10, 1):
        sample = data[index]
        assert np.array_equal(sample.image, images[index]) and sample.mask is None
        assert sample.label == (labels[index] if labels[index] >= 0 else None)
        assert sample.key == f"{index:06d}"
    assert data[-1].key == "000010"
    with pytest.raises(IndexError):
        data[11]


def test_the_library_itself_reads_the_same(repo, tmp_path):
    import datasets

    folder, _, _ = repo
    theirs = datasets.load_dataset(str(folder), split="validation", cache_dir=str(tmp_path / "c"))
    ours = open_copy(folder)
    assert len(theirs) == len(ours)
    for index in range(11):
        assert np.array_equal(theirs[index]["image"], ours[index].image)


def test_splits_by_name_and_by_default(repo, tmp_path):
    folder, _, _ = repo
    assert len(open_copy(folder, "hf:own/set#train")) == 2
    with pytest.raises(OptionError, match=r"no split 'test'.*train, validation"):
        open_copy(folder, "hf:own/set#test")
    write_parquet(tmp_path / "r" / "test" / "0000.parquet", map(png, arrays(1)), [0])
    write_parquet(tmp_path / "r" / "train" / "0000.parquet", map(png, arrays(2)), [0, 1])
    assert len(open_copy(tmp_path / "r")) == 1
    write_parquet(tmp_path / "s" / "data.parquet", map(png, arrays(1)), [0])
    with pytest.raises(OptionError, match=r"no split 'validation' or 'test'. It has: train"):
        open_copy(tmp_path / "s")


def card(*configs):
    """Return a README whose header names configurations as (name, split, pattern)."""
    lines = ["---", "configs:"]
    for name, split, pattern in configs:
        lines += [f"- config_name: {name}", "  data_files:"]
        lines += [f"  - split: {split}", f"    path: {pattern}"]
    return "\n".join([*lines, "---", "About the set."])


def test_the_cards_configuration_decides(repo):
    folder, _, _ = repo
    (folder / "README.md").write_text(card(("default", "test", "data/train-*")))
    assert len(open_copy(folder)) == 2
    two = ("a", "test", "data/train-*"), ("b", "test", "data/validation-*")
    (folder / "README.md").write_text(card(*two))
    with pytest.raises(InputError, match="configurations a, b and no default"):
        open_copy(folder)
    (folder / "README.md").write_text("No header.")
    assert len(open_copy(folder)) == 11


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["README.md", "val.zip"], "no parquet files.*refs/convert/parquet"),
        (["a/validation/0.parquet", "b/validation/0.parquet"], "several folders, a/validation, b/"),
        (["default/partial-validation/0.parquet"], "only a part"),
        (["validation-00000-of-00003.parquet", "validation-00002-of-00003.parquet"], "00001"),
    ],
)
def test_ambiguous_or_incomplete_repositories(tmp_path, files, message):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(InputError, match=message):
        open_copy(tmp_path)


def test_a_copy_of_one_split_beside_the_whole_card(repo):
    folder, _, _ = repo
    splits = (("default", "train", "data/train-*"), ("default", "validation", "data/validation-*"))
    lines = card(splits[0]).replace("---\nAbout", "  - split: validation\n    path: data/val*\n---")
    (folder / "README.md").write_text(lines)
    (folder / "data" / "train-00000-of-00001.parquet").unlink()
    assert len(open_copy(folder)) == 11


@pytest.mark.parametrize(
    "text",
    [b"---\nconfigs: [\n---\n", b"---\n- 1\n---\n", b"---\nconfigs: 3\n---\n", b"\xff\xfe---\n"],
)
def test_a_damaged_card_is_named(repo, text):
    (repo[0] / "README.md").write_bytes(text)
    with pytest.raises(InputError, match=r"README\.md.* is damaged"):
        open_copy(repo[0])


@pytest.mark.parametrize(
    "stated", ["{no json", '{"info": {"features": {"image": {"_type": "Hologram"}}}}']
)
def test_types_that_cannot_be_read_are_named(tmp_path, stated):
    table = pa.table({"image": [{"bytes": png(arrays(1)[0]), "path": None}], "label": [0]})
    pq.write_table(
        table.replace_schema_metadata({"huggingface": stated}), tmp_path / "test.parquet"
    )
    with pytest.raises(InputError, match="types that it states"):
        open_copy(tmp_path)


def test_names_are_parsed():
    assert HubName.parse("hf:a/b") == HubName("a/b")
    full = "hf:a/b.c@refs/convert/parquet#test"
    assert HubName.parse(full) == HubName("a/b.c", "refs/convert/parquet", "test")
    assert str(HubName.parse(full)) == full
    assert HubName.parse("hf:a/b", "main").revision == "main"


def test_fingerprint_is_of_the_content_not_the_place(repo, tmp_path):
    folder, _, _ = repo
    first = open_copy(folder).fingerprint()
    folder.rename(tmp_path / "moved")
    assert open_copy(tmp_path / "moved", "hf:own/set@v1").fingerprint() == first
    assert open_copy(tmp_path / "moved", "hf:own/set#train").fingerprint() != first


def test_what_is_pickled_is_no_data(repo):
    folder, images, _ = repo
    data = open_copy(folder)
    data[0], data[9]
    assert len(pickle.dumps(data)) < 10_000
    assert np.array_equal(copied(data)[9].image, images[9])


def test_a_truncated_file_is_found_on_opening(repo):
    folder, _, _ = repo
    path = folder / "data" / "validation-00001-of-00002.parquet"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:-1], b"", b"version https://git-lfs\n"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"00001-of-00002\.parquet.*truncated"):
            open_copy(folder)


def test_damage_inside_a_row_group_is_found_on_opening(repo):
    folder, _, _ = repo
    path = folder / "data" / "validation-00000-of-00002.parquet"
    column = pq.read_metadata(path).row_group(1).column(0)
    content = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    content[start : start + 12] = b"\xff" * 12
    path.write_bytes(content)
    with pytest.raises(
        InputError, match=r"00000-of-00002.parquet' is damaged.* in its rows 4 to 5"
    ):
        open_copy(folder)


def test_a_damaged_or_absent_image_is_its_samples_error(tmp_path):
    contents = [png(arrays(1)[0]), png(arrays(1)[0])[:60], b"text", b""]
    write_parquet(tmp_path / "validation.parquet", contents, [0, 1, 2, 0])
    data = open_copy(tmp_path)
    assert data[0].label == 0
    for index in (1, 2):
        with pytest.raises(InputError, match=f"Sample {index} of .*cannot be decoded"):
            data[index]
    with pytest.raises(InputError, match=r"Sample 3 of .*has no image"):
        data[3]


def test_columns_without_the_hubs_types(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = {"image": [{"bytes": png(arrays(1)[0]), "path": "a.png"}], "label": [2]}
    pq.write_table(pa.table(rows), tmp_path / "test.parquet")
    data = open_copy(tmp_path)
    assert data[0].label == 2 and data.class_names is None and data[0].image.size == (16, 12)
    pq.write_table(pa.table({"size": [3], "label": [0]}), tmp_path / "test.parquet")
    with pytest.raises(InputError, match=r"no image column.*'size', 'label'"):
        open_copy(tmp_path)
    pq.write_table(pa.table(rows).slice(0, 0), tmp_path / "test.parquet")
    with pytest.raises(InputError, match="no rows"):
        open_copy(tmp_path)


def test_offline_is_one_quick_sentence(tmp_path, monkeypatch):
    import huggingface_hub.constants as constants

    def no_network():
        raise ConnectionError("no route to host")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub_files, "reach_hub", no_network)
    with pytest.raises(MissingDataError, match="not in the local cache") as caught:
        open_dataset("hf:own/set@v1")
    assert "\n" not in str(caught.value) and "path=" in str(caught.value)
    with pytest.raises(MissingDataError, match="no folder"):
        open_copy(tmp_path / "none")


def test_memory_stays_flat(tmp_path):
    """2,000 images of 160 x 160 (150 MB decoded) in row groups of 100, read in sequence."""
    write_parquet(
        tmp_path / "validation.parquet", [png(arrays(1, 0, (160, 160))[0])] * 2000, [0] * 2000, 100
    )
    data = open_copy(tmp_path)
    process = psutil.Process()
    for index in range(200):
        data[index]
    before = process.memory_info().rss
    for index in range(200, 2000):
        data[index]
    assert process.memory_info().rss - before < 60 * 2**20


class Hub(BaseHTTPRequestHandler):
    """The few answers of the hub's interface that reading a data set needs."""

    root: Path
    asked: list

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        path = self.path.partition("?")[0]
        self.asked.append(path)
        files = sorted(p.relative_to(self.root).as_posix() for p in self.root.rglob("*.*"))
        files = [name for name in files if (self.root / name).is_file()]
        headers, status, content = {}, 200, b""
        if path.startswith(("/api/datasets/own/set/revision/", "/api/datasets/own/set/tree/")):
            revision, *below = path.split("/")[6:]
            if revision not in (SHA, "main", "v1"):
                headers, status = {"X-Error-Code": "RevisionNotFound"}, 404
            elif "/tree/" in path:
                content = json.dumps(
                    self.tree("/".join(below), "recursive=true" in self.path)
                ).encode()
            else:
                siblings = [{"rfilename": name} for name in files]
                content = json.dumps({"id": "own/set", "sha": SHA, "siblings": siblings}).encode()
        elif path.startswith("/datasets/own/set/resolve/"):
            name = path.removeprefix("/datasets/own/set/resolve/").partition("/")[2]
            content = (self.root / name).read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            headers = {"X-Repo-Commit": SHA, "ETag": f'"{digest}"'}
        elif path.startswith("/api/"):
            headers, status = {"X-Error-Code": "RepoNotFound"}, 404
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def tree(self, folder, recursive):
        """Return files and folders below a folder, as the hub lists them."""
        place = self.root / folder
        found = place.rglob("*") if recursive else place.iterdir()
        return [
            {
                "type": "directory" if path.is_dir() else "file",
                "path": path.relative_to(self.root).as_posix(),
                "size": 0 if path.is_dir() else path.stat().st_size,
                "oid": "0" * 40,
            }
            for path in sorted(found)
        ]

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(repo):
    handler = type("Here", (Hub,), {"root": repo[0], "asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


ASK = """
import sys
from xai_lib.datasets import open_dataset
from xai_lib.errors import XAIError
for name in sys.argv[1:]:
    try:
        data = open_dataset(name)
        print(name, len(data), data[7].label, data.fingerprint()["digest"])
    except XAIError as error:
        print(name, type(error).__name__, error)
"""


def ask(names, cache, endpoint, **more):
    env = os.environ | {"HF_HOME": str(cache), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1"}
    env |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "OMP_NUM_THREADS": "1"} | more
    done = subprocess.run(
        [sys.executable, "-c", ASK, *names], capture_output=True, text=True, env=env, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_from_a_hub_and_then_from_its_cache(repo, hub, tmp_path):
    """The genuine client against a hub on loopback: only the split is fetched, then nothing."""
    endpoint = f"http://127.0.0.1:{hub.server_port}"
    asked = hub.RequestHandlerClass.asked
    names = [f"hf:own/set@{SHA}", "hf:own/set@v1", "hf:own/set@v2", "hf:own/other"]
    pinned, tagged, wrong, absent = ask(names, tmp_path / "home", endpoint)
    expected = open_copy(repo[0]).fingerprint()["digest"]
    assert pinned.split()[1:] == tagged.split()[1:] == ["11", "1", expected]
    assert "MissingDataError" in wrong and "check its name and revision" in wrong
    assert "MissingDataError" in absent and "check its name and revision" in absent
    assert any("validation-00001" in path for path in asked)
    assert not any("train-" in path for path in asked)

    asked.clear()
    again = ask([names[0], names[1]], tmp_path / "home", endpoint, HF_HUB_OFFLINE="1")
    assert again == [pinned, tagged] and not asked
    (train,) = ask(["hf:own/set@v1#train"], tmp_path / "home", endpoint, HF_HUB_OFFLINE="1")
    assert "MissingDataError" in train and "cannot be reached" in train

    # A file that the cache has lost is not taken for the end of the split.
    lost = next((tmp_path / "home").rglob("snapshots/*/data/validation-00001*"))
    lost.unlink()
    (broken,) = ask([names[0]], tmp_path / "home", endpoint, HF_HUB_OFFLINE="1")
    assert "MissingDataError" in broken
