"""What an explainer returns to `xai.explain`."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from xai_lib.passes.call import Call


@dataclass
class Output:
    """relevance: (targets, batch, tokens), or None where it is the pixels' sum per patch.

    pixels: (targets, batch, H, W), summed over channels, for methods that reach the input.
    """

    relevance: Float[Tensor, "targets batch tokens"] | None = None
    pixels: Float[Tensor, "targets batch h w"] | None = None

    @classmethod
    def at_input(cls, call: Call, summed: Float[Tensor, "targets batch *where"]) -> Output:
        """What a method found at the input, summed over channels: one number a pixel or token."""
        return cls(pixels=summed) if call.at_pixels else cls(summed)

    @classmethod
    def agnostic(cls, call: Call, relevance: Float[Tensor, "batch tokens"]) -> Output:
        """The same (batch, tokens) map for every target."""
        return cls(relevance.detach().expand(len(call.targets), *relevance.shape).clone())
