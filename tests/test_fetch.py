"""Fetching: resumed downloads, checksums and safe extraction, against a server on loopback."""

import hashlib
import io
import sys
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from gtsegs_files import pictures, write_gtsegs
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "data_scripts"))

import fetch_gtsegs
import fetch_imagenet_val
import fetching
import typer
from fetching import FetchError, checksum, download, expect, extract, new_folder
from test_datasets_folders import CHOSEN, DEVKIT_NUMBERS, EXPECTED, write_devkit

from xai_lib.datasets import open_dataset
from xai_lib.datasets.images.imagenet_labels import DEVKIT_FOLDER, WNIDS

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Files(BaseHTTPRequestHandler):
    """Serves `content` with ranges; `cuts` holds how many bytes each coming answer may send."""

    content = CONTENT
    etag = '"v1"'
    ranges = True
    cuts = ()

    def do_GET(self):
        kind = type(self)
        kind.asked.append(self.headers.get("Range"))
        if self.path != "/file":
            self.send_error(404)
            return
        start, status = 0, 200
        asked = self.headers.get("Range")
        if asked and kind.ranges and self.headers.get("If-Range") in (None, kind.etag):
            start, status = int(asked.removeprefix("bytes=").rstrip("-")), 206
        total = len(kind.content)
        if start >= total and status == 206:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = kind.content[start:]
        # Taken before the client hears anything: one that hangs up on the headers and asks again
        # would otherwise race this answer for the next cut.
        cuts, kind.cuts = kind.cuts, kind.cuts[1:]
        self.send_response(status)
        if kind.etag:
            self.send_header("ETag", kind.etag)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: cuts[0]] if cuts else body)
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    handler = type("Here", (Files,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        handler.url = f"http://127.0.0.1:{http.server_port}/file"
        yield handler
        http.shutdown()


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_whole_download(server, tmp_path):
    path = download(server.url, tmp_path / "new" / "file.bin", sha256=SHA256)
    assert path.read_bytes() == CONTENT and leftovers(path.parent) == ["file.bin"]


def test_a_cut_connection_is_resumed_where_it_broke(server, tmp_path):
    server.cuts = (100_000, 50_000)
    path = download(server.url, tmp_path / "file.bin", sha256=SHA256, pause=0)
    assert path.read_bytes() == CONTENT and leftovers(tmp_path) == ["file.bin"]
    assert server.asked == [None, "bytes=100000-", "bytes=150000-"]


def test_another_process_goes_on_from_the_part(server, tmp_path):
    server.cuts = (100_000,)
    with pytest.raises(FetchError, match=r"broke off after 100,000 bytes.*same command again"):
        download(server.url, tmp_path / "file.bin", attempts=1)
    assert leftovers(tmp_path) == ["file.bin.part", "file.bin.part.etag"]
    assert download(server.url, tmp_path / "file.bin", sha256=SHA256).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-"] and leftovers(tmp_path) == ["file.bin"]


def test_a_whole_part_needs_only_its_name(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    (tmp_path / "file.bin.part.etag").write_text(server.etag)
    assert download(server.url, tmp_path / "file.bin", sha256=SHA256).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("change", ["etag", "no ranges", "no etag"])
def test_a_changed_file_or_a_plain_server_starts_over(server, tmp_path, change):
    """The old part must not be glued to a new file's end."""
    (tmp_path / "file.bin.part").write_bytes(b"x" * 1000)
    if change != "no etag":
        (tmp_path / "file.bin.part.etag").write_text('"v0"' if change == "etag" else server.etag)
    server.ranges = change != "no ranges"
    assert download(server.url, tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(FetchError, match=f"0000.*{SHA256}.*try again"):
        download(server.url, tmp_path / "file.bin", sha256="0" * 64)
    assert leftovers(tmp_path) == []


def test_refusals(server, tmp_path):
    with pytest.raises(FetchError, match=r"refuses.*404"):
        download(server.url.replace("/file", "/none"), tmp_path / "a", pause=0)
    with pytest.raises(FetchError, match="no web address"):
        download("file:///etc/hostname", tmp_path / "a")
    with pytest.raises(FetchError, match="300,000 bytes, more than the 1,000"):
        download(server.url, tmp_path / "a", limit=1000)
    server.etag = None
    with pytest.raises(FetchError, match="5 times"):
        server.cuts = (0,) * 5
        download(server.url, tmp_path / "a", pause=0)
    assert "a" not in leftovers(tmp_path)


def make_tar(path, members, mode="w"):
    """members: (name, content), or of another type: (name, None, type, linkname)."""
    with tarfile.open(path, mode) as tar:
        for name, content, *other in members:
            info = tarfile.TarInfo(name)
            if content is not None:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = other
                tar.addfile(info)
    return path


@pytest.mark.parametrize(
    "bad",
    [
        ("../evil", b"x"),
        ("a/../../evil", b"x"),
        ("/tmp/evil", b"x"),
        ("C:evil", b"x"),
        ("a\\..\\evil", b"x"),
        ("evil", None, tarfile.SYMTYPE, "/etc/passwd"),
        ("evil", None, tarfile.LNKTYPE, "good"),
        ("evil", None, tarfile.FIFOTYPE, ""),
        ("evil", None, tarfile.CHRTYPE, ""),
        ("good", b"again"),
        ("large", b"x" * 5000),
        ("third", b"x"),
    ],
    ids=str,
)
def test_a_malicious_archive_writes_nothing(tmp_path, bad):
    """What was extracted before it does not stay."""
    archive = make_tar(tmp_path / "a.tar", [("good", b"1"), bad, ("good2", b"2")])
    count = 1 if bad[0] == "third" else 9
    with pytest.raises(FetchError), new_folder(tmp_path / "out") as folder:
        extract(archive, folder, lambda name: name, count=count, size=1000)
    assert leftovers(tmp_path) == ["a.tar"]
    assert not Path("/tmp/evil").exists() and not (tmp_path.parent / "evil").exists()


def test_extraction_takes_content_alone(tmp_path):
    archive = make_tar(tmp_path / "a.tgz", [("d/x", b"12"), ("d/y", b"3")], "w:gz")
    with new_folder(tmp_path / "out") as folder:
        done = extract(
            archive, folder, lambda n: "x" if n.endswith("x") else None, count=1, size=10
        )
    assert done == 1 and leftovers(tmp_path / "out") == ["x"]
    assert (tmp_path / "out" / "x").read_bytes() == b"12"
    with pytest.raises(FetchError, match="exists already"), new_folder(tmp_path / "out"):
        pass


def test_a_truncated_archive_leaves_nothing(tmp_path):
    archive = make_tar(tmp_path / "a.tar", [("x", b"1" * 4000), ("y", b"2" * 4000)])
    archive.write_bytes(archive.read_bytes()[:6000])
    with pytest.raises(FetchError), new_folder(tmp_path / "out") as folder:
        extract(archive, folder, lambda name: name, count=9, size=9999)
    assert leftovers(tmp_path) == ["a.tar"]


def test_expected_checksums(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    expect(tmp_path / "a", "md5", "900150983cd24fb0d6963f7d28e17f72")
    with pytest.raises(FetchError, match="truncated or another file"):
        expect(tmp_path / "a", "md5", "0" * 32)
    with pytest.raises(FetchError, match="no file"):
        expect(tmp_path / "b", "md5", "0" * 32)


def test_gtsegs_is_fetched_checked_and_opened(server, tmp_path, capsys):
    server.content = write_gtsegs(tmp_path / "made.mat", pictures(5)).read_bytes()
    server.cuts = (2000,)
    out = tmp_path / "data" / "gtsegs_ijcv.mat"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetching.time, "sleep", lambda _: None)
        fetch_gtsegs.main(out=out, url=server.url, sha256="", samples=5)
    printed = capsys.readouterr().out
    assert checksum(out, "sha256") in printed and f"export XAI_GTSEGS={out}" in printed
    assert len(open_dataset("gtsegs", path=out)) == 5
    with pytest.raises(typer.Exit):
        fetch_gtsegs.main(out=out, url=server.url, sha256="", samples=4276)
    assert "has 5 images, expected 4276" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(typer.Exit):
        fetch_gtsegs.main(
            out=tmp_path / "file" / "gtsegs.mat", url="http://127.0.0.1:9/", sha256=""
        )
    assert capsys.readouterr().err.startswith("fetch_gtsegs: ")


def jpeg(seed):
    stream = io.BytesIO()
    array = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(array).save(stream, "jpeg")
    return stream.getvalue()


@pytest.fixture
def official(tmp_path):
    """The two archives of ImageNet's site, in small, and their MD5 sums."""
    images = [(f"ILSVRC2012_val_{k:08d}.JPEG", jpeg(k)) for k in range(1, len(CHOSEN) + 1)]
    archive = make_tar(tmp_path / "ILSVRC2012_img_val.tar", images)
    write_devkit(tmp_path / "kit", DEVKIT_NUMBERS)
    members = [
        (f"{DEVKIT_FOLDER}/data/{path.name}", path.read_bytes())
        for path in (tmp_path / "kit").iterdir()
    ]
    members.append((f"{DEVKIT_FOLDER}/readme.txt", b"about"))
    devkit = make_tar(tmp_path / "ILSVRC2012_devkit_t12.tar.gz", members, "w:gz")
    sums = {"md5": checksum(archive, "md5"), "devkit_md5": checksum(devkit, "md5")}
    return archive, devkit, sums | {"samples": len(CHOSEN), "labels": None}


@pytest.mark.parametrize("layout", ["flat", "folders"])
def test_imagenet_is_verified_extracted_and_labelled(official, tmp_path, layout):
    archive, devkit, options = official
    out = tmp_path / "data" / "imagenet-val"
    fetch_imagenet_val.main(archive, devkit=devkit, out=out, layout=layout, **options)
    data = open_dataset("imagenet-val", path=out)
    found = {data[i].key.rpartition("/")[2]: data[i].label for i in range(len(data))}
    assert [found[name] for name in sorted(found)] == EXPECTED
    assert leftovers(out.parent) == ["imagenet-val"]
    assert ("/" in data[0].key) is (layout == "folders")


def test_imagenet_with_another_label_file(official, tmp_path):
    archive, _, options = official
    labels = tmp_path / WNIDS
    labels.write_text("\n".join(CHOSEN))
    out = tmp_path / "out"
    options = options | {"labels": labels}
    fetch_imagenet_val.main(archive, devkit=None, out=out, layout="folders", **options)
    assert len(open_dataset("imagenet-val", path=out)) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"md5": fetch_imagenet_val.ARCHIVE_MD5}, "has the md5"),
        ({"devkit_md5": fetch_imagenet_val.DEVKIT_MD5}, "has the md5"),
        ({"samples": 50_000}, "6 images, expected 50000"),
        ({"samples": 5}, "at most 5 files"),
        ({"layout": "zip"}, "give folders or flat"),
        ({"devkit": None}, "one of --devkit, --labels"),
        ({"devkit": None, "labels": Path("other.txt")}, "expected an existing"),
    ],
)
def test_imagenet_failures_leave_nothing(official, tmp_path, capsys, change, message):
    archive, devkit, options = official
    options = {"layout": "flat", "devkit": devkit} | options | change
    out = tmp_path / "data" / "imagenet-val"
    with pytest.raises(typer.Exit):
        fetch_imagenet_val.main(archive, out=out, **options)
    assert message in capsys.readouterr().err
    assert not out.parent.exists() or leftovers(out.parent) == []
