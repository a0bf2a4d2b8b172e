"""The benchmark's tables (CSV, Markdown) and its plot."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from xai_lib.files.writing import write_text

# Sections of the page, in order; a run with --only renews its own and leaves the others.
TITLES = {
    "import": "Import",
    "ratios": "Ratios",
    "examination": "The first call",
    "completeness": "Complete integrated gradients",
    "text_ratios": "Ratios on texts",
    "stream_ratios": "Ratios on text and image",
    "pruning": "Pruning curves in one batch",
    "memory": "Memory",
    "scaling": "Scaling",
    "perturbation_stream": "Perturbation stream",
    "memory_of_a_run": "Memory over a run of 10,000 images",
    "gpu_float32": "GPU, float32",
    "gpu_bfloat16": "GPU, bfloat16",
    "gpu_text_ratios": "GPU, ratios on texts",
    "gpu_stream_ratios": "GPU, ratios on text and image",
    "gpu_pruning": "GPU, pruning curves in one batch",
    "gpu_perturbation_stream": "GPU, perturbation stream",
}
NOTES = {
    "ratios": "Time over B's.",
    "examination": "Time over B's of a first call, which examines the model "
    "(docs/examination.md), of a later one, and of one with check=False.",
    "completeness": "How far the sum is from what the score gained, as a share, and the gradients "
    "that it took; ViT-B/16 with random weights, pixels of a normal distribution, one image.",
    "text_ratios": "Time over B's, BERT-base with random weights, without padding; B's gradient is "
    "that at the word embeddings.",
    "stream_ratios": "Time over B's, random weights. LXMERT of its published size on 20 tokens and "
    "36 regions, B's gradient at word embeddings and regions; CLIP ViT-B/32, where B is one image "
    "with one text.",
    "pruning": "Ten fractions of one question as one batch with a mask each, over ten passes of "
    "that question without masks (over_plain) and with them (over_masked); LXMERT, batch 1.",
    "perturbation_stream": "Images per second of the perturbation evaluator's stream over those of "
    "plain forward passes at the same batch size, ranking and masking included; ViT-B/16, float32.",
    "memory_of_a_run": "Resident memory of the process that computes, after each shard: "
    "`xai evaluate localisation --methods raw_attention` on `vit-scenes`.",
}
LONGEST = 80


def write(tables: dict[str, pd.DataFrame], environment: dict[str, str], folder: Path) -> None:
    """Write each table as CSV, plots as PNG and PDF, and README.md over all that the folder has."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = folder / "environment.json"
    measured_on = json.loads(stored.read_text()) if stored.is_file() else {}
    for name, table in tables.items():
        table.round(4).to_csv(folder / f"{name}.csv", index=False)
        measured_on[name] = environment
    write_text(stored, json.dumps(measured_on, indent=1) + "\n")
    for name, plot in PLOTS.items():
        if name in tables:
            _save(plot(tables[name]), folder / name)
    write_text(folder / "README.md", _page(folder, measured_on))


def _page(folder: Path, measured_on: dict[str, dict[str, str]]) -> str:
    text = [
        "# Benchmark",
        "",
        "Written by `make bench`. B is a plain forward pass and the gradient to the input with "
        "frozen parameters, at the same batch, timed next to each method; the median of the "
        "rounds' ratios counts, `low` and `high` are their extremes. `target` is what "
        "the project asks for. B runs on torch's own kernels; `XAI_GEMM=blas make bench` keeps the "
        "explanations to those as well.",
    ]
    for name, title in TITLES.items():
        file = folder / f"{name}.csv"
        if not file.is_file():
            continue
        table = pd.read_csv(file)
        facts = ", ".join(f"{key}: {value}" for key, value in measured_on.get(name, {}).items())
        text += ["", f"## {title}", "", *([NOTES[name], ""] if name in NOTES else []), facts, ""]
        if name in PLOTS:
            text += [f"![{title}]({name}.png)", ""]
        long = len(table) > LONGEST
        text.append(f"[{name}.csv]({name}.csv)" if long else _markdown(table))
    return "\n".join(text) + "\n"


def _markdown(table: pd.DataFrame) -> str:
    """Return the table with three significant digits, and nothing where there is no number."""
    shown = table.map(lambda x: f"{x:.3g}" if isinstance(x, float) else x).replace("nan", "")
    return shown.to_markdown(index=False, disable_numparse=True)


def _save(figure, stem: Path) -> None:
    for suffix in (".png", ".pdf"):
        figure.savefig(stem.with_suffix(suffix), dpi=150, bbox_inches="tight")


def _ratio_plot(table: pd.DataFrame):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5))
    single = table[table["batch"] == 1].sort_values("ratio", ascending=False)
    spread = [single["ratio"] - single["low"], single["high"] - single["ratio"]]
    axes.barh(single["method"], single["ratio"], xerr=spread, color="#4c72b0", label="batch 1")
    axes.plot(single["target"], single["method"], "k|", markersize=16, label="target")
    axes.set_xscale("log")
    axes.set_xlabel("time relative to B (forward + gradient to the input)")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    plt.close(figure)
    return figure


def _scaling_plot(table: pd.DataFrame):
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 4, figsize=(15, 3.4), sharey=False)
    for axes, (axis, rows) in zip(panels, table.groupby("axis", sort=False), strict=True):
        column = "images_per_second" if axis == "batch" else "ratio"
        for method, line in rows.groupby("method", sort=False):
            axes.plot(line["value"], line[column], "o-", label=method)
        axes.set_xlabel(axis)
        axes.set_ylabel("images per second" if axis == "batch" else "time relative to B")
        axes.set_xticks(sorted(rows["value"].unique()))
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="upper center", ncols=5, frameon=False, bbox_to_anchor=(0.5, 0)
    )
    plt.close(figure)
    return figure


def _run_plot(table: pd.DataFrame):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    axes.plot(table["images"], table["rss_mb"], color="#4c72b0")
    axes.set_xlabel("images evaluated")
    axes.set_ylabel("resident memory (MiB)")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    plt.close(figure)
    return figure


PLOTS = {"ratios": _ratio_plot, "scaling": _scaling_plot, "memory_of_a_run": _run_plot}
