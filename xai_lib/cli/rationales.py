"""The commands `xai rationales export` and `xai rationales score`: to and from ERASER's files."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xai_lib.errors import InputError, OptionError
from xai_lib.files.writing import write_text

if TYPE_CHECKING:
    from xai_lib.datasets.base import TextDataset
    from xai_lib.runs import Run

app = typer.Typer(help="Rationales in the format of the ERASER benchmark.", no_args_is_help=True)

Data = Annotated[Path | None, typer.Option(help="Where the data set lies.")]


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run of the evaluator rationales.")],
    out: Annotated[Path, typer.Option(help="Folder; each method gets one inside.")],
    data: Data = None,
) -> None:
    """Write METHOD/identifier_results_K.json for every K of a run, for ERASER's own scorer."""
    from xai_lib.evaluators.eraser.export import as_results
    from xai_lib.evaluators.eraser.results import write_results
    from xai_lib.runs import Run

    if out.exists() and not out.is_dir():
        raise OptionError(f"--out {out} is a file; expected a folder.")
    opened = Run(run)
    if opened.config.evaluator != "rationales":
        raise OptionError(
            f"{run} is a run of {opened.config.evaluator!r}; expected one of 'rationales'."
        )
    dataset = _dataset(opened.config.dataset, data, opened.config.dataset_revision)
    names, documents = _classes(opened, dataset), _documents(dataset)
    records, evaluator = opened.records(), opened.evaluator
    for method in opened.config.methods:
        folder = out / re.sub(r"[^\w.=-]", "_", method)
        for k in evaluator.ks:
            results = as_results(records, method, k, names, documents, evaluator.thresholds)
            write_results(results, folder / f"identifier_results_{k}.json")
        print(f"{folder}: identifier_results_K.json, K = {', '.join(map(str, evaluator.ks))}")


@app.command()
def score(
    file: Annotated[Path, typer.Argument(help="identifier_results_K.json of any program.")],
    dataset: Annotated[str, typer.Option(help="A name of `xai datasets` with rationales.")],
    data: Data = None,
    out: Annotated[Path | None, typer.Option(help="A .json file for all scores.")] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Leave out annotations without a result.")
    ] = False,
) -> None:
    """Score results in ERASER's format as the benchmark does, and print its scores as JSON.

    As there, an annotation without a result counts 0, unless --partial leaves it out.
    """
    from xai_lib.datasets.texts.eraser import annotation_of
    from xai_lib.evaluators.eraser.results import read_results
    from xai_lib.evaluators.eraser.scores import score_results

    results = read_results(file)
    opened = _dataset(dataset, data)
    annotations = [annotation_of(opened, i) for i in range(len(opened))]
    given = {result["annotation_id"] for result in results}
    missing = sum(a.annotation_id not in given for a in annotations)
    if missing and not partial:
        print(
            f"{missing} of {len(annotations)} annotations have no result and count 0, as in the "
            "benchmark; --partial leaves them out.",
            file=sys.stderr,
        )
    wanted = {r["docid"] for result in results for r in result["rationales"]}
    places = {a.docid: i for i, a in enumerate(annotations)}
    # A line is a sentence there, which scores per sentence need.
    lines = {d: opened[places[d]].text.splitlines() for d in sorted(wanted & places.keys())}
    words = {d: [line.split() for line in text if line.strip()] for d, text in lines.items()}
    if partial:
        annotations = [a for a in annotations if a.annotation_id in given]
    text = json.dumps(score_results(results, annotations, words), indent=2)
    if out is not None:
        write_text(out, f"{text}\n")
    print(text)


def _dataset(name: str, data: Path | None, revision: str | None = None) -> TextDataset:
    from xai_lib.datasets import open_dataset

    opened = open_dataset(name, path=data, revision=revision)
    if not getattr(opened, "has_rationales", False):
        raise InputError(
            f"The data set {name!r} has no rationales; `xai datasets` shows which sets have."
        )
    return opened


def _documents(dataset: TextDataset) -> dict[str, str]:
    """Return the document of each annotation."""
    from xai_lib.datasets.texts.eraser import annotation_of

    entries = (annotation_of(dataset, i) for i in range(len(dataset)))
    return {entry.annotation_id: entry.docid for entry in entries}


def _classes(run: Run, dataset: TextDataset) -> list[str]:
    """Return what the data set calls each class of the model."""
    rows = run.records()["probabilities"].dropna()
    count = len(rows.iloc[0]) if len(rows) else 0
    places = run.description["model"].get("class_of_label", range(count))
    names = [f"class {i}" for i in range(count)]
    for name, place in zip(dataset.class_names or (), places, strict=False):
        names[place] = name
    return names
