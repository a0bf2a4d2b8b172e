"""What stands in a batch beside the inputs that tokens are made of, and in the place of inputs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool
from torch import Tensor, nn

from xai_lib.errors import InputError, OptionError

# What is to be predicted, as data sets and trainers name it: a model makes a loss of it.
TRUTH = (
    *("labels", "label", "label_ids", "start_positions", "end_positions", "next_sentence_label"),
    *("sentence_order_label", "mc_labels", "return_loss"),
)
# How many of the last rows of scores a language model makes, or which.
KEPT = ("logits_to_keep", "num_logits_to_keep")


def without_truth(model: nn.Module, extra: Mapping[str, Any], decodes: bool) -> dict[str, Any]:
    """Return the other inputs without what is to be predicted, which no prediction depends on.

    What a model cannot run without is an input, whatever its name; so are the tokens (batch,
    tokens) that an encoder with a decoder makes its decoder's input of.
    """
    parameters = inspect.signature(model.forward).parameters

    def read(name: str, x: object) -> bool:
        parameter = parameters.get(name)
        if parameter is not None and parameter.default is inspect.Parameter.empty:
            return True
        tokens = isinstance(x, Tensor) and x.dim() == 2 and not x.is_floating_point()
        return decodes and name == "labels" and tokens and "decoder_input_ids" in parameters

    return {name: x for name, x in extra.items() if name not in TRUTH or read(name, x)}


def refuse_text(inputs: object) -> None:
    """Raise an InputError for a text, or a list of texts, in the place of a model's inputs."""
    first = inputs.tolist() if isinstance(inputs, np.ndarray | np.generic) else inputs
    while isinstance(first, list | tuple) and first:
        first = first[0]
    if isinstance(first, str | bytes):
        raise InputError(
            f"inputs is a text ({str(first)[:40]!r}); expected what the model's tokenizer makes of "
            "it, processor(text) with the processor that xai.load returns, or tokenizer(text, "
            "return_tensors='pt'); of an image's path, processor(path)."
        )


def check_position(
    position: int,
    present: Bool[Tensor, "batch tokens"],
    rows: int,
    extra: Mapping[str, Any],
) -> None:
    """Refuse a row of scores that belongs to padding: it is no prediction.

    rows: how many the model made, one a token, or those that `extra` asked it to keep.
    """
    tokens, number = present.shape[1], position % rows
    kept = next((extra[name] for name in KEPT if extra.get(name) is not None), 0)
    if isinstance(kept, Tensor) and kept.dim() == 1 and len(kept) == rows:
        place = int(kept[number])
    elif rows == tokens or kept == rows:
        place = tokens - rows + number
    else:
        return
    absent = (~present[:, place]).nonzero().flatten().tolist()
    if absent:
        shown = f"position {position}" + ("" if rows == tokens else f" (token {place})")
        raise OptionError(
            f"{shown} of text {absent[0]} is padding, so its scores are no prediction. Choose a "
            "position that all texts have, or explain texts of different length one by one; "
            "tokenizers can also pad on the left."
            + ("" if rows == tokens else f" Without {' or '.join(KEPT)} every token has scores.")
        )
