"""What a model returns, and which of it are the scores that are explained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from xai_lib.errors import OptionError, UnsupportedModelError, unknown_name

Choice = None | int | str

# What models call the scores that are explained, the first that is there.
SCORES = ("logits", "logits_per_image", "question_answering_score", "itm_score", "itm_logits")
# What a model calls the scores of each token as the first or the last of an answer.
PARTS = {"start": "start_logits", "end": "end_logits"}
# The scores of every text with every image: those of images with texts, turned.
TURNED = "logits_per_text"
# Outputs may hold themselves; none that is scores lies deeper.
_DEPTH = 4


def choice_of(output: Choice, part: str | None) -> Choice:
    """Return which output is meant by `output=` or by `part=`, of which one may be given."""
    if part is None:
        if output is not None and (isinstance(output, bool) or not isinstance(output, int | str)):
            raise OptionError(
                f"output is {output!r}; expected the name or the number of one of the model's "
                "outputs, such as 'logits' or 1."
            )
        return output
    if part not in PARTS:
        raise unknown_name("part", part, PARTS)
    if output is not None:
        raise OptionError("Both output and part are given; part stands for an output: leave one.")
    return PARTS[part]


def outputs_of(output: object) -> dict[str, Shaped[Tensor, "..."]]:
    """Return every tensor of what a model returned by its path: "logits", "1", "aux.logits"."""
    if isinstance(output, Tensor):
        return {"": output}
    return {path: x for path, x in _tensors(output, "", _DEPTH)}


def _tensors(output: object, path: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    for name, entry in _entries(output).items():
        place = f"{path}.{name}" if path else name
        if isinstance(entry, Tensor):
            yield place, entry
        elif depth and entry is not None:
            yield from _tensors(entry, place, depth - 1)


def _entries(output: object) -> dict[str, object]:
    """Return the entries of an output by name, or by number where they have none."""
    if isinstance(output, Mapping):
        return {str(name): entry for name, entry in output.items()}
    if isinstance(output, tuple | list):
        names = getattr(output, "_fields", None) or map(str, range(len(output)))
        return dict(zip(names, output, strict=True))
    if is_dataclass(output) and not isinstance(output, type):
        return {field.name: getattr(output, field.name) for field in fields(output)}
    return dict(getattr(output, "__dict__", {}))


def chosen(output: object, choice: Choice = None) -> tuple[str, Shaped[Tensor, "..."]]:
    """Return the path and the tensor of the scores in whatever a model returned.

    choice: a name, path or number of an output; None takes the only one, or one of the names that
    scores have. Raises OptionError where several outputs are there and none is known to be scores:
    a feature or a token is no class. Raises UnsupportedModelError where there is no tensor.
    """
    found = outputs_of(output)
    if choice is not None:
        return _named(output, found, choice)
    named = next((name for name in SCORES if name in found), None)
    if named is not None:
        return named, found[named]
    if not found:
        raise UnsupportedModelError(
            f"The model returned {type(output).__name__} with no tensor in it; expected (batch, "
            "classes) logits. Explain the module that computes them."
        )
    (path, only), *others = found.items()
    # What a model names otherwise is scores if it can be nothing else: a row of numbers a sample.
    if not others and (path.isdecimal() or not path or only.dim() == 2):
        return path, only
    raise OptionError(
        f"The model returned {type(output).__name__} with {told(found)}; none of them is known to "
        "be the scores of classes. Say which: xai.explain(..., output=NAME), where a number counts "
        "the entries, or put a small nn.Module around the model that returns it. Features are no "
        "classes: a backbone needs a classification head."
    )


def told(found: Mapping[str, Shaped[Tensor, "..."]]) -> str:
    """Return the outputs with their shapes in words."""
    shown = [f"{name!r} {tuple(x.shape)}" for name, x in found.items()]
    more = f" and {len(shown) - 12} more" if len(shown) > 12 else ""
    return ", ".join(shown[:12]) + more


def _named(output: object, found: Mapping[str, Tensor], choice: int | str) -> tuple[str, Tensor]:
    path = choice if isinstance(choice, str) else _numbered(output, choice) or ""
    if path and path in found:
        return path, found[path]
    if path in PARTS.values() and _is_answer(found):
        place = str(list(PARTS.values()).index(path))
        return place, found[place]
    if isinstance(output, Tensor):
        raise OptionError(
            f"output is {choice!r}, but the model returned one tensor {tuple(output.shape)}, so "
            "there is nothing to choose. Leave output and part out."
        )
    raise OptionError(
        f"output is {choice!r}, and the model returned {told(found) or 'no tensor'}; expected one "
        "of these names, or the number of an entry that is a tensor."
    )


def _numbered(output: object, number: int) -> str | None:
    names = list(_entries(output))
    return names[number] if -len(names) <= number < len(names) else None


def _is_answer(found: Mapping[str, Tensor]) -> bool:
    """Whether unnamed outputs are the scores of a first and a last token: two of one shape."""
    shapes = [x.shape for x in found.values()]
    return list(found) == ["0", "1"] and shapes[0] == shapes[1] and len(shapes[0]) == 2


def logits_of(
    output: object,
    position: int | None = None,
    choice: Choice = None,
    samples: int | None = None,
) -> Float[Tensor, "batch classes"]:
    """Return the (batch, classes) logits of whatever the model returned.

    position: which row of (batch, rows, classes) logits, such as a detector's query or the place of
    a token; negative ones count from the end. choice: see `chosen`. samples: how many there are;
    then one score a sample (samples,) is a column, and the (classes,) of a single one are its row.
    """
    return rows_of(chosen(output, choice)[1], position, samples)


def rows_of(
    scores: Shaped[Tensor, "..."], position: int | None = None, samples: int | None = None
) -> Float[Tensor, "batch classes"]:
    """Return scores as (batch, classes): see `logits_of`."""
    if not scores.is_floating_point():
        raise UnsupportedModelError(
            f"The model returned {scores.dtype} {tuple(scores.shape)}; expected floating-point "
            "logits (batch, classes). Decided classes have no gradient: explain the module that "
            "computes the scores they are chosen by."
        )
    if not scores.shape[-1:].numel():
        raise UnsupportedModelError(
            f"The model returned {tuple(scores.shape)} scores, of no class. Give it a head of "
            "classes; a backbone alone has nothing to explain."
        )
    if scores.dim() == 3 and position is not None:
        return _row(scores, position)
    if position is not None:
        raise OptionError(
            f"position is {position!r}, but the model returned {tuple(scores.shape)} scores: one "
            "row per sample, so there is nothing to choose. Leave position out."
        )
    if scores.dim() == 1 and samples == len(scores):
        return scores[:, None]
    if scores.dim() < 2 and samples == 1:
        return scores.reshape(1, -1)
    if scores.dim() != 2 or (samples is not None and len(scores) != samples):
        many = "" if samples is None else f" for {samples} samples"
        raise UnsupportedModelError(
            f"The model returned a tensor of shape {tuple(scores.shape)}{many}; expected (batch, "
            "classes) logits. Put a classification head on a backbone, e.g. a small nn.Module "
            "around it; of (batch, rows, classes) logits choose a row with position=..., and of a "
            "map of scores explain a mean or a point of it, which a module around it returns."
        )
    return scores


def _row(logits: Tensor, position: int) -> Tensor:
    rows = logits.shape[1]
    if not isinstance(position, int) or isinstance(position, bool) or not -rows <= position < rows:
        raise OptionError(
            f"The model returned {tuple(logits.shape)} scores: {rows} rows for each sample (tokens "
            f"or detection queries), and position is {position!r}; expected an integer from "
            f"{-rows} to {rows - 1} that says which of them to explain."
        )
    return logits[:, position]


def without_padding(
    logits: Float[Tensor, "batch tokens"], present: Shaped[Tensor, "..."] | None
) -> Float[Tensor, "batch tokens"]:
    """Return the scores of tokens with -inf at padding, which is no answer."""
    if present is None or tuple(present.shape) != tuple(logits.shape):
        return logits
    return logits.masked_fill(~present, -torch.inf)
