"""The command `xai finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xai_lib.errors import RunInterrupted


def finetune(
    base: Annotated[str, typer.Option(help="minilm, a model of `xai models`, hf:NAME or folder.")],
    dataset: Annotated[str, typer.Option(help="Training set, a name of `xai datasets`.")],
    out: Annotated[Path, typer.Option(help="The model's folder; the same command resumes it.")],
    validation: Annotated[
        str | None, typer.Option(help="Chooses the checkpoint; default: cut off the training set.")
    ] = None,
    test: Annotated[str | None, typer.Option(help="Scored once, at the end.")] = None,
    data: Annotated[Path | None, typer.Option(help="Where the data sets lie.")] = None,
    validation_share: Annotated[float, typer.Option(help="Cut off, at most 2,000 texts.")] = 0.1,
    epochs: Annotated[int, typer.Option(help="Passes over the training set.")] = 3,
    lr: Annotated[float, typer.Option(help="Highest learning rate.")] = 3e-5,
    batch_size: Annotated[int, typer.Option(help="Texts a step.")] = 32,
    max_length: Annotated[
        int | None, typer.Option(help="Tokens to cut texts after; default: refuse too long ones.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the head, the order and the dropout.")] = 0,
    limit: Annotated[int | None, typer.Option(help="So many samples, evenly spread.")] = None,
    checks: Annotated[int, typer.Option(help="Validations and checkpoints an epoch.")] = 2,
    warmup: Annotated[float, typer.Option(help="Share of the steps.")] = 0.06,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 0.01,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    device: Annotated[str, typer.Option(help="auto or cpu.")] = "auto",
    base_revision: Annotated[str | None, typer.Option(help="Commit of the hub.")] = None,
    dataset_revision: Annotated[str | None, typer.Option(help="Commit of the hub.")] = None,
) -> None:
    """Fine-tune a text classifier; the best checkpoint by validation accuracy is kept."""
    try:
        from xai_lib.checkpoints.finetuning import finetune as train

        done = train(
            base,
            dataset,
            out,
            validation=validation,
            test=test,
            data=data,
            validation_share=validation_share,
            epochs=epochs,
            lr=lr,
            batch_size=batch_size,
            max_length=max_length,
            seed=seed,
            limit=limit,
            checks=checks,
            warmup=warmup,
            weight_decay=weight_decay,
            precision=precision,
            device=device,
            base_revision=base_revision,
            dataset_revision=dataset_revision,
        )
    except KeyboardInterrupt as stop:
        raise RunInterrupted(
            f"Interrupted. The same command goes on from the last checkpoint in {out}."
        ) from stop
    for name in ("validation", "test"):
        found = done.metrics[name]
        if found is not None:
            low, high = found["interval"]
            print(
                f"{name:<10} {found['accuracy']:7.2%} ({low:.2%} to {high:.2%}), n = {found['n']}, "
                f"{found['source']}"
            )
    print(f"Saved: {done.path}")
