"""A pass that records its linear maps, for rules that are applied to them afterwards."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from xai_lib.rules.gate import Switch
from xai_lib.rules.rulesets import AttnLRP, scaled_product


@dataclass
class Recorded:
    """One linear map of a pass: y = W x + b, with the tensors of the graph."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    output: Tensor


class Recorder(AttnLRP):
    """A rule set without rules: every operation keeps its gradient; linear maps are noted in order.

    Rules that divide by stabilised sums follow, which half precision cannot hold.
    """

    needs_float32 = True

    def __init__(self, switch: Switch):
        super().__init__(switch)
        self.maps: list[Recorded] = []

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        output = super().linear(x, weight, bias)
        self.maps.append(Recorded(x, weight, bias, output))
        return output

    def pointwise(self, func, args, kwargs) -> Tensor:
        return func(*args, **kwargs)

    def activation(self, x: Tensor, output: Tensor) -> Tensor:
        return output

    def matmul(self, a: Tensor, b: Tensor, factor: float = 1.0, share: float = 0.5) -> Tensor:
        return scaled_product(a, b, factor)

    def bilinear(self, product, a: Tensor, b: Tensor) -> Tensor:
        return product(a, b)

    def gating(self, a: Tensor, b: Tensor, output: Tensor) -> Tensor:
        return output

    def normalised(self, x: Tensor, size: Tensor, output: Tensor) -> Tensor:
        return output
