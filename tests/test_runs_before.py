"""Run folders that an earlier version wrote: half a run goes on, with the same columns and numbers.

tests/goldens/runs was written at commit 2d2f0d3, before the evaluators shared one removal engine:
two samples in two shards each.
"""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from xai_lib.runs import evaluate

pytestmark = pytest.mark.usefixtures("one_thread")

FOLDERS = sorted((Path(__file__).parent / "goldens" / "runs").iterdir())


@pytest.mark.parametrize("before", FOLDERS, ids=lambda folder: folder.name)
def test_a_run_of_an_earlier_version_goes_on(before, tmp_path):
    description = json.loads((before / "run.json").read_text())
    asked = description["configuration"]
    settings = {name: asked[name] for name in ("options", "limit", "shards")}
    out = tmp_path / before.name
    shutil.copytree(before, out, ignore=shutil.ignore_patterns("00001.parquet"))
    with pytest.warns(UserWarning, match="began under other conditions"):
        run = evaluate(
            *(asked[name] for name in ("evaluator", "model", "dataset", "methods")),
            out, **settings, device="cpu", progress=False,
        )  # fmt: skip
    done, new = (out / "records" / f"0000{shard}.parquet" for shard in (0, 1))
    assert done.read_bytes() == (before / "records" / "00000.parquet").read_bytes()
    found, expected = pd.read_parquet(new), pd.read_parquet(before / "records" / "00001.parquet")
    assert found.columns.tolist() == expected.columns.tolist()
    assert len(run.records()) == 2 * len(found) and run.records()["error"].isna().all()
    for column in expected:
        for value, was in zip(found[column], expected[column], strict=True):
            # The models compute in float32, whose last digits are those of the machine.
            assert value == was if isinstance(was, str) else same(value, was), column


def same(value, was):
    if hasattr(was, "__len__"):
        return len(value) == len(was) and all(map(same, value, was))
    return value is was or value == pytest.approx(was, rel=1e-4, abs=1e-5, nan_ok=True)
