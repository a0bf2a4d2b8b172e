"""What `python -m build` makes: a wheel that explains and renders a report far from a checkout."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def run(*words, **options):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{words}: {done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT)
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def xai(wheel, tmp_path_factory):
    """Install the wheel in a fresh environment; call its `xai` from an empty folder.

    The packages that it needs are this environment's, found by a .pth file that is written last:
    the checkout, installed here to be edited, is not among them.
    """
    place = tmp_path_factory.mktemp("fresh")
    run(sys.executable, "-m", "venv", "--without-pip", place / "venv")
    python = place / "venv" / "bin" / "python"
    install = ("install", "--quiet", "--no-deps", "--no-index", wheel)
    run(sys.executable, "-m", "pip", "--python", python, *install)
    paths = sysconfig.get_paths(vars={"base": place / "venv", "platbase": place / "venv"})
    Path(paths["purelib"], "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    here = place / "here"
    here.mkdir()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    # Templates of nbconvert are no modules: they lie beside the packages.
    environment["JUPYTER_PATH"] = f"{sys.prefix}/share/jupyter"

    def call(*words):
        return run(python.with_name("xai"), *words, cwd=here, env=environment)

    call.here = here
    return call


def test_the_wheel_holds_notebooks_weights_and_citations_but_no_benchmarks(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    distribution = "-".join(wheel.stem.split("-")[:2])
    assert {Path(name).parts[0] for name in held} == {"xai_lib", f"{distribution}.dist-info"}
    assert "xai_lib/CITATION.cff" in held
    for folder, files in (
        ("xai_lib/notebooks", (ROOT / "notebooks").glob("*.ipynb")),
        ("xai_lib/weights", (ROOT / "xai_lib" / "weights").glob("*.safetensors")),
    ):
        names = {f"{folder}/{path.name}" for path in files}
        assert names and names <= held


def test_the_installed_wheel_explains(xai):
    words = ("--text", "The soup was not good.", "--model", "bert-reviews", "--out", "soup.png")
    xai("explain", *words)
    assert (xai.here / "soup.png").stat().st_size > 1000
    assert "site-packages" not in xai("methods") and "attnlrp" in xai("methods")


def test_the_installed_wheel_renders_its_notebooks_into_the_current_folder(xai):
    out = xai("report", "--only", "00")
    assert "00_start_here" in out and "ok" in out
    pages = xai.here / "reports" / "embedded"
    assert (pages / "00_start_here.html").stat().st_size > 100_000
    assert (pages / "index.html").is_file()
