"""The script of reports/real on a tiny set; the committed report says what its tables say."""

import csv
import json
import sys
from pathlib import Path

import pytest
import torch
from small_berts import small_bert
from small_sentiment import CLASSES, Sentiment

from xai_lib.checkpoints.finetuning import finetune

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "data_scripts"))

import real_sst2  # noqa: E402

pytestmark = pytest.mark.slow

REPORT = ROOT / "reports" / "real"


def table(folder, name):
    with (folder / "tables" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_script_writes_tables_figure_and_provenance(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, processor = small_bert(dtype=torch.float32, names=CLASSES)
    model.save_pretrained(tmp_path / "base")
    processor.tokenizer.save_pretrained(tmp_path / "base")
    sentences = Sentiment("sentences", 24, seed=3, longest=14).samples
    rows = [f"{sample.text},{CLASSES[sample.label]}" for sample in sentences]
    Path("dev.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    settings = {"test": Sentiment("dev", 20, 1), "epochs": 1, "device": "cpu", "progress": False}
    finetune("base", Sentiment("train", 40), "model", **settings)
    real_sst2.main(
        Path("model"),
        None,
        dataset="csv:dev.csv",
        methods="attn_gradcam,lrp,random",
        out=Path("report"),
        run_folder=Path("run"),
        limit=None,
        batch_size=8,
    )
    control = table(Path("report"), "word-deletion-random")
    assert {row["method"] for row in control} == {"attn_gradcam", "lrp"}
    summary = table(Path("report"), "word-deletion")
    values = {r["method"]: float(r["value"]) for r in summary if r["metric"] == "accuracy_mean"}
    for row in control:
        below = values["random"] - values[row["method"]]
        assert float(row["points below random"]) == pytest.approx(below)
    by_k = table(Path("report"), "word-deletion-k")
    for row in by_k:
        mean = sum(float(row[f"k={k}"]) for k in range(1, 11)) / 10
        assert mean == pytest.approx(values[row["method"]])
    text = Path("report/README.md").read_text()
    metrics = json.loads(Path("model/metrics.json").read_text())
    assert metrics["command"] in text and str(tmp_path) not in text
    assert f"test accuracy {metrics['test']['accuracy']:.2%}" in text
    assert real_sst2.sha256(Path("model/model.safetensors")) in text
    assert Path("report/figures/word-deletion.png").read_bytes().startswith(b"\x89PNG")


def test_the_committed_report_says_what_its_tables_say():
    if not (REPORT / "README.md").is_file():
        pytest.skip("reports/real is written by data_scripts/real_sst2.py, which has not run")
    text = (REPORT / "README.md").read_text()
    rows = table(REPORT, "word-deletion-random")
    lrp = [row for row in rows if "LRP" in row["family"]]
    assert len(lrp) >= 5
    won = ", ".join(row["method"] for row in lrp if row["beats random"] == "True")
    assert f"methods that beat the control: {won or 'none'}." in text
    accuracy = float(text.split("test accuracy ")[1].split("%")[0])
    assert accuracy >= 88.0
