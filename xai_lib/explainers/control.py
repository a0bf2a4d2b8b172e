"""Random scores: what any explanation has to beat."""

from __future__ import annotations

import hashlib

import torch

from xai_lib.explainers.mixing import accumulation_dtype
from xai_lib.explainers.output import Output
from xai_lib.explainers.registry import explainer
from xai_lib.explainers.signs import non_negative
from xai_lib.options import check_range
from xai_lib.passes.call import Call


@explainer(
    "random",
    family="control",
    cite="samek2017",
    sign=non_negative("drawn at random as a control, it means nothing"),
    class_specific=False,
    streams="apart",
)
def random(call: Call, *, seed: int = 0) -> Output:
    """Uniform random scores in [0, 1), the control of deletion experiments (Samek et al. 2017).

    Drawn for each sample from `seed` and its own input, so that a batch equals its samples.
    """
    check_range("seed", seed, 0, 2**63 - 1, "where the draws start.")
    run = call.forward(graph="as_is", keep=False)
    tokens, content = call.layout(run).tokens, call.content(run)
    dtype = accumulation_dtype(run.logits)
    scores = run.logits.new_zeros(call.inputs.batch, tokens, dtype=dtype)
    for i, sample in enumerate(call.samples()):
        digest = hashlib.sha256(sample.double().cpu().numpy().tobytes())
        number = int.from_bytes(digest.digest()[:7]) ^ seed
        generator = torch.Generator().manual_seed(number)
        drawn = torch.rand(int(content[i].sum()), generator=generator, dtype=torch.float64)
        scores[i, content[i]] = drawn.to(scores)
    return Output.agnostic(call, scores)
