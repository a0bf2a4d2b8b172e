"""A model's inputs as head scores need them: all streams in one pass, none in focus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from xai_lib.errors import InputError, XAIError
from xai_lib.explainers import meeting as multimodal
from xai_lib.explainers.meeting import is_pairwise
from xai_lib.streams.layouts import StreamsLayout
from xai_lib.streams.prepare import MASKS, CoupledInputs, prepare_streams
from xai_lib.streams.views import Prepared, prepare
from xai_lib.tracing import Site


@dataclass
class AllStreams(CoupledInputs):
    """All inputs of a model of several streams; pairwise: its scores are (images, texts)."""

    pairwise: bool = False

    def logits(self, output) -> Tensor:
        """Return the scores, and note whether every image is scored with every text."""
        logits = super().logits(output)
        self.pairwise = is_pairwise(output, logits, self.sizes())
        return logits

    def call(self, model, features: Tensor | None = None):
        """Run the model; streams that do not pair are named before torch complains of shapes."""
        try:
            return super().call(model, features)
        except RuntimeError as error:
            sizes = self.sizes()
            if isinstance(error, XAIError) or len(set(sizes.values())) == 1:
                raise
            counted = " and ".join(f"{count} of {stream}" for stream, count in sizes.items())
            raise InputError(
                f"inputs has {counted}, which do not pair; this model reads them together: "
                "expected one of each for every sample."
            ) from error

    def sizes(self) -> dict[str, int]:
        """Return the number of samples of each stream."""
        return {s: len(self.extra[name]) for name, s in self.sources.items() if name in self.extra}


def all_streams(model: nn.Module, inputs, position: int | None = None) -> Prepared:
    """Return the checked inputs of a model, of whatever streams it has."""
    found = prepare_streams(model, inputs, position)
    if found is not None:
        return AllStreams(found.everything, found.dtype, StreamsLayout(0, ()), **found.common())
    prepared = prepare(model, inputs)
    prepared.position = position
    return prepared


def present_tokens(prepared: Prepared) -> dict[str, Tensor]:
    """Return by stream which tokens are no padding, bool (samples of that stream, tokens)."""
    if not isinstance(prepared, AllStreams):
        present = getattr(prepared, "present", None)
        return {} if present is None else {prepared.stream: present.bool()}
    masks = {stream: prepared.extra.get(name) for stream, name in MASKS.items()}
    return {stream: mask.bool() for stream, mask in masks.items() if isinstance(mask, Tensor)}


def scores_pairs(
    model: nn.Module, prepared: Prepared, sites: Sequence[Site], logits: Tensor
) -> bool:
    """Whether the samples that a pass has shown are images and their classes texts."""
    if not isinstance(prepared, AllStreams) or any(site.kind == "cross" for site in sites):
        return False
    if any(site.query is not None and site.query[0].parts for site in sites):
        return False
    return prepared.pairwise or multimodal.scores_pairs(
        model, prepared, logits.detach(), prepared.sizes()
    )
