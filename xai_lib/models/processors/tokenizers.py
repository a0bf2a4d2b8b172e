"""What processors of texts ask of a tokenizer: that it is fast, and how much it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

from xai_lib.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Tokenizers that state no limit have this or a larger number as their model_max_length.
NO_LIMIT = 10**6


def check_fast(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise an InputError for a tokenizer that does not lead from tokens back to characters."""
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(
            f"{type(tokenizer).__name__} is no fast tokenizer, so it does not say which "
            "characters a token stands for. Load it with AutoTokenizer.from_pretrained(...)."
        )


class TokenLimit:
    """The field `max_length` of a processor: the number given, else what its tokenizer states.

    None for neither. A field of a dataclass that is a descriptor: https://docs.python.org/3/library/
    dataclasses.html#descriptor-typed-fields
    """

    @overload
    def __get__(self, processor: None, kind: type) -> None: ...
    @overload
    def __get__(self, processor: object, kind: type) -> int | None: ...
    def __get__(self, processor, kind):
        # Asked of the class it is the field's default.
        given = None if processor is None else vars(processor)["max_length"]
        if processor is None or given is not None:
            return given
        stated = processor.tokenizer.model_max_length
        return int(stated) if stated < NO_LIMIT else None

    def __set__(self, processor: object, given: int | None) -> None:
        vars(processor)["max_length"] = given


# One for all processors: the numbers are theirs.
STATED = TokenLimit()
