"""The command `xai prune`: a checkpoint without the heads that count least on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def prune(
    model: Annotated[str, typer.Argument(help="A name of `xai models`, hf:NAME or a folder.")],
    dataset: Annotated[str, typer.Option(help="A name of `xai datasets`; ranks and tests.")],
    out: Annotated[Path, typer.Option(help="A new folder for the checkpoint.")],
    fraction: Annotated[float, typer.Option(help="Share of the heads to prune, 0 to 1.")] = 0.4,
    method: Annotated[
        str, typer.Option(help="grad_x_attention, lrp, taylor or random.")
    ] = "taylor",
    order: Annotated[
        str, typer.Option(help="negative prunes the smallest scores first, positive the largest.")
    ] = "negative",
    level: Annotated[
        str, typer.Option(help="head, or block: whole layers with their feed-forward part.")
    ] = "head",
    per_layer: Annotated[
        bool, typer.Option("--per-layer", help="Prune the same share of every layer's heads.")
    ] = False,
    samples: Annotated[int, typer.Option(help="Samples that rank the heads.")] = 200,
    test: Annotated[int, typer.Option(help="Other samples, which accuracy is measured on.")] = 200,
    batch_size: Annotated[int, typer.Option(help="Samples a pass.")] = 16,
    seed: Annotated[int, typer.Option(help="Chooses the samples, and the random scores.")] = 0,
    data: Annotated[Path | None, typer.Option(help="Where the data set lies.")] = None,
) -> None:
    """Prune a model by one ranking of its heads on a data set; write it as transformers does.

    The checkpoint loads with from_pretrained like any other. pruning.json says which heads went,
    whether their weights could be removed or had to be zeroed, and speed and accuracy before and
    after.
    """
    from xai_lib.checkpoints.pruning import prune_checkpoint

    report = prune_checkpoint(
        model,
        dataset,
        out,
        fraction,
        method=method,
        order=order,
        level=level,
        per_layer=per_layer,
        samples=samples,
        test=test,
        batch_size=batch_size,
        seed=seed,
        data=data,
    )
    _print(report)
    print(f"Saved: {out}")


def _print(report: dict) -> None:
    rows = {
        "accuracy": ("accuracy", "{:.2%}"),
        "ms a sample": ("ms_per_sample", "{:.2f}"),
        "parameters": ("parameters", "{:,}"),
    }
    print(f"{'':<12} {'before':>12} {'after':>12}")
    for title, (key, form) in rows.items():
        before, after = (form.format(report[key][name]) for name in ("before", "after"))
        print(f"{title:<12} {before:>12} {after:>12}")
    print(f"n = {report['n']} samples that took no part in the ranking of {report['samples']}.")
    print(report["statement"])
