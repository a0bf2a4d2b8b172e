"""The published numbers are those that were read, and stand beside nothing else's."""

import json
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import xai_lib as xai
from xai_lib.errors import InputError, OptionError
from xai_lib.evaluators import MethodSpec
from xai_lib.evaluators.perturbation import Perturbation
from xai_lib.evaluators.segmentation import Segmentation
from xai_lib.models.catalog import CHECKPOINTS, PUBLISHED
from xai_lib.models.embedded import cards
from xai_lib.reporting import beside, published, published_curves

GOLDENS = Path(__file__).parent / "goldens"
NOTES = Path(__file__).parents[2] / "shared" / "PAPER_NUMBERS.md"
VIT_B = "timm:vit_base_patch16_224.orig_in21k_ft_in1k"
TABLES = sorted(set(published()["table"]))


def summary(rows, groups=()):
    columns = ["method", *groups, "metric", "value"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(low=frame["value"] - 1, high=frame["value"] + 1, n=9, failed=0)


def any_summary(table):
    """Return a summary with a row for every number of a table, methods in the published setting."""
    keys = ["label", "explained", "order", "metric"]
    frame = published(table)[keys].drop_duplicates().reset_index(drop=True)
    frame = frame.rename(columns={"label": "method"})
    return frame.assign(value=50.0, low=49.0, high=51.0, n=9, failed=0)


def number(table, method, metric, model="ViT-B", explained="", order=""):
    rows = published(table, model)
    rows = rows[(rows["method"] == method) & (rows["metric"] == metric)]
    rows = rows[(rows["explained"] == explained) & (rows["order"] == order)]
    assert len(rows) < 2
    return rows["value"].item() if len(rows) else None


def test_spot_checks():
    at = {"explained": "target", "order": "positive"}
    ours = {"explained": "predicted", "order": "negative"}
    ta = "transformer_attribution"
    assert number("cvpr21-perturbation", ta, "auc_cvpr21", **at) == 16.04
    assert number("mlrc22-perturbation", ta, "auc_cvpr21", **at) == 16.38
    assert number("cvpr21-perturbation", "rollout", "auc_cvpr21", **at) is None, "not published"
    assert number("cvpr21-perturbation", "rollout", "auc_cvpr21", **ours) == 53.1
    assert number("cvpr21-segmentation", ta, "mIoU") == 61.95
    assert number("cvpr21-segmentation", ta, "mF1") is None
    assert number("mlrc22-segmentation", ta, "mIoU") == 62.01
    assert number("tmlr23-segmentation", ta, "mIoU") == 61.92, "their own run of the same method"
    assert number("tmlr23-perturbation", "bi_token", "auc_tmlr23", "ViT-MAE", **ours) == 64.48
    assert number("tmlr23-perturbation", "bi_head", "auc_tmlr23", "ViT-L", **ours) == 55.86
    assert number("tmlr23-ablation", "bi_head:feedback=gradient", "mIoU") == 57.75


@pytest.fixture(scope="module")
def notes():
    if not NOTES.is_file():
        pytest.skip("needs PAPER_NUMBERS.md, which lies beside this checkout only in the project")
    return NOTES.read_text(encoding="utf-8")


def values(table, keys, **where):
    rows = published(table)
    for column, name in where.items():
        rows = rows[rows[column] == name]
    return {tuple(row[:-1]): row[-1] for row in rows[[*keys, "value"]].to_numpy()}


def test_the_perturbation_table_of_2021_equals_the_notes(notes):
    section = notes.split("### 3.1")[1].split("### 3.2")[0]
    names = {"rollout": "rollout", "raw attention": "raw_attention", "GradCAM": "attn_gradcam",
             "LRP": "lrp", "partial LRP": "partial_lrp",
             "paper (DTD)": "transformer_attribution"}  # fmt: skip
    heads = [("negative", "predicted"), ("negative", "target"), ("positive", "predicted"),
             ("positive", "target")]  # fmt: skip
    rows = dict(re.findall(r"^\| ([\w ()]+?) *\| (.*) \|$", section, re.MULTILINE))
    cells = {name: [c.strip() for c in row.split("|")] for name, row in rows.items()}

    def expected(name, method):
        pairs = zip(heads, cells[name], strict=True)
        return {(method, *head): float(cell) for head, cell in pairs if cell != "-"}

    keys = ["method", "order", "explained"]
    found = values("cvpr21-perturbation", keys)
    assert found == {k: v for name, m in names.items() for k, v in expected(name, m).items()}
    again = values("mlrc22-perturbation", keys)
    assert again == expected("their rerun", "transformer_attribution")


def test_the_segmentation_table_of_2021_equals_the_notes(notes):
    for table, labels in {
        "cvpr21-segmentation": {"rollout": "rollout", "raw": "raw_attention", "LRP": "lrp",
                                "GradCAM": "attn_gradcam", "partial LRP": "partial_lrp",
                                "paper": "transformer_attribution"},
        "mlrc22-segmentation": {"rerun": "transformer_attribution"},
    }.items():  # fmt: skip
        expected = {}
        for label, method in labels.items():
            cells = re.search(rf"(?:: |[;\n] ?){label} ([\d.]+)/([\d.]+)/([\d.]+)[;.]", notes)
            for metric, cell in zip(("pixel_accuracy", "mAP", "mIoU"), cells.groups(), strict=True):
                expected[method, metric] = float(cell)
        assert values(table, ["method", "metric"]) == expected


def test_the_tables_of_2023_equal_the_notes(notes):
    section = notes.split("### 3.3")[1].split("### 3.4")[0]
    assert "Columns RAM / Rollout / CAM / PLRP / GA / TA / Ours-H / Ours-T (predicted" in section
    methods = ["raw_attention", "rollout", "attn_gradcam", "partial_lrp", "generic_attention",
               "transformer_attribution", "bi_head", "bi_token"]  # fmt: skip
    rows = re.findall(r"^\| (ViT-\S+) +\| ([\d./]+) +\| ([\d./]+) +\|$", section, re.MULTILINE)
    assert len(rows) == 3
    expected = {
        (model, method, order): float(cell)
        for model, *ends in rows
        for order, end in zip(("positive", "negative"), ends, strict=True)
        for method, cell in zip(methods, end.split("/"), strict=True)
    }
    found = values("tmlr23-perturbation", ["model", "method", "order"], explained="predicted")
    assert found == expected and len(published("tmlr23-perturbation")) == len(expected) == 48
    names = {"Ours-T": "bi_token", "TA": "transformer_attribution"}
    metrics = ("mIoU", "pixel_accuracy", "mAP", "mF1")
    cells = re.findall(r"(ViT-B|ViT-L|MAE) (Ours-T|TA) ((?:[\d.]+/){3}\d+\.\d+)", section)
    expected = {
        (model.replace("MAE", "ViT-MAE"), names[label], metric): float(cell)
        for model, label, row in cells
        for metric, cell in zip(metrics, row.split("/"), strict=True)
    }
    assert values("tmlr23-segmentation", ["model", "method", "metric"]) == expected
    assert len(expected) == 16
    labels = {"head x none": "bi_head:feedback=none", "head x G": "bi_head:feedback=gradient",
              "head x IG": "bi_head", "token x IG": "bi_token"}  # fmt: skip
    keys = [("mIoU", ""), ("mAP", ""), ("mF1", ""), ("auc_tmlr23", "positive"),
            ("auc_tmlr23", "negative")]  # fmt: skip
    expected = {}
    for label, method in labels.items():
        row = re.search(rf"{label} ((?:[\d.]+/){{4}}\d+\.\d+)", section)[1].split("/")
        expected |= {(method, *key): float(c) for key, c in zip(keys, row, strict=True)}
    assert values("tmlr23-ablation", ["method", "metric", "order"]) == expected


def test_names_are_this_packages():
    rows = published()
    metrics = {metric.name for kind in (Segmentation, Perturbation) for metric in kind.metrics}
    assert set(rows["metric"]) <= metrics
    for method, label in rows[["method", "label"]].drop_duplicates().to_numpy():
        assert MethodSpec.parse(label).name == MethodSpec.parse(method).name
        assert MethodSpec.parse(label).name in set(xai.methods()["name"])
    assert set(rows["checkpoint"]) - {""} <= {row.name for row in CHECKPOINTS}
    assert set(rows["dataset"]) == {"imagenet-val", "gtsegs"}
    assert set(rows["status"]) == {"read", "second-hand"}
    assert set(rows.loc[rows["table"].str.startswith("tmlr23"), "status"]) == {"second-hand"}
    assert not rows["source"].eq("").any() and rows["value"].between(10, 100).all()
    keys = ["table", "model", "method", "explained", "order", "metric"]
    assert not rows.duplicated(keys).any()


def test_ours_stand_beside_the_published_number():
    rows = [
        ("raw_attention", "predicted", "positive", "auc_cvpr21", 24.49),
        ("raw_attention", "target", "positive", "auc_cvpr21", 24.49),
        ("raw_attention", "predicted", "positive", "auc_tmlr23", 21.0),
        ("rollout:start_layer=1", "predicted", "negative", "auc_cvpr21", 52.1),
        ("bi_head:steps=5", "predicted", "positive", "auc_cvpr21", 16.0),
    ]
    ours = summary(rows, ("explained", "order")).set_axis(list("vwxyz"))
    before = ours.copy()
    table = beside(ours, VIT_B, "cvpr21-perturbation", dataset="imagenet-val")
    pd.testing.assert_frame_equal(ours, before)
    pd.testing.assert_frame_equal(table[list(ours)], ours)
    np.testing.assert_array_equal(table["published"], [23.99, np.nan, np.nan, 53.1, np.nan])
    np.testing.assert_allclose(table["difference"], [0.5, np.nan, np.nan, -1.0, np.nan])
    assert "Athanasiadis" in table["source"]["v"] and table["status"]["v"] == "read"


@pytest.mark.parametrize(
    ("method", "mIoU"), [("rollout", 55.42), ("transformer_attribution", 61.95)]
)
def test_only_the_published_start_layer_stands_beside_the_published_number(method, mIoU):
    labels = [method, f"{method}:start_layer=1", f"{method}:start_layer=2"]
    ours = summary([(label, "mIoU", 60.0) for label in labels])
    table = beside(ours, VIT_B, "cvpr21-segmentation", dataset="gtsegs")
    np.testing.assert_array_equal(table["published"], [np.nan, mIoU, np.nan])
    assert table["method"].tolist() == labels


def test_lrp_is_published_by_the_split_rules_in_one_paper_and_by_z_plus_in_the_other():
    labels = ["partial_lrp", "partial_lrp:rules=zplus_split", "lrp", "lrp:rules=zplus_split"]
    at = ("predicted", "negative")
    for metric, source, numbers in (
        ("auc_cvpr21", "cvpr21", [np.nan, 50.49, np.nan, 43.49]),
        ("auc_tmlr23", "tmlr23", [50.62, np.nan, np.nan, np.nan]),
    ):
        ours = summary([(label, *at, metric, 50.0) for label in labels], ("explained", "order"))
        table = beside(ours, VIT_B, f"{source}-perturbation", dataset="imagenet-val")
        np.testing.assert_array_equal(table["published"], numbers)


@pytest.mark.parametrize("table", TABLES)
def test_the_embedded_world_has_no_published_column(table):
    ours = any_summary(table)
    assert set(PUBLISHED) <= set(cards())
    theirs = set(published(table)["dataset"])
    for model in (*cards(), "ViT-B", "my/folder", "hf:google/vit-base-patch16-224"):
        for dataset in (*theirs, "scenes", "scenes-2", "digits"):
            pd.testing.assert_frame_equal(beside(ours, model, table, dataset=dataset), ours)
    for dataset in ("scenes", "scenes-2", "digits", "folder:x"):
        pd.testing.assert_frame_equal(beside(ours, VIT_B, table, dataset=dataset), ours)
    for dataset in theirs:
        joined = beside(ours, VIT_B, table, dataset=dataset)
        assert joined["published"].notna().any(), "this test could not fail"


def test_no_checkpoint_of_the_table_is_an_embedded_one():
    assert not set(cards()) & {row.name for row in CHECKPOINTS}
    assert not set(cards()) & set(published()["checkpoint"])


def test_questions_that_have_no_answer():
    with pytest.raises(OptionError, match="Did you mean 'cvpr21-segmentation'"):
        published("cvpr21-segmentations")
    with pytest.raises(OptionError, match="Unknown published model 'DeiT-B'"):
        published(model="DeiT-B")
    ours = summary([("rollout", "auc_cvpr21", 20.0)])
    with pytest.raises(InputError, match="explained, order"):
        beside(ours, VIT_B, "cvpr21-perturbation", dataset="imagenet-val")
    with pytest.raises(InputError, match="'metric'"):
        beside(ours.drop(columns="metric"), VIT_B, "cvpr21-segmentation", dataset="gtsegs")
    with pytest.raises(TypeError, match="dataset"):
        beside(ours, VIT_B, "cvpr21-segmentation")


def test_git_ignores_no_part_of_it():
    # The wheel holds what git would: a rule that ignores CSV files would empty the table.
    root = Path(__file__).parents[1]
    if shutil.which("git") is None or not (root / ".git").exists():
        pytest.skip("needs git and a checkout")
    file = "xai_lib/reporting/published.csv"
    assert (
        subprocess.run(["git", "check-ignore", "-q", "--no-index", file], cwd=root).returncode == 1
    )


def test_the_wheel_brings_the_numbers(tmp_path):
    builder = pytest.importorskip("hatchling.builders.wheel", reason="needs hatchling")
    root = Path(__file__).parents[1]
    wheel = next(builder.WheelBuilder(str(root)).build(directory=str(tmp_path)))
    with zipfile.ZipFile(wheel) as archive:
        held = archive.read("xai_lib/reporting/published.csv")
    assert held == (root / "xai_lib" / "reporting" / "published.csv").read_bytes()


CURVES = {
    "r": "random",
    "gs": "gradient_sensitivity",
    "gi": "gradient_x_input:reduce=l2sq",
    "lrp": "lrp_alpha_beta:compat=reference",
    "lat": "lat",
}
SETS = {"SST-5": "sst5", "SemEval": "semeval", "IMDb": "imdb", "Yelp": "yelp5"}


def test_published_curves_are_the_stored_ones():
    numbers = json.loads((GOLDENS / "bert" / "published_numbers.json").read_text())
    seen = 0
    for key, values in numbers["word_deletion_accuracy_k1_to_k10"].items():
        data, _, method = key.rpartition("-")  # noqa: RUF059
        rows = published_curves("word-deletion", SETS[data]).query("method == @CURVES[@method]")
        expected = {k: value for k, value in enumerate(values) if value is not None}
        assert dict(zip(rows["step"], rows["value"], strict=True)) == expected
        seen += len(rows)
    assert seen == sum(len(published_curves("word-deletion", name)) for name in SETS.values())
    stored = next(value for key, value in numbers.items() if key.startswith("random_init"))
    found = published_curves("random-init", "sst5").set_index("method")["value"]
    assert found.to_dict() == {CURVES[m]: pytest.approx(r, abs=1e-6) for m, r in stored.items()}
    assert not len(published_curves("word-deletion", "reviews"))
    with pytest.raises(OptionError, match="word-deletion"):
        published_curves("deletion", "sst5")
