"""Classes that are tokens of a vocabulary: a language model's next word, asked for by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from xai_lib.errors import TargetError


def vocabulary_of(model: nn.Module) -> int | None:
    """Return how many tokens the model's table of words has, None where it has none."""
    try:
        table = model.get_input_embeddings()  # pyright: ignore[reportCallIssue]
    except (AttributeError, NotImplementedError):
        return None
    return getattr(table, "num_embeddings", None)


def spelled(target: Any, number: Callable[[str], int]) -> Any:
    """Return a target with the number of each token that it spells."""
    if isinstance(target, str):
        return number(target)
    if isinstance(target, list | tuple):
        return type(target)(spelled(one, number) for one in target)
    return target


def token_number(text: str, tokenizer: Any, tokens: int) -> int:
    """Return the number of the one token that a text is, of a vocabulary of so many.

    Raises TargetError where no tokenizer is known, or it makes several tokens of the text.
    """
    if tokenizer is None:
        raise TargetError(
            f"target is the text {text!r}, and the classes are the {tokens} tokens of the model's "
            "vocabulary; nothing in inputs says which of them it is. Pass its number, "
            f"tokenizer({text!r}, add_special_tokens=False).input_ids, or make inputs with "
            "xai_lib.models.TextProcessor(tokenizer), which knows."
        )
    found = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    if len(found) != 1:
        pieces = tokenizer.convert_ids_to_tokens(found)
        raise TargetError(
            f"target is the text {text!r}, of which the tokenizer makes {len(found)} tokens: "
            f"{pieces}; expected one. Pass the number of the one that you mean: {found}."
        )
    return found[0]
