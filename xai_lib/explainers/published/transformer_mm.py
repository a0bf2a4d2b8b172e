"""The code of Chefer et al. (ICCV 2021) for LXMERT and VisualBERT: where it departs."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from xai_lib.explainers.published.transformer_explainability import min_max
from xai_lib.explainers.steps import departs
from xai_lib.passes.call import Call
from xai_lib.streams.prepare import Inputs


def of_text_with_image(call: Call) -> bool:
    """Whether a text and an image are explained together, in one sequence or as two."""
    return call.coupled or (call.inputs.several and call.inputs.chain is None)


@departs(
    "partial_lrp",
    when=of_text_with_image,
    methods="`partial_lrp` on text with image",
    default="E_h[R_A⁺] in the rows read",
    reference="E_h[R_A], signs kept, min-maxed over the whole map",
)
def mean_min_maxed(
    relevance: Float[Tensor, "batch heads queries keys"],
) -> Float[Tensor, "batch queries keys"]:
    """Return the mean over heads, signs kept, min-maxed over the whole map."""
    mean = relevance.mean(1)
    return min_max(mean.flatten(1)).view_as(mean)


@departs("head_scores.present")
def all_tokens(inputs: Inputs) -> dict[str, Bool[Tensor, "_ _"]]:
    """The means of head scores are over padding as well."""
    return {}


departs(
    "rollout.options",
    when=lambda call: call.coupled,
    methods="`rollout` between streams",
    default="one flow: R^q ← (R^q + A R^k) / 2 at cross-attention, rows over all streams sum to 1",
    reference="each stream's rollout; between two, (R^qq)ᵀ A R^kk of the last cross-attention, not "
    "carried on",
)({"carry": False, "normalize": False})
