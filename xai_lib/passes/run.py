"""One traced forward pass, and backward passes over its graph."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from xai_lib.passes.backward import backward, require_influence
from xai_lib.passes.examination import Examination
from xai_lib.passes.refusals import (
    no_embeddings,
    no_states,
)
from xai_lib.tracing import Site, Trace


@dataclass
class Run:
    """One traced forward pass: its logits and sites, and backward passes over its graph.

    features: what the model computed on, pixels (batch, channels, H, W) or the embeddings of a text
    (batch, tokens, dim); None where a text's embeddings were not asked for. on_path: whether it
    runs on other features than the input's, of which one alone may have no influence.
    """

    trace: Trace
    logits: Float[Tensor, "rows classes"]
    features: Float[Tensor, "rows ..."] | None
    examination: Examination | None = None
    on_path: bool = False

    @property
    def sites(self) -> list[Site]:
        return self.trace.sites

    @property
    def taken(self) -> Float[Tensor, "rows ..."]:
        """The features, of a run that found or was given them."""
        if self.features is None:
            raise no_embeddings()
        return self.features

    @property
    def readout(self) -> Float[Tensor, "rows tokens dim"]:
        """The tokens that the head reads, of a run with graph="readout"."""
        assert self.trace.readout is not None, "a run with another graph"
        return self.trace.readout

    @property
    def undefined(self) -> Bool[Tensor, " rows"]:
        """Which rows (k·batch,) have a score that is no number, so that they have no gradient.

        On a path from zero CLIP without biases has such a point: it divides a vector by its length.
        """
        return ~self.logits.detach().isfinite().all(1)

    @property
    def states(self) -> list[Float[Tensor, "batch tokens dim"]]:
        """The tokens (batch, tokens, dim) after every layer but the last."""
        found = [site.residual for site in self.sites[1:] if site.residual is not None]
        if len(found) < len(self.sites) - 1:
            raise no_states()
        return found

    def head(self, tokens: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch classes"]:
        """Return the logits (batch, classes) that the model's own head gives to other `tokens`.

        tokens: such as those after an earlier layer (`states`); the head is all that the model does
        after its last block: final norm, pooling, classifier. Of a run that was taped.
        """
        tape, start = self.trace.tape, self.sites[-1].residual
        assert tape is not None, "a run that was not taped"
        end = None if start is None else tape.end_of_block(start)
        logits = None if end is None else tape.again(end, tokens, self.logits)
        if logits is None:
            raise no_states()
        return logits

    def gradients(
        self, tensors: Sequence[Float[Tensor, "..."]], seed: Float[Tensor, "rows classes"]
    ) -> list[Float[Tensor, "..."]]:
        """Return ∂⟨logits, seed⟩/∂t for each tensor, zero where t has no influence."""
        found = self._backward(tensors, seed, relevance=False)
        # Rules may change the graph of the gradient itself (attnlrp).
        if self.examination is not None and self.trace.rules is None:
            for tensor, gradient in zip(tensors, found, strict=True):
                if tensor is self.features:
                    self.examination.compare_gradient(tensor, gradient, seed)
        return found

    def relevances(
        self, tensors: Sequence[Float[Tensor, "..."]], seed: Float[Tensor, "rows classes"]
    ) -> list[Float[Tensor, "..."]]:
        """Return the relevance that the rules bring from the seeded logits to each tensor."""
        return self._backward(tensors, seed, relevance=True)

    def _backward(self, tensors: Sequence[Tensor], seed: Tensor, relevance: bool) -> list[Tensor]:
        # Without rules there is one backward pass, and nothing to switch.
        switched = nullcontext() if self.trace.rules is None else self.trace.switch.mode(relevance)
        with switched:
            found = backward(self.logits, tensors, seed)
        if not self.on_path:
            require_influence(found, self.logits, seed)
        return found
