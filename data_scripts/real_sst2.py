"""All methods on a fine-tuned model and the real SST-2: Wu & Ong's word deletion, with a control.

    XAI_SST2=DATA python data_scripts/real_sst2.py runs/minilm-sst2

The model is a folder that `xai finetune` made. Scores are computed once a sentence of the dev set;
then its k most relevant tokens are blanked, k = 1, ..., 10 (Wu & Ong 2021, section 3.2.2). Tables,
figure and their provenance go to reports/real; the run itself resumes.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from pathlib import Path
from typing import Annotated

import typer
from pandas import DataFrame

import xai_lib as xai
from xai_lib.datasets import open_dataset
from xai_lib.files.writing import write_text
from xai_lib.plots.text_curves import word_deletion_curves
from xai_lib.reporting.artifacts import save_figure, save_table
from xai_lib.runs import Run
from xai_lib.runs.fingerprints import current_platform
from xai_lib.statistics.summary import curve

ROOT = Path(__file__).resolve().parents[1]
CONTROL = "random"
RELEVANCE = "LRP-type"


def wide(curves: DataFrame) -> DataFrame:
    """Return accuracy in per cent, a row a method and a column a number of deleted tokens."""
    frame = curves.assign(k=curves["step"] + 1, value=100 * curves["value"])
    table = frame.pivot(index="method", columns="k", values="value")
    table.columns = [f"k={k}" for k in table.columns]
    return table.loc[list(dict.fromkeys(curves["method"]))].reset_index()


def against_control(run: Run, metric: str = "accuracy_mean") -> DataFrame:
    """Return by how many points each method beats the control: control - method, and whether."""
    found = run.comparisons()
    found = found[found["metric"] == metric]
    families = {row.name: row.family for row in xai.methods().itertuples()}
    rows = []
    for row in found.itertuples():
        if CONTROL not in (row.method_a, row.method_b):
            continue
        method = row.method_b if row.method_a == CONTROL else row.method_a
        sign = 1 if row.method_a == CONTROL else -1
        low, high = sorted((sign * row.low, sign * row.high))
        rows.append(
            {
                "method": method,
                "family": families[method.partition(":")[0]],
                "points below random": sign * row.difference,
                "low": low,
                "high": high,
                "p (Holm)": row.p_holm,
                "n": row.n,
                "beats random": low > 0 and row.p_holm < 0.05,
            }
        )
    return DataFrame(rows).sort_values("points below random", ascending=False, ignore_index=True)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verdict(control: DataFrame) -> list[str]:
    """Return what the table says about the LRP-type methods, in words."""
    lrp = control[control["family"].str.contains("LRP")]
    won = lrp[lrp["beats random"]]["method"].tolist()
    lost = lrp[~lrp["beats random"]]["method"].tolist()
    lines = [f"{RELEVANCE} methods that beat the control: {', '.join(won) or 'none'}."]
    if lost:
        lines.append(f"{RELEVANCE} methods that do not: {', '.join(lost)}.")
    if "lrp" in lost:
        lines.append(
            "Full `lrp` by the z+ rule is the weakest of its family in the tables of Chefer et al. "
            "(CVPR 2021) as well: what it brings to the input hardly depends on the class. Why it "
            "does no better than chance here has not been measured further."
        )
    return lines


def readme(run: Run, model: Path, data: Path | None, minutes: float, control: DataFrame) -> str:
    """Return reports/real/README.md: what was measured, on what, with what, and the tables."""
    metrics = json.loads((model / "metrics.json").read_text(encoding="utf-8"))
    rows = [("validation", metrics["validation"]), ("test", metrics["test"])]
    reached = [
        f"{name} accuracy {found['accuracy']:.2%} (95 % interval {found['interval'][0]:.2%} to "
        f"{found['interval'][1]:.2%}, n = {found['n']}, {found['source']})"
        for name, found in rows
        if found is not None
    ]
    records = run.records()
    counted = records[records["error"].isna()].groupby("method").size()
    limit = run.description["configuration"]["limit"]
    command = ["python", "data_scripts/real_sst2.py", f"runs/{model.name}"]
    command += [] if limit is None else ["--limit", str(limit)]
    facts = [
        f"- Model: `{metrics['class']}`, base `{metrics['configuration']['base']}`, trained in "
        f"{metrics['seconds'] / 60:.1f} minutes on {metrics['threads']} threads by",
        f"  `{metrics['command']}`",
        f"- {'; '.join(reached)}",
        f"- Weights: sha256 `{sha256(model / 'model.safetensors')}`",
        *(
            f"- Data: `{file.name}`, sha256 `{sha256(file)}`"
            for file in ([] if data is None else sorted(data.glob("*.tsv")))
        ),
        f"- Run: {run.provenance}; {minutes:.1f} minutes in the last sitting",
        f"- Command: `{shlex.join(command)}`",
        f"- Sentences: {counted.min()} to {counted.max()} of {records['index'].nunique()} count a "
        "method: ten tokens or more (special ones included) and rightly classified",
        "- " + ", ".join(f"{key} {value}" for key, value in current_platform().items()),
    ]
    return "\n".join(
        [
            "# Real text: word deletion on SST-2",
            "",
            "The k most relevant tokens of a sentence become [PAD], k = 1, ..., 10; lower accuracy "
            "is better. `random` is the control.",
            "",
            "![Accuracy over deleted tokens](figures/word-deletion.png)",
            "",
            *verdict(control),
            "",
            "Tables: `tables/word-deletion` (means, intervals, n), `tables/word-deletion-k` "
            "(accuracy after each k), `tables/word-deletion-random` (paired differences from the "
            "control); each as CSV with every digit, Markdown and LaTeX.",
            "",
            "## Provenance",
            "",
            *facts,
            "",
        ]
    )


def main(
    model: Annotated[Path, typer.Argument(help="Folder that `xai finetune` made.")],
    data: Annotated[Path | None, typer.Option(envvar="XAI_SST2", help="Folder of SST-2.")] = None,
    dataset: Annotated[str, typer.Option(help="A name of `xai datasets`.")] = "sst2#dev",
    methods: Annotated[str, typer.Option(help="a,b:OPTION=VALUE or all.")] = "all",
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = ROOT / "reports" / "real",
    run_folder: Annotated[Path, typer.Option("--run", help="Folder of the run.")] = (
        ROOT / "runs" / "real-sst2"
    ),
    limit: Annotated[int | None, typer.Option(help="So many sentences, evenly spread.")] = None,
    batch_size: int = 16,
) -> None:
    """Evaluate all methods on the dev set and write the report."""
    started = time.monotonic()
    run = xai.evaluate(
        "word_deletion",
        xai.load(model),
        open_dataset(dataset, path=data if dataset.startswith("sst2") else None),
        methods,
        run_folder,
        limit=limit,
        batch_size=batch_size,
    )
    minutes = (time.monotonic() - started) / 60
    for failure in run.failures():
        print(failure)
    curves = curve(run.records(), "hits")
    control = against_control(run)
    caption = f"Word deletion on {dataset}: accuracy and probability of the label (%), mean of k"
    save_table(run.summary(), "word-deletion", caption, out, digits=2)
    save_table(
        wide(curves), "word-deletion-k", f"Accuracy (%) on {dataset} after k deletions", out, 1
    )
    save_table(
        control,
        "word-deletion-random",
        "Points of accuracy below the random control, mean of k, paired 95 % interval",
        out,
        digits=3,
    )
    save_figure(word_deletion_curves(curves), "word-deletion", out)
    write_text(out / "README.md", readme(run, model, data, minutes, control))
    print(control.to_markdown(index=False, floatfmt=".3f"))
    print("\n".join(verdict(control)))


if __name__ == "__main__":
    typer.run(main)
