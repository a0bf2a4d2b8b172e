"""The command `xai`: list what there is, render the report, check the machine, and all others."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from xai_lib.cli import evaluate as cli_evaluate
from xai_lib.cli import explain as cli_explain
from xai_lib.cli import finetune as cli_finetune
from xai_lib.cli import methods as cli_methods
from xai_lib.cli import prune as cli_prune
from xai_lib.cli import rationales as cli_rationales
from xai_lib.cli.methods import print_table
from xai_lib.errors import RunInterrupted, XAIError, needs_extra

# Each command imports what it needs when it runs, so that `xai --help` need not load torch.
app = typer.Typer(
    help="Explain any unmodified transformer, and regenerate the papers that claim to.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run `xai`; an error of this package becomes one line on stderr and exit status 2.

    130 after Ctrl-C, as shells expect.
    """
    try:
        app()
    except RunInterrupted as stop:
        print(f"xai: {stop}", file=sys.stderr)
        sys.exit(130)
    except XAIError as error:
        print(f"xai: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


app.command()(cli_explain.explain)


app.command()(cli_methods.methods)


@app.command()
def models() -> None:
    """List the embedded models and the papers' checkpoints."""
    from xai_lib.models import models as known_models

    print_table(known_models())
    print("Also: timm:NAME, hf:NAME and folders with config.json and model.safetensors.")


@app.command()
def report(
    profile: Annotated[str, typer.Option(help="embedded (offline) or paper.")] = "embedded",
    only: Annotated[str, typer.Option(help="Notebooks by number or name, as in 01,02.")] = "",
    out: Annotated[Path | None, typer.Option(help="Folder; default: reports/PROFILE.")] = None,
) -> None:
    """Render the notebooks into a report; exit status 1 if one of them failed."""
    needs_extra("workbook", "papermill", "nbconvert", "ipykernel", "latex2mathml")
    from xai_lib.reporting.render import render_report

    outcomes = render_report(profile, [name for name in only.split(",") if name], out)
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    for outcome in failed:
        print(f"xai: {outcome.name} failed: {outcome.error}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


@app.command()
def doctor(
    model: Annotated[str, typer.Option(help="Examine this model instead of the machine.")] = "",
    image: Annotated[Path | None, typer.Option("--input", help="An image file for it.")] = None,
    text: Annotated[list[str] | None, typer.Option(help="A text for it; several for CLIP.")] = None,
) -> None:
    """Show versions, devices, extras, checkpoints and data sets; or examine a model.

    Of a model on an image, a text or both: what methods take for granted, as `xai.examine` measures
    it. Exit status 1 if an assumption fails.
    """
    from xai_lib.cli.doctor import examined, facts

    if model or image is not None or text:
        examination = examined(model, image, text or [])
        print(examination)
        raise typer.Exit(0 if examination.holds else 1)
    for section, states in facts().items():
        print(section)
        for name, state in states.items():
            print(f"  {name:<46} {state}")


app.command()(cli_evaluate.evaluate)
app.command()(cli_evaluate.plan)
app.command()(cli_evaluate.datasets)
app.command()(cli_finetune.finetune)
app.command()(cli_prune.prune)
app.add_typer(cli_rationales.app, name="rationales")
