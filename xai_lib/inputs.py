"""What a user passes in: checked, moved out of inference mode, and how the model is called."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xai_lib.errors import InputError, UnsupportedModelError


@dataclass
class Prepared:
    """Checked inputs. `pixels` (batch, channels, H, W); `extra` reaches the model as it came."""

    pixels: Tensor
    extra: dict
    keyword: str | None

    def call(self, model: nn.Module, pixels: Tensor):
        """Call the model as the inputs ask for: with the tensor alone, or with keywords.

        `pixels` is (k·batch, channels, H, W), the whole batch k times over; tensors of `extra` that
        have a row per sample are repeated to fit.
        """
        if self.keyword is None:
            return model(pixels)
        batch = self.pixels.shape[0]
        extra = {
            name: value.repeat(pixels.shape[0] // batch, *[1] * (value.dim() - 1))
            if isinstance(value, Tensor) and value.dim() and value.shape[0] == batch
            else value
            for name, value in self.extra.items()
        }
        return model(**{self.keyword: pixels}, **extra)


def unwrap(model: nn.Module) -> nn.Module:
    """Return the eager module inside DataParallel or torch.compile wrappers."""
    if not isinstance(model, nn.Module):
        raise UnsupportedModelError(
            f"model is {type(model).__name__}, expected a torch.nn.Module. "
            "xai.load(...) returns (model, processor): pass the first."
        )
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod
        else:
            break
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            where = f"The model's part {name!r} is" if name else "The model is"
            raise UnsupportedModelError(
                f"{where} a TorchScript module, which runs outside Python and cannot be "
                "intercepted. Pass the eager module that it was made from."
            )
    if any(p.is_inference() for p in model.parameters()):
        raise UnsupportedModelError(
            "The model's parameters were made under torch.inference_mode(), so no gradient can "
            "pass them. Load the model outside inference_mode."
        )
    return model


def prepare(model: nn.Module, inputs) -> Prepared:
    """Check `inputs` (a tensor or a processor's dict) against the model and return them ready."""
    if isinstance(inputs, Mapping):
        if "pixel_values" not in inputs:
            raise InputError(
                f"inputs has the keys {sorted(inputs)}; expected 'pixel_values', as an image "
                "processor returns it."
            )
        pixels = inputs["pixel_values"]
        extra = {k: v for k, v in inputs.items() if k != "pixel_values"}
        keyword = "pixel_values" if _takes_keyword(model, "pixel_values") else None
        _check_pixels(model, pixels)
        _check_extra(model, extra, keyword)
        return Prepared(_fresh(pixels), extra, keyword)
    _check_pixels(model, inputs)
    return Prepared(_fresh(inputs), {}, None)


def logits_of(output) -> Tensor:
    """Return the (batch, classes) logits of whatever the model returned."""
    logits = getattr(output, "logits", None)
    if logits is None and isinstance(output, Mapping):
        logits = output.get("logits")
    if logits is None and isinstance(output, tuple | list) and output:
        logits = output[0]
    if logits is None and isinstance(output, Tensor):
        logits = output
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        found = "no logits" if logits is None else f"a tensor of shape {tuple(logits.shape)}"
        raise UnsupportedModelError(
            f"The model returned {type(output).__name__} with {found}; expected (batch, classes) "
            "logits. Put a classification head on a backbone, e.g. a small nn.Module around it."
        )
    return logits


def _takes_keyword(model: nn.Module, name: str) -> bool:
    parameter = inspect.signature(model.forward).parameters.get(name)
    if parameter is None:
        return getattr(model, "main_input_name", None) == name
    return parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)


def _check_extra(model: nn.Module, extra: dict, keyword: str | None) -> None:
    """Refuse what the model cannot be given: leaving it out would explain another prediction."""
    kinds = {p.kind for p in inspect.signature(model.forward).parameters.values()}
    if keyword is not None and inspect.Parameter.VAR_KEYWORD in kinds:
        return
    unknown = [k for k in extra if keyword is None or not _takes_keyword(model, k)]
    if unknown:
        raise InputError(
            f"inputs has the entries {sorted(map(str, unknown))}, which "
            f"{type(model).__name__}.forward does not take beside the pixels. Pass "
            "inputs['pixel_values'] alone if the model needs none of them."
        )


def _fresh(pixels: Tensor) -> Tensor:
    """Return a normal leaf tensor, also where the caller's was made in inference mode."""
    with torch.inference_mode(False):
        return pixels.detach().clone()


def _check_pixels(model: nn.Module, pixels) -> None:
    if not isinstance(pixels, Tensor):
        raise InputError(
            f"inputs is {type(pixels).__name__}; expected a float tensor (batch, channels, height, "
            "width) or the dict a processor returns. processor(image) makes one of an image."
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
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    if parameter is not None and parameter.device != pixels.device:
        raise InputError(
            f"The model is on {parameter.device} and inputs on {pixels.device}. "
            f"Move one: inputs.to({str(parameter.device)!r})."
        )
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
