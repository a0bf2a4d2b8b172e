"""The benchmark's tables (CSV, Markdown) and its plot."""

from __future__ import annotations

from pathlib import Path

import pandas as pd


def write(tables: dict[str, pd.DataFrame], environment: dict[str, str], folder: Path) -> None:
    """Write each table as CSV, all of them as README.md, and the plots as PNG and PDF."""
    folder.mkdir(parents=True, exist_ok=True)
    text = [
        "# Benchmark",
        "",
        "Written by `make bench`. B is a plain forward pass and the gradient to the input with "
        "frozen parameters, at the same batch, timed next to each method; the median of the "
        "rounds' ratios counts, `low` and `high` are their extremes. `target` is what "
        "the project asks for. B runs on torch's own kernels; `XAI_GEMM=blas make bench` keeps the "
        "explanations to those as well.",
        "",
        *(f"- {key}: {value}" for key, value in environment.items()),
    ]
    for name, table in tables.items():
        table.round(4).to_csv(folder / f"{name}.csv", index=False)
        text += ["", f"## {name}", "", _markdown(table)]
    (folder / "README.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    if "ratios" in tables:
        _save(_ratio_plot(tables["ratios"]), folder / "ratios")
    if "scaling" in tables:
        _save(_scaling_plot(tables["scaling"]), folder / "scaling")


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
