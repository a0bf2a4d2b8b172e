"""Why a model cannot be explained, or a method not be applied to it.

The reason alone: what works instead is tried where a method was asked for (`explainers.advice`).
"""

from __future__ import annotations

import torch
from torch import nn

from xai_lib.errors import MethodNotApplicableError, UnsupportedModelError
from xai_lib.tracing import Guards


def no_attention(model: nn.Module) -> UnsupportedModelError:
    """Nothing in the model's forward pass is attention that a trace can see."""
    return UnsupportedModelError(
        f"{type(model).__name__} makes no attention call that can be seen. Explained "
        "are transformers whose attention is softmax(QKᵀ)V in torch operations; a "
        "convolutional network, or a fused kernel outside torch, is not."
    )


def sequence_first() -> MethodNotApplicableError:
    """Rules per sample need the samples in the first dimension."""
    return MethodNotApplicableError(
        "This model keeps tokens in the first dimension and samples in the second "
        "(batch_first=False), which the per-sample sum rule cannot tell apart; one "
        "that is built with batch_first=True is explained."
    )


def no_gradient() -> MethodNotApplicableError:
    """Nothing leads from the logits back to the input."""
    return MethodNotApplicableError(
        "The model computes its logits from the input without a gradient (torch.no_grad, detach, "
        "integer arithmetic or quantised layers in its forward pass), so nothing can be propagated "
        "to it. Explain the model as it is without these, such as before it was quantised"
    )


def no_influence() -> MethodNotApplicableError:
    """The gradient of a sample's score is exactly zero."""
    return MethodNotApplicableError(
        "The gradient of the target's score is exactly zero everywhere, for at least one sample: "
        "something in the forward pass lets none through (detach, rounding, quantised layers, a "
        "saturated clamp or activation), or the score is constant there, so that zeros would "
        "explain nothing"
    )


def not_finite(method: str, dtype: torch.dtype) -> MethodNotApplicableError:
    """What a method found is no number."""
    advice = "" if dtype == torch.float64 else "; model.float() has a wider range"
    advice = "; model.double() has a wider range" if dtype == torch.float32 else advice
    return MethodNotApplicableError(
        f"What {method!r} finds on this model and input holds NaN or Inf, in {dtype}, although its "
        f"scores are finite: something on the way back overflows or divides by zero{advice}"
    )


def no_shared_tokens() -> MethodNotApplicableError:
    """Attention maps lie between other tokens than the model's own."""
    return MethodNotApplicableError(
        "This model attends within windows or merges its patches, so no attention map spans its "
        "tokens."
    )


def merged_tokens(method: str, seen: int, tokens: int) -> MethodNotApplicableError:
    """The method gives a number for other tokens than those the model starts with."""
    return MethodNotApplicableError(
        f"{method!r} sees {seen} tokens where the model starts with {tokens}: it merges tokens on "
        "the way."
    )


def coupled_streams(method: str) -> MethodNotApplicableError:
    """The model's streams attend to each other, for which the method is not defined."""
    return MethodNotApplicableError(
        f"{method!r} is defined for one sequence of tokens, and the streams of this model attend "
        "to each other."
    )


def mingled_streams(method: str) -> MethodNotApplicableError:
    """One of the model's streams is written into another, so that maps tell no stream's tokens."""
    return MethodNotApplicableError(
        f"{method!r} follows tokens through attention, and this model writes one stream into "
        "another or adds them up (such as image features in the places of a text), so that no map "
        "tells which stream a token is."
    )


def no_embeddings() -> MethodNotApplicableError:
    """No tensor of a text model is known to be its embeddings."""
    return MethodNotApplicableError(
        "The embeddings of this text model could not be found: no residual connection passes its "
        "first attention, or its words are not looked up by torch's embedding."
    )


def no_states() -> MethodNotApplicableError:
    """The tokens between the model's blocks, or what its head makes of them, cannot be told."""
    return MethodNotApplicableError(
        "The tokens after each block of this model could not be told (no residual connection "
        "passes its attention, or its last block ends otherwise than the others), so its head "
        "cannot be put on them."
    )


def not_distributions() -> MethodNotApplicableError:
    """Attention maps are not shares of what a token attends to."""
    return MethodNotApplicableError(
        "This model mixes its attention heads after the softmax (talking heads), so its "
        "attention maps can be negative and are no distributions over tokens."
    )


def object_to(guards: Guards) -> None:
    """Raise a MethodNotApplicableError where the trace met what no map describes."""
    if guards.objection:
        raise MethodNotApplicableError(f"{guards.objection}.")


def is_about_writing(error: Exception) -> bool:
    """Whether autograd complains of a tensor that was written to."""
    return "in-place" in str(error) or "inplace" in str(error)


def writes_in_place() -> UnsupportedModelError:
    """Autograd found a tensor changed that it needs."""
    return UnsupportedModelError(
        "The model writes into tensors that its own gradient needs, so nothing can be propagated "
        "back through it. Write x = x + y instead of x += y or x[...] = y in its forward pass."
    )


def not_intercepted(model: nn.Module, error: Exception) -> UnsupportedModelError:
    """The model runs by itself and not under a trace."""
    return UnsupportedModelError(
        f"{type(model).__name__} runs by itself but not while its operations are intercepted "
        f"({type(error).__name__}: {error}), so it cannot be explained; see the traceback."
    )
