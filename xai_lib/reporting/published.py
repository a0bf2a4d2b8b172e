"""The papers' published numbers, and our tables beside them.

`published.csv` has one row a number: table, dataset and metric as this package names them; method,
and label for the published setting (the evaluations of Chefer et al. leave out the first layer and
take LRP by the split rules); model as the paper names it, and the checkpoint as `load` does, where
it is known; status "read" in a source's own table, or "second-hand" from notes about it. What
nobody found is not there. The ablation's row without perception is no method of this package and is
left out.
"""

from __future__ import annotations

from pathlib import Path

from pandas import DataFrame, read_csv

from xai_lib.errors import InputError, unknown_name
from xai_lib.models.catalog import CHECKPOINTS

GROUPS = ("explained", "order")


def published(table: str | None = None, model: str | None = None) -> DataFrame:
    """Return the published numbers; values are per cent.

    table: such as "cvpr21-segmentation"; model: a paper's name ("ViT-B") or a checkpoint's. Raises
    OptionError for names that are not in the file. Empty text means that a column does not apply.
    """
    path = Path(__file__).with_name("published.csv")
    rows = read_csv(path, keep_default_na=False, dtype={"value": float}, encoding="utf-8")
    if table is not None:
        if table not in set(rows["table"]):
            raise unknown_name("published table", table, set(rows["table"]))
        rows = rows[rows["table"] == table]
    if model is not None:
        known = {*rows["model"], *rows["checkpoint"]} - {""}
        if model not in known:
            raise unknown_name("published model", model, known)
        rows = rows[(rows["model"] == model) | (rows["checkpoint"] == model)]
    return rows.reset_index(drop=True)


def published_curves(table: str, dataset: str) -> DataFrame:
    """Return published curves as `plots.word_deletion_curves` draws them: method, step, value.

    Methods are named by the label of the published setting, values lie in [0, 1]. `table`:
    "word-deletion" (accuracy after step + 1 deletions) or "random-init" (Pearson's r at step 0) of
    Wu & Ong (2021). No row for a data set of which nothing was published.
    """
    path = Path(__file__).with_name("published_curves.csv")
    rows = read_csv(path, keep_default_na=False, dtype={"value": float}, encoding="utf-8")
    if table not in set(rows["table"]):
        raise unknown_name("published curve", table, set(rows["table"]))
    rows = rows[(rows["table"] == table) & (rows["dataset"] == dataset)]
    return rows.drop(columns=["table", "dataset"]).reset_index(drop=True)


def beside(
    summary: DataFrame,
    model: str,
    table: str,
    *,
    dataset: str,
) -> DataFrame:
    """Return `summary` with published, difference (ours - published), source and status columns.

    The columns come only where `model` is a published checkpoint (by its name for `load`) and
    `dataset` the one that `table` was measured on; for anything else, such as an embedded model,
    the summary comes back without them. A number nobody published is NaN. A row of ours matches by
    its whole label, options included, since another setting is another method.
    The metric's definition is the caller's: the published mF1 is `compat="reference"` of ours.
    """
    numbers = published(table)
    for column in ("method", "metric", "value"):
        if column not in summary:
            raise InputError(f"The summary lacks the column {column!r} of a run's summary table.")
    checkpoints = {row.name for row in CHECKPOINTS}
    rows = numbers[(numbers["checkpoint"] == model) & (numbers["dataset"] == dataset)]
    if model not in checkpoints or not len(rows):
        return summary.copy()
    groups = [name for name in GROUPS if (rows[name] != "").any()]
    missing = [name for name in groups if name not in summary]
    if missing:
        raise InputError(
            f"{table} tells {', '.join(groups)} apart, but the summary has no column "
            f"{', '.join(missing)}; expected the summary of the same evaluator."
        )
    keys = ["method", *groups, "metric"]
    rows = rows.assign(method=rows["label"])[[*keys, "value", "source", "status"]]
    rows = rows.rename(columns={"value": "published"})
    found = summary[keys].merge(rows, how="left", on=keys, validate="many_to_one")
    value = found["published"].to_numpy()
    columns = {name: found[name].to_numpy() for name in ("source", "status")}
    return summary.assign(published=value, difference=summary["value"] - value, **columns)
