"""Run folders that an earlier version wrote: half a run goes on, with the same columns and numbers.

tests/goldens/runs was written at commit 2d2f0d3, before the evaluators shared one removal engine:
two samples in two shards each. That of localisation is of xai-lib 0.1.0, kept its maps, and has no
shard 1 to compare with.
"""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from xai_lib.runs import evaluate

pytestmark = pytest.mark.usefixtures("one_thread")

# Those that take a minute of one core each.
SLOW = ("pruning", "question_perturbation")


def case(folder):
    marks = pytest.mark.slow if folder.name in SLOW else ()
    return pytest.param(folder, id=folder.name, marks=marks)


FOLDERS = sorted((Path(__file__).parent / "goldens" / "runs").iterdir())
SETTINGS = ("limit", "shards", "batch_size", "keep_maps")


@pytest.mark.parametrize("before", map(case, FOLDERS))
def test_a_run_of_an_earlier_version_goes_on(before, tmp_path):
    description = json.loads((before / "run.json").read_text())
    asked = description["configuration"]
    settings = {name: asked[name] for name in (*SETTINGS, "options")}
    out, shard = tmp_path / before.name, Path("records", "00001.parquet")
    shutil.copytree(before, out, ignore=shutil.ignore_patterns(shard.name))
    kept = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    with pytest.warns(UserWarning, match="began under other conditions"):
        run = evaluate(
            *(asked[name] for name in ("evaluator", "model", "dataset", "methods")),
            out, **settings, device="cpu", progress=False,
        )  # fmt: skip
    assert [event["number"] for event in run.folder.events("shard")] == [1] and not run.missing
    assert all(file.read_bytes() == data for file, data in kept.items())
    found = pd.read_parquet(out / shard)
    assert len(run.records()) == asked["shards"] * len(found)
    assert run.records()["error"].isna().all()
    if asked["keep_maps"]:
        assert all(len(run.maps(method)) == asked["limit"] for method in asked["methods"])
    if not (before / shard).exists():
        return
    expected = pd.read_parquet(before / shard)
    assert found.columns.tolist() == expected.columns.tolist()
    for column in expected:
        for value, was in zip(found[column], expected[column], strict=True):
            # The models compute in float32, whose last digits are those of the machine.
            assert value == was if isinstance(was, str) else same(value, was), column


def same(value, was):
    if hasattr(was, "__len__"):
        return len(value) == len(was) and all(map(same, value, was))
    return value is was or value == pytest.approx(was, rel=1e-4, abs=1e-5, nan_ok=True)
