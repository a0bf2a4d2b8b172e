"""The committed report: whole, and still what the code computes."""

import json
from pathlib import Path

import pandas as pd
import pytest

from xai_lib.runs import evaluate
from xai_lib.runs.fingerprints import current_platform

REPORT = Path(__file__).parent.parent / "reports" / "embedded"
TABLES = sorted((REPORT / "tables").glob("*.csv"))
# A part of the notebook's methods, as the others' rows do not depend on it.
METHODS = (
    "raw_attention",
    "rollout:start_layer=1",
    "partial_lrp",
    "generic_attention:start_layer=1",
)


def test_every_notebook_has_its_part():
    notebooks = {path.stem for path in (REPORT.parent.parent / "notebooks").glob("[!.]*.ipynb")}
    found = {
        p.stem.partition("-")[0]
        for kind in ("tables", "figures")
        for p in (REPORT / kind).iterdir()
    }
    assert found == notebooks


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_tables_come_in_three_formats_and_hold_numbers(path):
    assert len(pd.read_csv(path)) > 0
    for suffix in (".md", ".tex"):
        assert path.with_suffix(suffix).read_text().strip()
    if path.stem.endswith("-segmentation"):
        table = pd.read_csv(path)
        assert {"value", "low", "high", "n", "failed"} <= set(table.columns)
        assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()


def test_the_report_says_what_it_was_computed_on():
    assert set(json.loads((REPORT / "platform.json").read_text())) == set(current_platform())
    page = (REPORT / "README.md").read_text()
    for path in (REPORT / "figures").glob("*.png"):
        assert f"figures/{path.name}" in page


def test_no_embedded_table_has_a_published_column():
    for path in TABLES:
        assert "published" not in pd.read_csv(path).columns or path.stem.endswith("-ranks"), path


@pytest.mark.slow
def test_segmentation_table_is_reproduced(tmp_path):
    """To the last digit where the report was made, within its intervals elsewhere."""
    settings = {"limit": 192, "batch_size": 16, "progress": False}
    run = evaluate("segmentation", "vit-scenes", "scenes", METHODS, tmp_path / "run", **settings)
    keys = ["method", "metric"]
    ours = run.summary().set_index(keys)
    stored = pd.read_csv(REPORT / "tables" / "10_table_segmentation-segmentation.csv")
    stored = stored.set_index(keys).loc[ours.index]
    if json.loads((REPORT / "platform.json").read_text()) == current_platform():
        pd.testing.assert_frame_equal(ours, stored, check_exact=True)
    assert (stored["low"] <= ours["value"]).all() and (ours["value"] <= stored["high"]).all()
    assert (ours["n"] == stored["n"]).all()
