"""The command `xai explain`: an image, a text or both, and what speaks for one of the classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xai_lib.errors import OptionError
from xai_lib.options import parse_pair

if TYPE_CHECKING:
    from xai_lib.attribution import Attribution
    from xai_lib.streams.words import TextScores

STRONGEST = 5


def explain(
    image: Annotated[Path | None, typer.Argument(help="Image file.", show_default=False)] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(help="A text, instead of an image; with one, the texts that CLIP compares."),
    ] = None,
    pair: Annotated[str | None, typer.Option(help="The second text of a task on two.")] = None,
    model: Annotated[
        str, typer.Option(help="A name of `xai models`, timm:NAME, hf:NAME or a folder.")
    ] = "",
    method: Annotated[
        str, typer.Option(help="A name of `xai methods`.")
    ] = "transformer_attribution",
    target: Annotated[str, typer.Option(help="Class number or name; default: the predicted.")] = "",
    level: Annotated[str, typer.Option(help="Of a text: word or token.")] = "word",
    out: Annotated[
        Path | None,
        typer.Option(
            help=".png, .pdf, .svg or .safetensors, for a text also .html and .tex; default: "
            "IMAGE_METHOD.png, for a text no file."
        ),
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="An option of the method, as key=value; repeatable.")
    ] = None,
) -> None:
    """Explain an image, a text or a pair: print the leading classes, save or show the heat map."""
    options = dict(parse_pair(given) for given in option or [])
    if image is None and not text:
        raise OptionError("Expected an image file or --text TEXT, and neither was given.")
    if not model:
        raise OptionError("No model is named: give --model, one of `xai models` or a folder.")
    if pair is not None and (image is not None or len(text) > 1):
        raise OptionError("--pair is the second text of one --text; an image has none.")
    chosen = parse_target(target)
    if image is not None and text:
        _explain_both(image, text, model, method, chosen, out, options)
    elif image is not None:
        _explain_image(image, model, method, chosen, out, options)
    elif len(text) > 1:
        raise OptionError("Several --text are compared with an image, which is not given.")
    else:
        _explain_text(text[0], pair, model, method, chosen, level, out, options)


def _explain_both(image: Path, texts: list[str], model, method, target, out, options) -> None:
    import xai_lib as xai
    from xai_lib.attribution import check_path
    from xai_lib.plots.text.rows import attribution_texts

    out = check_path(out or f"{image.stem}_{Path(method).name}.png", "streams")
    network, processor = loaded(model, "pair")
    att = xai.explain(network, processor([image], texts), method, target, **options)
    _print_classes(att, tuple(texts))
    if "text" in att.streams:
        for row in attribution_texts(att.part("text")):
            _print_line(row)
    style = {} if out.suffix == ".safetensors" else {"processor": processor}
    print(f"Saved: {att.save(out, **style)}")


def _explain_image(image: Path, model, method, target, out: Path | None, options: dict) -> None:
    import xai_lib as xai
    from xai_lib.attribution import check_path

    out = check_path(out or f"{image.stem}_{Path(method).name}.png")
    network, processor = loaded(model, "image")
    att = xai.explain(network, processor(image), method=method, target=target, **options)
    _print_classes(att, processor.class_names)
    print(f"Saved: {att.save(out)}")


def _explain_text(text, pair, model, method, target, level, out: Path | None, options) -> None:
    from xai_lib.attribution import check_path
    from xai_lib.plots.text.heatmap import TextHeatmap
    from xai_lib.plots.text.rows import LEVELS, attribution_texts

    if level not in LEVELS:
        raise OptionError(f"level is {level!r}; expected {' or '.join(LEVELS)}.")
    if out is not None:
        check_path(out, "text")
    import xai_lib as xai

    network, processor = loaded(model, "text")
    inputs = processor(text, pair)
    att = xai.explain(network, inputs, method=method, target=target, **options)
    _print_classes(att, processor.class_names)
    (row,) = attribution_texts(att, level)
    _print_line(row)
    if out is not None:
        is_tensors = out.suffix == ".safetensors"
        print(f"Saved: {att.save(out) if is_tensors else TextHeatmap(row).save(out)}")


# What to do instead, by what a model reads: an image, a text, both, or a question on regions.
INSTEAD = {
    "image": "reads images: give an image file, not --text.",
    "text": "reads texts: give --text TEXT, not an image.",
    "pair": "compares images with texts: give an image file as well.",
    "question": "answers questions on the regions of a detector, which no option gives: explain it "
    "in Python, xai.explain(model, processor(question, features, boxes)).",
}


def loaded(model: str, given: str):
    """Return a model that reads what is given ("image", "text" or "pair"), and its processor.

    One that compares images with texts classifies an image by its own class names.
    """
    import xai_lib as xai
    from xai_lib.models import PairProcessor, Processor, QuestionProcessor, TextProcessor, zero_shot

    kinds = {Processor: "image", TextProcessor: "text"}
    kinds |= {PairProcessor: "pair", QuestionProcessor: "question"}
    network, processor = xai.load(model)
    kind = kinds[type(processor)]
    if (given, kind) == ("image", "pair"):
        return zero_shot(network, processor)
    if kind != given:
        neither = given == "pair" and kind != "question"
        instead = "does not compare images with texts: give an image or --text."
        raise OptionError(f"The model {model!r} {instead if neither else INSTEAD[kind]}")
    return network, processor


def _print_classes(att: Attribution, names: tuple[str, ...]) -> None:
    from xai_lib.plots.text.rows import printable

    chosen, scores = int(att.target[0]), att.logits[0]
    own = len(names) == len(scores) > 1

    def named(index: int) -> str:
        # A model's configuration names its classes, and must not drive the terminal.
        return printable(" ".join((names[index] if own else att.class_name(index)).split()))

    for index in scores.topk(min(5, len(scores))).indices.tolist():
        mark = "*" if index == max(chosen, 0) else " "
        print(f"{mark} {att.said(0, index, 2):>7}  {named(index)} ({index})")
    print(f"Explained: {named(chosen)} ({chosen}) by {att.method}")


def _print_line(row) -> None:
    """Print the text, red for and blue against, and its strongest units with their numbers.

    rich leaves colours out where nobody sees them: not a terminal, or NO_COLOR is set.
    """
    from rich.console import Console

    from xai_lib.plots.text.terminal import terminal_line

    Console(highlight=False, soft_wrap=True).print(terminal_line(row))
    print(f"Strongest: {_strongest(row.scores)}")


def _strongest(units: TextScores) -> str:
    from xai_lib.plots.text.rows import printable

    scores = units.scores.detach().float()
    order = scores.abs().argsort(descending=True, stable=True)[:STRONGEST].tolist()
    return ", ".join(f"{printable(units.labels[i])} {scores[i]:+.3g}" for i in order)


def parse_target(text: str) -> int | str | None:
    """Return None for "", an int for digits, else the class name."""
    if not text:
        return None
    return int(text) if text.lstrip("-").isdecimal() else text
