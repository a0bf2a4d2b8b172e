"""Reports: pages that work offline, figures and tables in all formats, failures kept and told."""

import contextlib
import io
import json
import os
import re
import shutil

import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from xai_lib.errors import MissingDataError, OptionError
from xai_lib.reporting import save_figure, save_table
from xai_lib.reporting.artifacts import FOLDER_VARIABLE, NOTEBOOK_VARIABLE
from xai_lib.reporting.html import mathml, notebook_html
from xai_lib.reporting.render import render_report

# What a browser would fetch: scripts, styles, pictures and fonts from an address.
FETCHES = re.compile(
    r"""(?:<(?:script|img|iframe)[^>]*\ssrc|<link[^>]*\shref)\s*=\s*["']?(?:https?:)?//"""
    r"""|url\(\s*["']?(?:https?:)?//|import\s+[^;]*["']https?://|@import""",
    re.IGNORECASE,
)
FORMULA = r"$$\bar A = I + \mathbb{E}_h\left[(\nabla A \odot R)^+\right]$$"


def parameters(source):
    return new_code_cell(source, metadata={"tags": ["parameters"]})


def write_notebooks(root):
    folder = root / "notebooks"
    folder.mkdir()
    good = new_notebook(
        cells=[
            new_markdown_cell(f"# A <good> page\n\nInline $a < b$ and\n\n{FORMULA}"),
            parameters("profile = 'none'\nn = 3"),
            new_code_cell(
                "import matplotlib.pyplot as plt\nimport pandas as pd\n"
                "from xai_lib.reporting import save_figure, save_table\n"
                "figure, axes = plt.subplots()\naxes.plot(range(n))\n"
                "save_figure(figure, 'line')\n"
                "save_table(pd.DataFrame({'x': [profile]}), 'cells', 'The profile')"
            ),
            new_code_cell(
                "import ipywidgets\nfrom IPython.display import display, Math\n"
                "display(ipywidgets.IntSlider())\ndisplay(Math('x^2'))\ndisplay(figure)"
            ),
        ]
    )
    bad = new_notebook(
        cells=[
            new_markdown_cell("# A bad page"),
            new_code_cell("print('before the failure')"),
            new_code_cell("raise ValueError('deliberate\\nin two lines')"),
            new_code_cell("print('never reached')"),
        ]
    )
    nbformat.write(good, folder / "01_good.ipynb")
    nbformat.write(bad, folder / "02_bad.ipynb")
    return folder


@pytest.fixture
def notebooks(tmp_path):
    return write_notebooks(tmp_path)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """Render one notebook for all tests that only look: the report's folder, and what was said."""
    root, said = tmp_path_factory.mktemp("rendered"), io.StringIO()
    write_notebooks(root)
    with contextlib.chdir(root), contextlib.redirect_stdout(said):
        render_report("embedded", ["01"])
    return root / "reports" / "embedded", said.getvalue().splitlines()


@pytest.fixture
def report(rendered):
    return rendered[0]


@pytest.mark.slow
def test_render_writes_pages_figures_tables_and_an_index(rendered):
    report, printed = rendered
    names = {path.relative_to(report).as_posix() for path in report.rglob("*") if path.is_file()}
    assert names == {
        "index.html",
        "README.md",
        "platform.json",
        "01_good.html",
        "01_good.ipynb",
        "figures/01_good-line.png",
        "figures/01_good-line.pdf",
        "tables/01_good-cells.csv",
        "tables/01_good-cells.md",
        "tables/01_good-cells.tex",
    }
    assert "embedded" in (report / "tables/01_good-cells.csv").read_text()
    assert re.fullmatch(r"\[1/1\] 01_good \.\.\. \d+\.\d s ok", printed[0])
    assert printed[-1] == "Report: reports/embedded/index.html"
    index = (report / "index.html").read_text()
    assert "A &lt;good&gt; page" in index and "complete" in index and "<good>" not in index
    for link in re.findall(r'(?:href|src)="([^"]+)"', index):
        assert (report / link).is_file(), link
    page = (report / "README.md").read_text()
    assert "## A &lt;good&gt; page" in page and "figures/01_good-line.png" in page
    assert (report / "tables/01_good-cells.md").read_text().strip() in page


@pytest.mark.slow
def test_page_is_offline_and_its_formulas_are_mathml(report):
    page = (report / "01_good.html").read_text()
    assert not FETCHES.search(page)
    assert page.count("<math") == 3 and r"\nabla" not in page and "$" not in _visible(page)
    assert re.search(r'<img[^>]*src="data:image/png;base64,', page) and "widget-view" not in page
    executed = nbformat.read(report / "01_good.ipynb", as_version=4)
    assert "widgets" not in executed.metadata
    assert str(report.parent.parent) not in json.dumps(executed)


def _visible(page):
    return re.sub(r"<(script|style)\b.*?</\1>|<[^>]+>", "", page, flags=re.DOTALL)


@pytest.mark.slow
def test_failure_is_told_and_its_page_kept(notebooks, capsys):
    out = notebooks.parent / "report"
    outcomes = render_report(out=out, notebooks=notebooks)
    assert [outcome.error for outcome in outcomes] == [
        None,
        "ValueError: deliberate in two lines (cell 2)",
    ]
    page = (out / "02_bad.html").read_text()
    assert "before the failure" in page and "deliberate" in page
    executed = nbformat.read(out / "02_bad.ipynb", as_version=4)
    assert executed.cells[-1].outputs == []
    index = (out / "index.html").read_text()
    assert (
        index.count("failed, the page ends there: ValueError: deliberate") == 1
        and index.count("complete") == 1
    )
    assert "s failed: ValueError: deliberate in two lines" in capsys.readouterr().out
    assert not list(out.rglob(".part*"))


@pytest.mark.slow
def test_dead_kernel_is_a_failure_with_a_page(tmp_path):
    cells = [new_code_cell("print('alive')"), new_code_cell("import os; os._exit(1)")]
    (tmp_path / "notebooks").mkdir()
    nbformat.write(new_notebook(cells=cells), tmp_path / "notebooks" / "03_dead.ipynb")
    (outcome,) = render_report(notebooks=tmp_path / "notebooks", out=tmp_path / "out")
    assert "Kernel" in outcome.error
    assert "alive" in (tmp_path / "out" / "03_dead.html").read_text()
    assert "failed, the page ends there" in (tmp_path / "out" / "index.html").read_text()


@pytest.mark.slow
def test_files_of_an_earlier_run_do_not_outlive_it(notebooks):
    report = notebooks.parent / "reports" / "embedded"
    (report / "figures").mkdir(parents=True)
    stale = report / "figures" / "01_good-gone.png"
    stale.write_bytes(b"old")
    other = report / "figures" / "00_other-kept.png"
    other.write_bytes(b"old")
    for path in (stale, other):
        os.utime(path, (0, 0))
    render_report("embedded", ["01_good"], notebooks=notebooks)
    assert not stale.exists() and other.exists()


def test_selections_and_profiles_that_do_not_exist(notebooks, tmp_path, monkeypatch):
    monkeypatch.chdir(notebooks.parent)
    with pytest.raises(OptionError, match=r"No notebook is '7'. There are: 01_good, 02_bad"):
        render_report(only=["01", "7"])
    with pytest.raises(OptionError, match="Did you mean 'embedded'"):
        render_report("embeded")
    with pytest.raises(MissingDataError, match="no notebooks in"):
        render_report(notebooks=tmp_path / "nowhere")


def test_widgets_leave_what_they_displayed_beside_them():
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}}
    outputs = [
        new_output("display_data", view | {"text/plain": "VBox(children=())"}),
        new_output("display_data", view | {"text/html": "<i>static figure</i>"}),
    ]
    notebook = new_notebook(cells=[new_code_cell("w", outputs=outputs)])
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    page = notebook_html(notebook, "<title>")
    assert "<i>static figure</i>" in page and "VBox" not in page and not FETCHES.search(page)
    assert "<title>&lt;title&gt;</title>" in page
    assert "widgets" in notebook.metadata and len(notebook.cells[0].outputs) == 2


@pytest.mark.parametrize(
    "latex",
    [
        r"R_j = \sum_i x_j \frac{w_{ji}^+}{\sum_{j'} x_{j'} w_{j'i}^+} R_i",
        r"\mathrm{softmax}\left(\frac{QK^\top}{\sqrt{d_h}}\right)V",
        r"\begin{aligned} a &= b \\ c &= d \end{aligned}",
        r"\int_0^1 \frac{\partial f}{\partial x}\,d\alpha, \quad \lVert x \rVert_2",
        r"\begin{cases} x & x>0 \\ 0 & \text{else}\end{cases}",
    ],
)
def test_the_commands_of_our_formulas_translate(latex):
    assert mathml(latex).startswith("<math")


def test_a_formula_without_translation_shows_its_source():
    assert mathml(r"\nosuchcommand{a<b}") == r"<code>\nosuchcommand{a&lt;b}</code>"
    assert mathml(r"\begin{nothing}").startswith("<code>")


def test_figures_are_the_same_bytes_each_time(tmp_path):
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 2])

    def saved():
        save_figure(figure, "line", tmp_path)
        return {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}

    first = saved()
    assert set(first) == {"line.png", "line.pdf"} and first["line.pdf"].startswith(b"%PDF")
    assert Image.open(tmp_path / "figures" / "line.png").size[0] > 100
    assert saved() == first


@pytest.fixture
def frame():
    return pd.DataFrame(
        {
            "method": ["a|b_1", "<b>x</b>"],
            "auc": [0.123456789, np.nan],
            "f32": np.array([1.5, 2.25], np.float32),
            "n": [3, 4],
        }
    )


def test_tables_round_for_people_and_keep_all_digits_in_csv(frame, tmp_path):
    table = save_table(frame, "t", "50 % of <x> & y_1", tmp_path, digits=2)
    paths = [tmp_path / "tables" / f"t.{kind}" for kind in ("csv", "md", "tex")]
    csv, markdown, latex = (path.read_text() for path in paths)
    pd.testing.assert_frame_equal(pd.read_csv(paths[0]), frame, check_dtype=False, check_exact=True)
    assert r"| a\|b_1" in markdown and "0.12 |" in markdown and "nan" not in markdown
    assert (
        r"a|b\_1" in latex
        and r"\caption{50 \% of \ensuremath{<}x\ensuremath{>} \& y\_1}" in latex
        and "0.12" in latex
    )
    assert "0.1235" not in markdown + latex and "0.123456789" in csv
    shown = table._repr_html_()
    assert "&lt;b&gt;x" in shown and "50 % of &lt;x&gt; &amp; y_1" in shown and "1.50" in shown


def test_row_labels_that_mean_something_are_kept(frame, tmp_path):
    save_table(frame.set_index("method"), "t", "c", tmp_path)
    for path in (tmp_path / "tables").iterdir():
        assert "method" in path.read_text()
    save_table(frame, "u", "c", tmp_path)
    assert (tmp_path / "tables" / "u.csv").read_text().startswith("method,")


def test_where_files_go_and_when_none_are_written(frame, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for variable in (FOLDER_VARIABLE, NOTEBOOK_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    save_figure(Figure(), "f")
    save_table(frame, "t", "c")
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "report"))
    monkeypatch.setenv(NOTEBOOK_VARIABLE, "09_x")
    save_figure(Figure(), "f")
    assert (tmp_path / "report" / "figures" / "09_x-f.png").is_file()
    with pytest.raises(OptionError, match="cannot name a file"):
        save_table(frame, "../t", "c")


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    save_figure(Figure(), "f", tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "figures").iterdir()}

    class Broken(Figure):
        def savefig(self, target, **_):
            target.write_bytes(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save_figure(Broken(), "f", tmp_path)
    assert {path: path.read_bytes() for path in (tmp_path / "figures").iterdir()} == before


@pytest.mark.slow
def test_a_browser_shows_the_page_without_network(report, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        requests, errors = [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        for name in ("01_good.html", "index.html"):
            page.goto((report / name).as_uri())
            broken = "[...document.images].filter(i => i.complete && !i.naturalWidth).length"
            assert page.evaluate(broken) == 0
            if name == "01_good.html":
                boxes = [formula.bounding_box() for formula in page.locator("math").all()]
                assert len(boxes) == 3 and all(box["height"] > 5 for box in boxes)
                # The sum of MathML's parts is laid out in two dimensions, not as a row of letters.
                assert boxes[1]["height"] > boxes[0]["height"]
                page.screenshot(path=tmp_path / "page.png")
        browser.close()
    assert all(url.startswith(("file:", "data:")) for url in requests) and not errors
    assert len(np.unique(np.asarray(Image.open(tmp_path / "page.png").convert("L")))) > 20
