"""The commands `xai evaluate`, `xai plan` and `xai datasets`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xai_lib.errors import OptionError, RunInterrupted
from xai_lib.options import parse_pair

if TYPE_CHECKING:
    from pandas import DataFrame

Options = Annotated[
    list[str] | None, typer.Option("--option", help="Of the evaluator, key=value; repeatable.")
]
Methods = Annotated[
    str,
    typer.Option(help="a,b:OPTION=VALUE,c or all (`xai methods`; of pruning: head scores)."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
BatchSize = Annotated[int, typer.Option(help="Images, texts or questions per forward pass.")]
Dtype = Annotated[str, typer.Option(help="float32, float64, bfloat16 or float16.")]


def evaluate(
    evaluator: Annotated[
        str,
        typer.Argument(
            help="Of images: segmentation, perturbation, insertion_deletion, localisation, sanity, "
            "agreement, stability. Of texts: rationales, text_perturbation, word_deletion, "
            "word_scores. Of questions: question_perturbation, evidence. Of all: pruning.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str, typer.Option(help="A name of `xai models`, timm:NAME, hf:NAME or a folder.")
    ],
    dataset: Annotated[str, typer.Option(help="A name of `xai datasets`.")],
    out: Annotated[Path, typer.Option(help="The run's folder; the same command resumes it.")],
    methods: Methods = "all",
    data: Annotated[Path | None, typer.Option(help="Where the data set lies.")] = None,
    option: Options = None,
    limit: Annotated[int | None, typer.Option(help="So many samples, evenly spread.")] = None,
    batch_size: BatchSize = 8,
    shards: Annotated[
        int | None, typer.Option(help="Files to cut the records into; default: 64 samples each.")
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    resample: Annotated[str, typer.Option(help="bilinear (the papers') or bicubic.")] = "bilinear",
    workers: Annotated[int, typer.Option(help="Processes that read samples.")] = 0,
    cluster: Annotated[
        str | None, typer.Option(help="local:N, tcp://HOST:PORT or a dask-jobqueue YAML file.")
    ] = None,
    keep_maps: Annotated[bool, typer.Option("--keep-maps", help="Store relevance maps.")] = False,
    model_revision: Annotated[str | None, typer.Option(help="Commit of the hub.")] = None,
    dataset_revision: Annotated[str | None, typer.Option(help="Commit of the hub.")] = None,
) -> None:
    """Evaluate methods on a data set: a table with intervals, from a run that resumes."""
    options = _options(option, "compat=reference")
    try:
        from xai_lib.runs import evaluate as start

        run = start(
            evaluator,
            model,
            dataset,
            methods,
            out,
            options=options,
            device=device,
            workers=workers,
            cluster=cluster,
            data=data,
            limit=limit,
            batch_size=batch_size,
            shards=shards,
            dtype=dtype,
            resample=resample,
            keep_maps=keep_maps,
            model_revision=model_revision,
            dataset_revision=dataset_revision,
        )
    except KeyboardInterrupt as stop:
        raise RunInterrupted(
            f"Stopped before the work began. The same command goes on with what is in {out}."
        ) from stop
    print_table(run.summary())
    seeds = ", ".join(f"{name} {seed}" for name, seed in run.description["seeds"].items())
    print(f"\n95 % bootstrap intervals over samples; seeds: {seeds}.")
    for failure in run.failures():
        print(failure)
    print(f"Run: {run.path} (run.json, records/, summary.csv, comparisons.csv)")


def plan(
    evaluator: Annotated[str, typer.Argument(help="As for `xai evaluate`.", show_default=False)],
    model: Annotated[str, typer.Option(help="As for `xai evaluate`; weights are not needed.")],
    methods: Methods = "all",
    samples: Annotated[int, typer.Option(help="Samples of the planned run.")] = 50_000,
    nodes: Annotated[int, typer.Option(help="Devices like this one that share the work.")] = 1,
    option: Options = None,
    batch_size: BatchSize = 8,
    device: Device = "auto",
    dtype: Dtype = "float32",
    repeats: Annotated[int, typer.Option(help="Measured batches per method.")] = 1,
    tokens: Annotated[int, typer.Option(help="Length of a text, special tokens included.")] = 128,
) -> None:
    """Measure each method on this machine and project what a full table costs."""
    options = _options(option, "steps=9")
    from xai_lib.runs.plan import plan as measure

    planned = measure(
        evaluator,
        model,
        methods,
        options=options,
        samples=samples,
        nodes=nodes,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        repeats=repeats,
        tokens=tokens,
    )
    print_table(planned.table)
    print(f"\n{planned.note}")


def _options(texts: list[str] | None, example: str) -> dict[str, object]:
    pairs = [parse_pair(text, example) for text in texts or []]
    twice = sorted({name for name, _ in pairs if [n for n, _ in pairs].count(name) > 1})
    if twice:
        raise OptionError(f"--option {twice[0]} is given twice; give each option once.")
    return dict(pairs)


def datasets() -> None:
    """List the data sets: what each has, whether it is here, and where it comes from."""
    from xai_lib.datasets import datasets_table

    print_table(datasets_table())


def print_table(frame: DataFrame) -> None:
    """Print a table for people: four significant digits, nothing where there is no number."""
    shown = frame.map(lambda x: f"{x:.4g}" if isinstance(x, float) else x)
    shown = shown.astype(str).replace({"nan": "", "None": ""})
    print(shown.to_markdown(index=False, tablefmt="simple", disable_numparse=True))
