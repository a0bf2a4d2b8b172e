"""The core alone explains and evaluates; what an extra would bring is named with its command."""

import re
import subprocess
import sys
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_project import names

from xai_lib.checkpoints.finetuning import finetune
from xai_lib.cli.main import report
from xai_lib.datasets import open_dataset, open_regions
from xai_lib.errors import EXTRAS, MissingExtraError, OptionError
from xai_lib.runs.cluster import connected, job_queue


def open_file(name, ask):
    def open_empty(folder):
        (folder / name).write_bytes(b"")
        ask(folder / name)

    return open_empty


def start_workers(folder):
    with connected("local:2"):
        pass


def start_jobs(folder):
    with job_queue(folder / "jobs.yaml"):
        pass


NEEDED = [
    ("workbook", "papermill", lambda folder: report(only="00", out=folder)),
    ("workbook", "latex2mathml", lambda folder: report(only="00", out=folder)),
    ("train", "accelerate", lambda folder: finetune("minilm", "sst2", folder)),
    ("data", "h5py", open_file("a.mat", lambda path: open_dataset("gtsegs", path=path))),
    ("data", "datasets", lambda folder: open_dataset("hf:owner/name", path=folder)),
    ("regions", "h5py", open_file("a.h5", open_regions)),
    ("regions", "lmdb", open_file("a.lmdb", open_regions)),
    ("cluster", "distributed", start_workers),
    ("cluster", "dask_jobqueue", start_jobs),
]


@pytest.mark.parametrize(("extra", "package", "ask"), NEEDED, ids=[p for _, p, _ in NEEDED])
def test_a_missing_extra_is_named_with_what_it_gives(extra, package, ask, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    command = re.escape(f"pip install 'xai-lib[{extra}]'")
    with pytest.raises(MissingExtraError, match=command) as caught:
        ask(tmp_path)
    assert isinstance(caught.value, (OptionError, ImportError))
    assert package in str(caught.value) and EXTRAS[extra] in str(caught.value)


def test_every_extra_that_gives_something_is_asked_for_above():
    assert {extra for extra, _, _ in NEEDED} == set(EXTRAS)


def core_distributions():
    """Return the distributions that a plain install brings, with what they need themselves."""
    found, ahead = set(), sorted(names(None))
    while ahead:
        name = ahead.pop()
        if name in found:
            continue
        found.add(name)
        for line in distribution(name).requires or []:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                ahead.append(canonicalize_name(needed.name))
    return found


CORE_ALONE = """
import importlib, pkgutil, sys

class Hiding:
    # Finds what the finder finds, but for some names.
    names = set(sys.argv.pop(1).split(","))

    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name in self.names else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Hiding, sys.meta_path)
import xai_lib
for module in pkgutil.walk_packages(xai_lib.__path__, "xai_lib."):
    if module.name not in ("xai_lib.reporting." + name for name in ("render", "html", "index")):
        importlib.import_module(module.name)
from xai_lib.cli.main import main
main()
"""


@pytest.mark.slow
def test_the_core_alone_explains(tmp_path):
    """With every other package of this environment out of reach, all modules can be imported."""
    core = core_distributions()
    # Some distributions are parts of others' name space; those stay.
    blocked = [
        top
        for top, owners in packages_distributions().items()
        if not {canonicalize_name(owner) for owner in owners} & (core | {"xai-lib"})
    ]
    assert {"papermill", "h5py", "lmdb", "distributed", "accelerate", "pytest"} <= set(blocked)
    out = tmp_path / "map.png"
    words = ["explain", "--text", "The soup was not good.", "--model", "bert-reviews"]
    done = subprocess.run(
        [sys.executable, "-c", CORE_ALONE, ",".join(blocked), *words, "--out", str(out)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr
    assert out.stat().st_size > 1000
