"""Checks of what a user passes in, each with an error that says what was expected."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn

from xai_lib.errors import InputError, UnsupportedModelError


def takes_keyword(model: nn.Module, name: str) -> bool:
    """Return whether the model's forward takes the argument `name`."""
    parameter = inspect.signature(model.forward).parameters.get(name)
    if parameter is None:
        return getattr(model, "main_input_name", None) == name
    return parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)


def check_modality(model: nn.Module, given: str, other: str) -> None:
    """Raise an InputError where the model takes `other` and not `given`: a text for an image."""
    if takes_keyword(model, other) and not takes_keyword(model, given):
        raise InputError(
            f"{type(model).__name__} takes {other!r}, and inputs are {given!r}: they were made for "
            "another kind of model. The processor that xai.load returns with it makes the right "
            "ones."
        )


def check_extra(model: nn.Module, extra: dict, keyword: str | None, main: str) -> None:
    """Refuse what the model cannot be given: leaving it out would explain another prediction."""
    kinds = {p.kind for p in inspect.signature(model.forward).parameters.values()}
    if keyword is not None and inspect.Parameter.VAR_KEYWORD in kinds:
        return
    unknown = [k for k in extra if keyword is None or not takes_keyword(model, k)]
    if unknown:
        raise InputError(
            f"inputs has the entries {sorted(map(str, unknown))}, which "
            f"{type(model).__name__}.forward does not take beside it. Pass "
            f"inputs[{main!r}] alone if the model needs none of them."
        )


def check_pixels(model: nn.Module, pixels) -> None:
    """Raise an InputError unless `pixels` is a finite float batch that fits the model."""
    if not isinstance(pixels, Tensor):
        raise InputError(
            f"inputs is {type(pixels).__name__}; expected a float tensor (batch, channels, height, "
            "width) or the dict a processor returns. processor(image) makes one of an image."
        )
    if pixels.dim() != 4 and takes_keyword(model, "spatial_shapes"):
        raise UnsupportedModelError(
            f"{type(model).__name__} takes images that were cut into patches (NaFlex), which have "
            "no pixels to explain; checkpoints of a fixed image size are explained."
        )
    if pixels.dim() != 4:
        raise InputError(
            f"inputs has shape {tuple(pixels.shape)}; expected (batch, channels, height, width)."
            + (" Add the batch: inputs[None]." if pixels.dim() == 3 else "")
        )
    if pixels.shape[0] == 0:
        raise InputError("inputs is an empty batch; expected at least one image.")
    if not pixels.is_floating_point():
        raise InputError(
            f"inputs has dtype {pixels.dtype}; expected floating point, normalised as the model "
            "was trained. processor(image) does both."
        )
    _check_device(model, pixels, "inputs")
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    if parameter is not None and parameter.dtype != pixels.dtype:
        raise InputError(
            f"The model's weights are {parameter.dtype} and inputs is {pixels.dtype}. "
            f"Cast one: inputs.to({parameter.dtype})."
        )
    if not torch.isfinite(pixels).all():
        raise InputError(
            "inputs holds NaN or Inf pixels; expected finite numbers. Look at the image and at its "
            "normalisation (a standard deviation of 0 divides by zero)."
        )
    _check_size(model, pixels)


def _check_size(model: nn.Module, pixels: Tensor) -> None:
    """Check channels and size where the model's first convolution or its config states them."""
    conv = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if conv is not None and pixels.shape[1] != conv.in_channels:
        raise InputError(
            f"inputs has {pixels.shape[1]} channels; the model expects {conv.in_channels}. "
            "Convert the image, e.g. image.convert('RGB')."
        )
    if conv is not None and any(
        n < k for n, k in zip(pixels.shape[-2:], conv.kernel_size, strict=True)
    ):
        raise InputError(
            f"inputs is {tuple(pixels.shape[-2:])} pixels, smaller than one patch "
            f"{tuple(conv.kernel_size)}. Resize the image; processor(image) does."
        )


def check_ids(model: nn.Module, ids, mask) -> None:
    """Raise an InputError unless `ids` is a batch of token numbers, and `mask` its 0/1 mask."""
    if not isinstance(ids, Tensor) or ids.dim() != 2 or ids.is_floating_point():
        found = f"{ids.dtype} {tuple(ids.shape)}" if isinstance(ids, Tensor) else type(ids).__name__
        raise InputError(
            f"inputs['input_ids'] is {found}; expected integers of shape (batch, tokens), as "
            "tokenizer(texts, return_tensors='pt', padding=True) returns them."
        )
    if not ids.numel():
        raise InputError("inputs['input_ids'] is empty; expected at least one text with tokens.")
    _check_device(model, ids, "inputs['input_ids']")
    if mask is not None:
        shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        if shape != tuple(ids.shape) or not ((mask == 0) | (mask == 1)).all():
            raise InputError(
                f"inputs['attention_mask'] is {shape}; expected 1 for tokens and 0 for padding, "
                f"of the shape {tuple(ids.shape)} of the ids."
            )
        if not mask.any(1).all():
            raise InputError("inputs['attention_mask'] has a row without a token: an empty text.")
    _check_vocabulary(model, ids)
    config = getattr(model, "config", None)
    config = getattr(config, "text_config", None) or config
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and 0 < positions < ids.shape[1]:
        raise InputError(
            f"inputs has {ids.shape[1]} tokens, the model takes {positions}. Explain long texts in "
            "windows with xai.explain_long(model, processor, text), or cut them: "
            "processor(text, truncate=True)."
        )


def check_content(content: Tensor) -> None:
    """Raise an InputError unless each row of `content` (batch, tokens) has a token of its text."""
    if not content.any(1).all():
        row = int(content.any(1).long().argmin())
        raise InputError(
            f"Text {row} of inputs is only special tokens, so there is nothing to explain: it "
            "is empty, or no character of it is one that the tokenizer knows."
        )


def _check_vocabulary(model: nn.Module, ids: Tensor) -> None:
    try:
        table = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return
    size = getattr(table, "num_embeddings", None)
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or (size is not None and high >= size):
        raise InputError(
            f"inputs['input_ids'] holds the number {low if low < 0 else high}, the model's "
            f"vocabulary has {size}: the tokenizer belongs to another model. Load both from one "
            "checkpoint, as xai.load does."
        )


def _check_device(model: nn.Module, x: Tensor, what: str) -> None:
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    if parameter is not None and parameter.device != x.device:
        raise InputError(
            f"The model is on {parameter.device} and {what} on {x.device}. "
            f"Move one: inputs.to({str(parameter.device)!r})."
        )
