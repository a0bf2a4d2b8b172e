"""Tables in the papers' layout say what the summary says, mark the best, and typeset."""

import re

import numpy as np
import pandas as pd
import pytest

from xai_lib.errors import InputError, OptionError
from xai_lib.evaluators.insertion_deletion import InsertionDeletion
from xai_lib.evaluators.perturbation import Perturbation
from xai_lib.evaluators.segmentation import Segmentation
from xai_lib.reporting import beside, directions, paper_table, save_table

VIT_B = "timm:vit_base_patch16_224.orig_in21k_ft_in1k"


def segmentation():
    rows = [
        ("rollout", "pixel_accuracy", 73.544, 73.1, 74.0),
        ("rollout", "mIoU", 55.42, 54.9, 55.9),
        ("rollout", "mF1", 0.412345, 0.4, 0.42),
        ("transformer_attribution", "pixel_accuracy", 79.70, 79.2, 80.11),
        ("transformer_attribution", "mIoU", 61.954, 61.24, 62.66),
        ("transformer_attribution", "mF1", 0.41239, 0.4, 0.43),
        ("a|b_c", "pixel_accuracy", 50.0, np.nan, np.nan),
        ("a|b_c", "mIoU", np.nan, np.nan, np.nan),
        ("a|b_c", "mF1", 0.1, 0.0, 0.2),
    ]
    frame = pd.DataFrame(rows, columns=["method", "metric", "value", "low", "high"])
    return frame.assign(n=[512] * 6 + [1, 0, 500], failed=[0] * 6 + [511, 512, 12])


def perturbation(methods=("rollout", "attn_gradcam")):
    rows = []
    for i, method in enumerate(methods):
        for explained in ("predicted", "target"):
            for order in ("positive", "negative"):
                value = 20.0 + 7 * i + (30 if order == "negative" else 0)
                rows.append((method, explained, order, "auc_cvpr21", value))
    frame = pd.DataFrame(rows, columns=["method", "explained", "order", "metric", "value"])
    return frame.assign(low=frame["value"] - 1, high=frame["value"] + 1, n=100, failed=0)


def test_cells_are_values_with_intervals():
    table = paper_table(segmentation(), better=directions(Segmentation.metrics))
    assert list(table.shown) == [
        "method", "pixel accuracy (%)", "mean IoU (%)", "mean F1 (%)", "n", "failed",
    ]  # fmt: skip
    shown = table.shown.set_index("method")
    assert shown.loc["transformer_attribution", "mean IoU (%)"] == "61.95 [61.2, 62.7]"
    assert shown.loc["a|b_c", "mean IoU (%)"] == "", "no value is an empty cell"
    assert shown.loc["a|b_c", "pixel accuracy (%)"] == "50.00", "one sample has no interval"
    assert shown["n"].tolist() == ["512", "512", "0-500"]
    assert shown["failed"].tolist() == ["0", "0", "12-512"]
    pd.testing.assert_frame_equal(table.numbers, segmentation())


def test_what_rounds_to_zero_has_no_sign():
    rows = [("a", "x", -0.0004, -0.004, 0.004), ("b", "x", 0.5, 0.4, 0.6)]
    frame = pd.DataFrame(rows, columns=["method", "metric", "value", "low", "high"])
    shown = paper_table(frame.assign(n=3, failed=0)).shown
    assert shown["x"].tolist() == ["0.000 [0.00, 0.00]", "0.500 [0.40, 0.60]"]


def test_the_best_is_marked_as_rounded():
    better = {"pixel_accuracy": "high", "mIoU": "high", "mF1": "high"}
    best = paper_table(segmentation(), better=better).best
    assert best["pixel accuracy (%)"].tolist() == [False, True, False]
    assert best["mean F1 (%)"].tolist() == [True, True, False], "0.412 and 0.412 are a tie"
    worst = paper_table(segmentation(), better={"mIoU": "low"}).best
    assert worst["mean IoU (%)"].tolist() == [True, False, False], "no value is never the best"
    assert not worst.drop(columns="mean IoU (%)").any(axis=None)
    assert not paper_table(segmentation()).best.any(axis=None)


def test_orders_decide_which_end_is_better():
    better = directions(Perturbation.metrics)
    table = paper_table(perturbation(), columns=("order", "explained"), better=better)
    assert table.shown.columns.tolist() == [
        ("method", ""), ("positive", "predicted class"), ("positive", "target class"),
        ("negative", "predicted class"), ("negative", "target class"), ("n", ""),
    ]  # fmt: skip
    assert table.best[("positive", "target class")].tolist() == [True, False]
    assert table.best[("negative", "target class")].tolist() == [False, True]
    assert directions(InsertionDeletion.metrics)["deletion"] == "low"
    assert directions(Segmentation.metrics)["mIoU"] == "high"
    by_column = paper_table(perturbation(), better={"predicted": "low"})
    assert by_column.shown.columns[1] == ("AUC, CVPR'21 (%)", "predicted class", "positive")


def test_published_numbers_come_with_difference_and_source(tmp_path):
    published = "rollout:start_layer=1"
    ours = perturbation((published, "attn_gradcam"))
    joined = beside(ours, VIT_B, "cvpr21-perturbation", dataset="imagenet-val")
    table = paper_table(joined, columns=("order", "explained"))
    shown = table.shown.set_index(("method", "", ""))
    at = ("positive", "predicted class")
    assert shown.loc[published, (*at, "published")] == "20.05"
    assert shown.loc[published, (*at, "difference")] == "-0.05"
    assert shown.loc["attn_gradcam", ("positive", "target class", "difference")] == "-6.56"
    assert shown.loc[published, ("positive", "target class", "published")] == "", "not found"
    table.save("t", "AUC", tmp_path)
    markdown = (tmp_path / "tables" / "t.md").read_text()
    assert markdown.startswith("**AUC. Published: Chefer et al., CVPR 2021, as given by Athan")
    assert "[read]" in markdown.splitlines()[0]
    embedded = beside(ours, "vit-scenes", "cvpr21-perturbation", dataset="scenes")
    table = paper_table(embedded, columns=("order", "explained"))
    assert table.credit == "" and "published" not in str(table.shown.columns.tolist())
    table.save("e", "AUC", tmp_path)
    for path in (tmp_path / "tables").glob("e.*"):
        assert "ublished" not in path.read_text() and "20.05" not in path.read_text()


def test_the_files_of_a_table(tmp_path):
    table = paper_table(segmentation(), better=directions(Segmentation.metrics))
    shown = table.save("t", "50 % of it", tmp_path)
    csv, markdown, latex = (tmp_path / "tables" / f"t.{kind}" for kind in ("csv", "md", "tex"))
    pd.testing.assert_frame_equal(pd.read_csv(csv), segmentation(), check_exact=True)
    assert {"value", "low", "high", "n"} <= set(pd.read_csv(csv))
    text = markdown.read_text()
    assert "**61.95 [61.2, 62.7]**" in text and r"a\|b_c" in text and "55.42 [54.9" in text
    assert "**55.42" not in text
    lines = latex.read_text().splitlines()
    assert lines[0].startswith("%") and r"\usepackage{booktabs}" in lines[0]
    text = "\n".join(lines)
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert text.count(rule) == 1
    assert r"\textbf{61.95 [61.2, 62.7]}" in text and r"a|b\_c" in text
    assert r"pixel accuracy (\%)" in text and r"\begin{tabular}{lrrrrr}" in text
    assert "|" not in re.search(r"begin\{tabular\}\{(.*?)\}", text)[1]
    html = shown._repr_html_()
    assert "<b>61.95 [61.2, 62.7]</b>" in html and "50 % of it" in html


def test_headings_of_several_levels(tmp_path):
    table = paper_table(perturbation(), columns=("order", "explained"))
    table.save("t", "c", tmp_path)
    text = (tmp_path / "tables" / "t.md").read_text()
    assert "positive / predicted class" in text and "| method " in text
    text = (tmp_path / "tables" / "t.tex").read_text()
    assert text.count(r"\multicolumn{2}{c}{positive}") == 1
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    widths = [
        line.count("&") + sum(int(n) - 1 for n in re.findall(r"multicolumn\{(\d)", line))
        for line in rows
    ]
    assert len(set(widths)) == 1, "all rows have as many cells"


def test_bold_must_fit_the_table(tmp_path):
    frame = pd.DataFrame({"x": [1.0, 2.0]})
    mask = pd.DataFrame({"x": [False, True]})
    save_table(frame, "t", "c", tmp_path, bold=mask)
    assert r"\textbf{2.000}" in (tmp_path / "tables" / "t.tex").read_text()
    with pytest.raises(OptionError, match=r"bold .*\(1, 1\)"):
        save_table(frame, "u", "c", tmp_path, bold=mask[:1])
    assert not list((tmp_path / "tables").glob("*u.*")), "nothing half-written"


def test_summaries_that_make_no_table():
    with pytest.raises(InputError, match="failed"):
        paper_table(segmentation().drop(columns="failed"))
    with pytest.raises(OptionError, match="Did you mean 'mIoU'"):
        paper_table(segmentation(), metrics=["mIou"])
    with pytest.raises(InputError, match=r"several rows for .*order"):
        paper_table(perturbation(), columns=("metric", "explained"))
    with pytest.raises(InputError, match="expected 'high' or 'low'"):
        paper_table(segmentation(), better={"mIoU": "up"})
    only = paper_table(segmentation(), metrics=["mF1", "mIoU"])
    assert list(only.shown)[1:3] == ["mean F1 (%)", "mean IoU (%)"]
