"""A pass that records its linear maps, for rules that are applied to them afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from xai_lib.rules.gate import Switch
from xai_lib.rules.rulesets import AttnLRP, scaled_product


@dataclass
class Recorded:
    """One linear map of a pass: y = W x + b, with the tensors of the graph."""

    x: Float[Tensor, "*n inputs"]
    weight: Float[Tensor, "outputs inputs"]
    bias: Float[Tensor, " outputs"] | None
    output: Float[Tensor, "*n outputs"]


class Recorder(AttnLRP):
    """A rule set without rules: every operation keeps its gradient; linear maps are noted in order.

    Rules that divide by stabilised sums follow, which half precision cannot hold.
    """

    needs_float32 = True

    def __init__(self, switch: Switch):
        super().__init__(switch)
        self.maps: list[Recorded] = []

    def linear(
        self,
        x: Float[Tensor, "*n inputs"],
        weight: Float[Tensor, "outputs inputs"],
        bias: Float[Tensor, " outputs"] | None = None,
    ) -> Float[Tensor, "*n outputs"]:
        output = super().linear(x, weight, bias)
        self.maps.append(Recorded(x, weight, bias, output))
        return output

    def pointwise(
        self, func: Callable[..., Tensor], args: tuple, kwargs: dict
    ) -> Float[Tensor, "..."]:
        return func(*args, **kwargs)

    def activation(
        self, x: Float[Tensor, "*z"], output: Float[Tensor, "*z"]
    ) -> Float[Tensor, "*z"]:
        return output

    def matmul(
        self,
        a: Float[Tensor, "*#batch rows inner"],
        b: Float[Tensor, "*#batch inner columns"],
        factor: float = 1.0,
        share: float = 0.5,
    ) -> Float[Tensor, "*#batch rows columns"]:
        return scaled_product(a, b, factor)

    def bilinear(
        self,
        product: Callable[[Tensor, Tensor], Tensor],
        a: Float[Tensor, "..."],
        b: Float[Tensor, "..."],
    ) -> Float[Tensor, "..."]:
        return product(a, b)

    def gating(
        self, a: Float[Tensor, "*#z"], b: Float[Tensor, "*#z"], output: Float[Tensor, "*z"]
    ) -> Float[Tensor, "*z"]:
        return output

    def normalised(
        self, x: Float[Tensor, "*#z"], size: Float[Tensor, "*#z"], output: Float[Tensor, "*z"]
    ) -> Float[Tensor, "*z"]:
        return output
