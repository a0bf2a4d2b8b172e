"""The benchmark measures what it says, on a small model (no timing is asserted)."""

from dataclasses import replace

import pandas as pd
import pytest

from benchmarks import evaluation, measure, pruning, streams, texts
from benchmarks.measure import Setting, explanation
from benchmarks.report import write

pytestmark = pytest.mark.slow

TINY = Setting(batch=2, image=32, patch=8, width=32, depth=2, heads=2)


def test_ratio_is_the_median_of_pairs():
    row = measure.ratio(TINY, lambda m, x: explanation(m, x, "rollout"), rounds=3)
    assert 0 < row["low"] <= row["ratio"] <= row["high"]
    assert row["images_per_second"] > 0 and row["baseline_seconds"] > 0


def test_baseline_is_the_gradient_of_the_predicted_logit():
    import torch

    model, pixels = TINY.build()
    (grad,) = TINY.baseline(model, pixels)()
    leaf = pixels.clone().requires_grad_()
    logits = model(leaf)
    logits[range(2), logits.argmax(-1)].sum().backward()
    assert torch.equal(grad, leaf.grad)


def test_memory_of_a_larger_model_is_larger():
    small = measure.peak_memory(Setting(batch=2, image=224, width=192, depth=2, heads=3), None)
    large = measure.peak_memory(Setting(batch=8, image=224, width=192, depth=4, heads=3), None)
    assert 0 < small < large


def test_report_is_written(tmp_path):
    row = measure.ratio(TINY, lambda m, x: explanation(m, x, "rollout"), rounds=2)
    ratios = pd.DataFrame([{"method": "rollout", "batch": 1, **row, "target": 0.48}])
    sweep = pd.DataFrame(
        [{"axis": a, "value": v, "method": "rollout", **row} for a in "abcd" for v in (1, 2)]
    )
    write({"ratios": ratios, "scaling": sweep}, {"threads": "2"}, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"README.md", "ratios.csv", "ratios.png", "scaling.pdf"} <= names
    assert "rollout" in (tmp_path / "README.md").read_text()
    assert pd.read_csv(tmp_path / "ratios.csv")["ratio"][0] == pytest.approx(row["ratio"], abs=1e-3)


def test_a_part_measured_again_leaves_the_others(tmp_path):
    first = pd.DataFrame([{"seconds": 1.0}])
    write({"import": first}, {"threads": "2"}, tmp_path)
    again = pd.DataFrame([{"method": "B", "MiB": 7.0}])
    write({"memory": again}, {"threads": "3"}, tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert "## Import" in page and "## Memory" in page
    assert "threads: 2" in page and "threads: 3" in page


def test_stream_throughput_compares_equal_work():
    table = evaluation.throughput(TINY, rounds=2, batches=(1, 3))
    assert table["batch"].tolist() == [1, 3] and (table["stream over plain"] > 0).all()
    assert (table["low"] <= table["stream over plain"]).all() and (table["target"] == 0.9).all()


def test_the_stream_that_is_timed_perturbs():
    model, pixels = TINY.build()
    _, perturbed, count = evaluation._pair(model, pixels, TINY)
    logits = perturbed()
    assert sum(len(part) for part in logits) == count == 2 * 9 * 2
    assert all(len(part.unique(dim=0)) == 9 for part in logits)


def test_memory_of_a_run_has_a_row_a_shard():
    table = evaluation.memory_of_a_run(samples=96)
    assert table["images"].iloc[-1] == 96 and (table["rss_mb"] > 50).all()


def test_importing_the_package_does_not_import_its_parts():
    import subprocess
    import sys

    script = (
        "import sys, torch; before = set(sys.modules); import xai_lib; "
        "print(*sorted(m for m in set(sys.modules) - before if not m.startswith('importlib')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["xai_lib"]


def test_texts_are_measured_against_the_gradient_at_the_embeddings(monkeypatch):
    monkeypatch.setattr(texts, "LENGTHS", (8, 16))
    base = texts.TextSetting(tokens=16, width=32, depth=2, heads=2)
    model, inputs = base.build()
    (grad,) = base.baseline(model, inputs)()
    assert grad.shape == (1, 16, 32) and grad.abs().sum() > 0
    table = texts.ratios(base, rounds=2, batches=(1, 2))
    assert len(table) == len(texts.METHODS) + 3 * len(texts.TARGETS)
    assert (table["ratio"] > 0).all() and set(table["tokens"]) == {8, 16}
    assert table.set_index("method")["target"].dropna().to_dict() == texts.TARGETS


SMALL = streams.LxmertSetting(width=24, heads=2, layers=(1, 1, 1), features=8)


def test_streams_are_measured_against_the_gradient_at_words_and_regions(monkeypatch):
    model, inputs = SMALL.build()
    words, regions = SMALL.baseline(model, inputs)()
    assert words.shape == (1, 20, 24) and regions.shape == (1, 36, 8)
    assert words.abs().sum() > 0 and regions.abs().sum() > 0
    monkeypatch.setattr(streams, "ClipSetting", lambda device: SMALL)
    monkeypatch.setattr(streams, "_texts", lambda model, inputs, method, count: lambda: None)
    table = streams.ratios(2, batches=(1, 2), base=SMALL)
    scores = table[table["task"] == "LXMERT head scores"]
    assert list(scores["batch"]) == [1, 1, 2, 2] and (scores["ratio"] > 0).all()
    assert scores.set_index("method")["target"].to_dict() == streams.TARGETS


def test_a_batch_of_fractions_is_measured_against_a_pass_for_each():
    # Enough heads that a tenth of them is one.
    table = pruning.throughput({"tiny": replace(SMALL, layers=(2, 2, 2))}, 2)
    assert list(table["model"]) == ["tiny"] and (table["fractions"] == 10).all()
    assert (table[["plain_seconds", "masked_seconds", "batch_seconds"]] > 0).all(axis=None)
