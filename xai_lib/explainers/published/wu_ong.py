"""LRP on BERT as the code of Wu & Ong (2021) computes it, on the pass of an unmodified model.

Their code takes each residual branch's relevance by the gradient of the sub-layer's *output* with
respect to its input, i.e. through both branches, and adds the other branch by the rule; there, the
gradient of LayerNorm sums to zero over the features, and a rescaling to that sum leaves about 1e-7
a token. So their relevance is (∂h_L/∂embeddings)ᵀ R, R being the rule's relevance of the pooled
head's input, plus terms of 1e-7, which are computed here as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from xai_lib.errors import MethodNotApplicableError
from xai_lib.explainers.alpha_beta import Size
from xai_lib.explainers.output import Output
from xai_lib.explainers.steps import departs
from xai_lib.passes.call import Call
from xai_lib.passes.run import Run
from xai_lib.rules import published_alpha_beta
from xai_lib.rules.gate import Switch
from xai_lib.rules.recorded import Recorded, Recorder

# Query, key, value, attention output and the two maps of the feed-forward block.
MAPS_OF_A_LAYER = 6


@departs(
    "lrp_alpha_beta",
    methods="`lrp_alpha_beta`",
    default="the alpha-beta rule throughout (α = β = 0.5)",
    reference="what the code computes: the rule in the head, the plain gradient through the "
    'encoder, rescaled; `variant` "quick" or "jacobian"',
)
def lrp(call: Call, alpha: float, seed: str, size: Size, variant: str) -> Output:
    """Return what the code finds at a text's embeddings."""
    recorder = Recorder(Switch())
    run = call.forward(at_input=True, rules=recorder)
    call.require_token_sites(run)
    found = PublishedLRP(run, recorder, float(alpha), variant)
    return Output(call.each_target(run, lambda s: size(found.relevance(s)).sum(-1), seed))


@dataclass
class Layer:
    """The linear maps of one layer, its attention (batch, heads, n, n) and what it feeds."""

    query: Recorded
    key: Recorded
    value: Recorded
    projection: Recorded
    widen: Recorded
    narrow: Recorded
    probs: Tensor
    output: Tensor


class PublishedLRP:
    """Relevance at the embeddings of a recorded `run` by the published code.

    variant: how the (nearly empty) branch passes the attention: "quick" by its gradient, "jacobian"
    by the rule on its Jacobian.
    Raises MethodNotApplicableError for models of another layout than BERT's.
    """

    def __init__(self, run: Run, recorder: Recorder, alpha: float, variant: str):
        self.run, self.alpha, self.variant = run, alpha, variant
        self.layers, self.head = _arranged(run, recorder.maps)

    def relevance(self, seed: Float[Tensor, "batch classes"]) -> Float[Tensor, "batch tokens dim"]:
        """Return the relevance of every embedding, (batch, tokens, dim), seeded at the logits."""
        *_, last = self.stages(seed)
        return last

    def stages(self, seed: Float[Tensor, "batch classes"]) -> Iterator[Float[Tensor, "batch ..."]]:
        """Yield the relevance on its way down: the input of each of the head's maps and layers."""
        with self.run.trace.switch.mode(relevance=False):
            R = seed.to(self.run.logits.dtype)
            for last in reversed(self.head):
                R = self._linear(last, R)
                yield R
            for layer in reversed(self.layers):
                R = self._through(layer, R)
                yield R

    def _through(self, layer: Layer, R: Tensor) -> Tensor:
        middle = layer.widen.x
        both, branch = _gradients(layer.output, [middle, layer.narrow.output], R)
        R = both + self._linear(layer.widen, self._linear(layer.narrow, branch))
        both, branch = _gradients(middle, [layer.query.x, layer.projection.output], R)
        maps = (layer.query, layer.key, layer.value)
        parts = self._attention(layer, self._linear(layer.projection, branch))
        return both + sum(map(self._linear, maps, parts))

    def _linear(self, record: Recorded, R: Tensor) -> Tensor:
        x = record.x.detach()
        return published_alpha_beta.linear_map(R, x, record.weight, record.bias, self.alpha)

    def _attention(self, layer: Layer, R: Tensor) -> tuple[Tensor, ...]:
        """Return the relevance of query, key and value, each (batch, tokens, dim)."""
        outputs = [m.output for m in (layer.query, layer.key, layer.value)]
        if self.variant == "quick":
            return _gradients(layer.projection.x, outputs, R)
        heads = layer.probs.shape[1]
        R, q, k, v = (x.detach().unflatten(-1, (heads, -1)).transpose(1, 2) for x in (R, *outputs))
        seen = layer.probs.detach() > 0
        found = published_alpha_beta.attention(R, q, k, v, seen, self.alpha)
        return tuple(x.transpose(1, 2).flatten(2) for x in found)


def _gradients(output: Tensor, tensors: list[Tensor], seed: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(output, tensors, seed, retain_graph=True)


def _arranged(run: Run, maps: list[Recorded]) -> tuple[list[Layer], list[Recorded]]:
    """Return the layers and the head's maps, after checking that the model is laid out as BERT."""
    depth = len(run.sites)
    count = depth * MAPS_OF_A_LAYER
    head = maps[count:]
    layers = []
    for site, start in zip(run.sites, range(0, count, MAPS_OF_A_LAYER), strict=True):
        found = maps[start : start + MAPS_OF_A_LAYER]
        read = all(m.x is site.residual for m in found[:3])
        if not head or not read or found[3].weight is not site.projection:
            raise MethodNotApplicableError(
                "Wu & Ong's code is written for BERT's layout: query, key and value that read the "
                "normalised stream, a projection and a two-layer feed-forward block per layer. "
                "Without compat='reference', 'lrp_alpha_beta' follows the published rule on any "
                "transformer."
            )
        # What follows a layer is the next one, or the row of it that the head reads.
        after = run.sites[site.index + 1].residual if site.index + 1 < depth else head[0].x
        assert after is not None, "every site of BERT's layout has a residual connection"
        query, key, value, projection, up, down = found
        layers.append(Layer(query, key, value, projection, up, down, site.probs, after))
    return layers, head
