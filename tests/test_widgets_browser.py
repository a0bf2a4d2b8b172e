"""The explorers in a browser: their static pictures, and their controls in JupyterLab."""

import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image
from small_berts import TEXTS

from xai_lib.reporting.html import WIDGET_VIEW, notebook_html, without_widgets

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
    pytest.mark.slow,
]
CELL = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
import numpy as np, torch, xai_lib as xai
from small_vits import random_vit
from xai_lib.models import Processor
torch.set_num_threads(1)
processor = Processor((16, 16), (0.5,) * 3, (0.5,) * 3, ("cat", "dog", "bird", "fish"))
images = {{"noise": np.random.default_rng(0).random((16, 16, 3)), "grey": np.full((16, 16), 0.5)}}
explorer = xai.widgets.ImageExplorer(random_vit(dtype=torch.float32), processor, images, "rollout")
explorer
"""
TEXT_CELL = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch, xai_lib as xai
from small_berts import TEXTS, small_bert
torch.set_num_threads(1)
names = ("negative", "neutral", "positive")
model, processor = small_bert(classes=3, layers=3, names=names, dtype=torch.float32)
explorer = xai.widgets.TextExplorer(model, processor, list(TEXTS), "rollout")
explorer
"""
HEATMAP_CELL = """
from xai_lib.plots import TextHeatmap, attribution_texts
att = xai.explain(model, processor(TEXTS[0]), "integrated_gradients", steps="auto")
TextHeatmap(attribution_texts(att))
"""


def notebook_of(*cells):
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    return notebook


@pytest.fixture(scope="module")
def executed():
    """Return the notebook as papermill or nbclient leave it, and the picture in its output."""
    notebook = notebook_of(CELL)
    NotebookClient(notebook, timeout=120).execute()
    return notebook


@pytest.fixture(scope="module")
def executed_texts():
    """Return an executed notebook with the explorer of texts and a heat map of one."""
    notebook = notebook_of(TEXT_CELL, HEATMAP_CELL)
    NotebookClient(notebook, timeout=120).execute()
    return notebook


def bright_orange(image):
    """Return how many pixels have the colour of the chosen class's bar."""
    rgb = np.asarray(image.convert("RGB")).astype(int)
    return int((np.abs(rgb - (0xC2, 0x41, 0x0C)).max(-1) < 12).sum())


def blocked(page):
    """Open pages with every network request refused; return the list of those that were tried."""
    tried = []

    def refuse(route):
        tried.append(route.request.url)
        route.abort()

    page.route(lambda url: not url.startswith(("file:", "data:")), refuse)
    return tried


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def test_static_picture_is_on_the_page(executed, browser, tmp_path):
    """Of the report's page, and of nbconvert's own page of a notebook without a widget manager."""
    ours = notebook_html(executed, "explorer")
    plain, _ = HTMLExporter().from_notebook_node(without_widgets(executed))
    for number, html in enumerate((ours, plain)):
        path = tmp_path / f"page{number}.html"
        path.write_text(html, encoding="utf-8")
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        tried = blocked(page)
        page.goto(path.as_uri(), wait_until="domcontentloaded")
        picture = page.locator("img[src^='data:image/png']")
        assert picture.count() == 1 and picture.is_visible()
        assert picture.evaluate("i => i.naturalWidth") > 900
        shot = Image.open(io.BytesIO(page.screenshot(full_page=True)))
        assert bright_orange(shot) > 100
        assert number or not tried, tried
        keep = os.environ.get("XAI_SCREENSHOTS")
        if keep:
            shot.save(Path(keep) / f"explorer-page{number}.png")
        page.close()


def test_output_keeps_picture_and_widget(executed):
    (output,) = executed.cells[0].outputs
    assert {"image/png", WIDGET_VIEW, "text/plain"} == set(output.data)
    state = executed.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    assert output.data[WIDGET_VIEW]["model_id"] in state


@pytest.fixture
def lab(tmp_path):
    """Start JupyterLab on a folder with the notebooks; return its address."""
    nbformat.write(notebook_of(CELL), tmp_path / "explorer.ipynb")
    nbformat.write(notebook_of(TEXT_CELL), tmp_path / "texts.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folders = {
        f"JUPYTER_{name}_DIR": str(tmp_path / ".jupyter" / name.lower())
        for name in ("CONFIG", "DATA", "RUNTIME")
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ServerApp.ip=127.0.0.1"]
    command += [f"--ServerApp.port={port}", "--IdentityProvider.token=", "--allow-root"]
    command += [f"--ServerApp.root_dir={tmp_path}"]
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    with (tmp_path / "lab.log").open("w") as log:
        server = subprocess.Popen(command, env=os.environ | folders, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{address}/api", timeout=2).close()
                break
            except OSError:
                if time.monotonic() > deadline or server.poll() is not None:
                    pytest.fail((tmp_path / "lab.log").read_text()[-2000:])
                time.sleep(0.3)
        yield address
    finally:
        server.terminate()
        server.wait(20)


def run_in_lab(page, address):
    """Open a notebook in JupyterLab and run its first cell; return the explorer's message."""
    page.goto(f"{address}?reset")
    cell = page.locator(".jp-Notebook .jp-CodeCell").first
    cell.wait_for(timeout=60_000)
    cell.locator(".cm-content").click()
    page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").wait_for(timeout=60_000)
    page.keyboard.press("Control+Enter")
    return page.locator(".widget-html span[role=status]")


def test_controls_work_in_jupyterlab(lab, browser):
    page = browser.new_page(viewport={"width": 1400, "height": 1250})
    message = run_in_lab(page, f"{lab}/lab/tree/explorer.ipynb")
    picture = page.locator("img.widget-image")
    message.filter(has_text="noise: rollout").wait_for(timeout=60_000)
    assert page.locator(".jp-OutputArea-output img").count() == 1
    before = picture.get_attribute("src")
    page.get_by_label("Method").select_option("attn_gradcam")
    message.filter(has_text="noise: attn_gradcam, for").wait_for(timeout=20_000)
    page.get_by_label("Image").select_option("grey")
    message.filter(has_text="grey: attn_gradcam, for").wait_for(timeout=20_000)
    assert picture.get_attribute("src") != before
    content = io.BytesIO()
    Image.new("RGB", (20, 20), "teal").save(content, "PNG")
    _upload(page, "bad.png", b"no image")
    message.filter(has_text="Cannot read 'bad.png' as an image").wait_for(timeout=20_000)
    _upload(page, "teal.png", content.getvalue())
    message.filter(has_text="teal.png: attn_gradcam").wait_for(timeout=20_000)
    keep = os.environ.get("XAI_SCREENSHOTS")
    if keep:
        page.screenshot(path=Path(keep) / "explorer-lab.png")
    page.close()


def test_text_controls_work_in_jupyterlab(lab, browser):
    page = browser.new_page(viewport={"width": 1400, "height": 1350})
    message = run_in_lab(page, f"{lab}/lab/tree/texts.ipynb")
    message.filter(has_text="this movie was the best").wait_for(timeout=60_000)
    shown = page.locator(".widget-html div[dir=auto]")
    assert shown.count() == 1 and shown.locator("span[title]").count() == 13
    page.get_by_label("Text", exact=True).fill("not bad <b>at all</b>")
    page.get_by_label("Text", exact=True).press("Tab")
    message.filter(has_text="not bad <b>at all</b>: rollout").wait_for(timeout=20_000)
    assert shown.inner_text() == "not bad <b>at all</b>"
    page.get_by_label("Beside", exact=True).select_option("integrated_gradients")
    message.filter(has_text="rollout").wait_for(timeout=20_000)
    page.locator(".widget-html section").nth(1).wait_for(timeout=20_000)
    page.get_by_label("Compare", exact=True).fill("a sad story")
    page.get_by_label("Compare", exact=True).press("Tab")
    page.locator(".widget-html section").nth(3).wait_for(timeout=20_000)
    assert shown.all_inner_texts() == ["not bad <b>at all</b>", "a sad story"] * 2
    places = [shown.nth(i).bounding_box() for i in range(4)]
    assert places[0]["y"] == places[1]["y"] < places[2]["y"]
    assert places[0]["x"] + places[0]["width"] <= places[1]["x"]
    page.get_by_label("Text", exact=True).fill(" ")
    page.get_by_label("Text", exact=True).press("Tab")
    message.filter(has_text="is empty; expected a text").wait_for(timeout=20_000)
    page.get_by_label("Compare", exact=True).hover()
    keep = os.environ.get("XAI_SCREENSHOTS")
    if keep:
        page.screenshot(path=Path(keep) / "texts-lab.png")
    page.close()


def test_texts_on_a_page(executed_texts, browser, tmp_path):
    """The explorer's picture; the heat map as HTML, and as a picture where styles are stripped."""
    html = notebook_html(executed_texts, "texts")
    stripped = re.sub(r'style="[^"]*"', "", executed_texts.cells[1].outputs[0].data["text/html"])
    for number, source in enumerate((html, f"<meta charset='utf-8'>{stripped}")):
        path = tmp_path / f"page{number}.html"
        path.write_text(source, encoding="utf-8")
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        tried = blocked(page)
        page.goto(path.as_uri(), wait_until="domcontentloaded")
        pictures = page.locator("img[src^='data:image/png']")
        visible = [pictures.nth(i).is_visible() for i in range(pictures.count())]
        assert visible == ([True, False] if number == 0 else [True])
        assert page.locator("div[dir=auto]").inner_text() == TEXTS[0]
        if number == 0:
            shot = Image.open(io.BytesIO(page.screenshot(full_page=True)))
            assert bright_orange(shot) > 100 and not tried, tried
            keep = os.environ.get("XAI_SCREENSHOTS")
            if keep:
                shot.save(Path(keep) / "texts-page.png")
        page.close()


def _upload(page, name, content):
    with page.expect_file_chooser() as chosen:
        page.locator("button.widget-upload").click()
    chosen.value.set_files({"name": name, "mimeType": "image/png", "buffer": content})
