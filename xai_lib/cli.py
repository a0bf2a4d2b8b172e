"""The command `xai`: explain an image, list what there is, render the report, check the machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xai_lib import cli_evaluate
from xai_lib.errors import RunInterrupted, XAIError
from xai_lib.options import parse_pair

if TYPE_CHECKING:
    from pandas import DataFrame

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


@app.command()
def explain(
    image: Annotated[Path, typer.Argument(help="Image file.", show_default=False)],
    model: Annotated[
        str, typer.Option(help="A name of `xai models`, timm:NAME, hf:NAME or a folder.")
    ],
    method: Annotated[
        str, typer.Option(help="A name of `xai methods`.")
    ] = "transformer_attribution",
    target: Annotated[str, typer.Option(help="Class number or name; default: the predicted.")] = "",
    out: Annotated[
        Path | None,
        typer.Option(help=".png, .pdf, .svg or .safetensors; default: IMAGE_METHOD.png."),
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="An option of the method, as key=value; repeatable.")
    ] = None,
) -> None:
    """Explain one image: print the leading classes and save the heat map."""
    options = dict(parse_pair(text) for text in option or [])
    import xai_lib as xai
    from xai_lib.attribution import check_path

    out = check_path(out or f"{image.stem}_{Path(method).name}.png")
    network, processor = xai.load(model)
    inputs = processor(image)
    att = xai.explain(network, inputs, method=method, target=parse_target(target), **options)
    chosen = int(att.target[0])
    probabilities = att.logits[0].float().softmax(-1)
    names = processor.class_names or [f"class {index}" for index in range(len(probabilities))]
    for index in probabilities.topk(min(5, len(probabilities))).indices.tolist():
        mark = "*" if index == chosen else " "
        print(f"{mark} {probabilities[index]:7.2%}  {names[index]} ({index})")
    print(f"Explained: {names[chosen]} ({chosen}) by {method}")
    print(f"Saved: {att.save(out)}")


@app.command()
def methods(
    markdown: Annotated[bool, typer.Option("--markdown", help="The table of the README.")] = False,
) -> None:
    """List the methods, what each needs, its options and its citation."""
    import xai_lib as xai

    table = xai.methods()
    if markdown:
        print(readme_table(table))
    else:
        _print_table(table)


@app.command()
def models() -> None:
    """List the embedded models and the papers' checkpoints."""
    from xai_lib.models import models as known_models

    _print_table(known_models())
    print("Also: timm:NAME, hf:NAME and folders with config.json and model.safetensors.")


@app.command()
def report(
    profile: Annotated[str, typer.Option(help="embedded (offline) or paper.")] = "embedded",
    only: Annotated[str, typer.Option(help="Notebooks by number or name, as in 01,02.")] = "",
    out: Annotated[Path | None, typer.Option(help="Folder; default: reports/PROFILE.")] = None,
) -> None:
    """Render the notebooks into a report; exit status 1 if one of them failed."""
    from xai_lib.reporting.render import render_report

    outcomes = render_report(profile, [name for name in only.split(",") if name], out)
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    for outcome in failed:
        print(f"xai: {outcome.name} failed: {outcome.error}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


@app.command()
def doctor() -> None:
    """Show versions, devices, extras, checkpoints and data sets."""
    from xai_lib.doctor import examine

    for section, facts in examine().items():
        print(section)
        for name, state in facts.items():
            print(f"  {name:<46} {state}")


app.command()(cli_evaluate.evaluate)
app.command()(cli_evaluate.plan)
app.command()(cli_evaluate.datasets)


def parse_target(text: str) -> int | str | None:
    """Return None for "", an int for digits, else the class name."""
    if not text:
        return None
    return int(text) if text.lstrip("-").isdecimal() else text


def readme_table(table: DataFrame) -> str:
    """Return the methods as the Markdown table that README.md holds; a test compares the two."""
    table = table[["name", "family", "class_specific", "needs", "citation"]].copy()
    table["name"] = "`" + table["name"] + "`"
    table["class_specific"] = table["class_specific"].map({True: "yes", False: "no"})
    table.columns = ["method", "family", "class-specific", "needs", "paper"]
    return table.to_markdown(index=False)


def _print_table(frame: DataFrame) -> None:
    print(frame.to_markdown(index=False, tablefmt="simple"))
