"""Layer-wise relevance propagation: to attention maps (Chefer et al.), tokens and pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from xai_lib.errors import OptionError, unknown_name
from xai_lib.explainers.mixing import positive_head_mean
from xai_lib.explainers.output import Output
from xai_lib.explainers.reading import Reader, mixer_options
from xai_lib.explainers.registry import explainer
from xai_lib.explainers.signs import POSITIVE_PART, POSITIVE_RELEVANCE, signed
from xai_lib.explainers.steps import step
from xai_lib.passes.call import Call
from xai_lib.passes.loan import HALF
from xai_lib.passes.run import Run
from xai_lib.rules.gate import Switch
from xai_lib.rules.rulesets import AttnLRP, ZPlus
from xai_lib.tracing.graph import is_cut, reaches_own_rows

RULES = ("zplus", "zplus_split")


def rule_set(call: Call, rules: str, alpha: float) -> ZPlus:
    """Return the rule set called `rules`."""
    if rules not in RULES:
        raise unknown_name("rules", rules, RULES)
    if not 1 <= alpha < float("inf"):
        raise OptionError(
            f"alpha is {alpha!r}; expected a number of at least 1 (beta is alpha - 1)."
        )
    split = rules == "zplus_split"
    whole_batch = step(call, "zplus.whole_batch", False)
    return ZPlus(Switch(), split=split, alpha=float(alpha), whole_batch=whole_batch)


@explainer(
    "transformer_attribution",
    family="LRP x gradient",
    cite="chefer2021cvpr",
    sign=POSITIVE_PART,
    needs=("gradient", "relevance"),
    streams="together",
)
def transformer_attribution(
    call: Call,
    *,
    start_layer: int = 0,
    rules: str = "zplus",
    alpha: float = 1.0,
    normalize_rows: bool = False,
    readout: int | None = None,
    bimodal: dict | None = None,
) -> Output:
    """Transformer attribution: R = Π_l (I + E_h[(∇A_l ⊙ R_{A_l})⁺]) (CVPR 2021, Eq. 13-14).

    ∇A is the gradient of the target's logit at the attention probabilities and R_A their relevance.
    Where two streams attend to each other, with the bi-modal rules of ICCV 2021 (`bimodal` as in
    generic_attention); {"carry": False, "self_in_cross": False} is the baseline of that paper, the
    method of CVPR 2021 on each stream and the last cross-attention's map between them.
    """
    run = call.forward(graph="sites", first_site=start_layer, rules=rule_set(call, rules, alpha))
    options = mixer_options(call, bimodal, normalize_rows)
    reader = Reader(call, run, start_layer=start_layer, readout=readout, options=options)

    def explain(seed):
        grads, at_outputs = reader.split(run.gradients(reader.tensors, seed))
        relevances = run.relevances([s.probs for s in reader.sites], seed)
        maps = (positive_head_mean(g * r) for g, r in zip(grads, relevances, strict=True))
        return reader.read(maps, at_outputs)

    return Output(call.each_target(run, explain))


@explainer(
    "lrp_rollout",
    family="LRP",
    cite="chefer2021cvpr",
    sign=POSITIVE_RELEVANCE,
    needs=("relevance",),
    streams="together",
)
def lrp_rollout(
    call: Call,
    *,
    start_layer: int = 0,
    rules: str = "zplus",
    alpha: float = 1.0,
    normalize_rows: bool = False,
    readout: int | None = None,
) -> Output:
    """Rollout of attention relevance: R = Π_l (I + E_h[R_{A_l}⁺]), without gradient."""
    run = call.forward(graph="sites", first_site=start_layer, rules=rule_set(call, rules, alpha))
    options = mixer_options(call, None, normalize_rows)
    reader = Reader(call, run, start_layer=start_layer, readout=readout, options=options)

    def explain(seed):
        relevances, at_outputs = reader.split(run.relevances(reader.tensors, seed))
        return reader.read(map(positive_head_mean, relevances), at_outputs)

    return Output(call.each_target(run, explain))


@explainer(
    "partial_lrp",
    family="LRP",
    cite="voita2019",
    sign=POSITIVE_RELEVANCE,
    needs=("relevance",),
    streams="together",
)
def partial_lrp(
    call: Call,
    *,
    layer: int = -1,
    rules: str = "zplus",
    alpha: float = 1.0,
    gradient: bool = False,
    readout: int | None = None,
) -> Output:
    """Partial LRP: the relevance of one layer's attention, E_h[R_A⁺], the last layer by default.

    gradient: weight it by the gradient first, E_h[(∇A ⊙ R_A)⁺] (an ablation of CVPR 2021).
    compat="reference" on text with image: E_h[R_A] min-maxed over the whole map, as ICCV 2021.
    """
    reader = Reader.of_layer(call, layer, readout, rule_set(call, rules, alpha))
    run, read = reader.run, positive_head_mean
    if not gradient:
        read = step(call, "partial_lrp", positive_head_mean)

    def explain(seed: Tensor) -> Tensor:
        relevances, at_outputs = reader.split(run.relevances(reader.tensors, seed))
        if gradient:
            grads = run.gradients([site.probs for site in reader.sites], seed)
            relevances = [r * g for r, g in zip(relevances, grads, strict=True)]
        return reader.last(map(read, relevances), at_outputs)

    return Output(call.each_target(run, explain))


@explainer(
    "lrp",
    family="LRP",
    cite="bach2015",
    sign=signed(
        "the token's share of the class's relevance; a negative score is relevance that a sum or "
        "product gave to the smaller of two opposing parts, and counts against the class"
    ),
    needs=("relevance",),
    streams="apart",
)
def lrp(call: Call, *, rules: str = "zplus", alpha: float = 1.0) -> Output:
    """Full LRP to tokens and pixels; z^B at the patch embedding (Montavon et al. 2017).

    On a text: the relevance of each token's embedding, summed over its dimensions.
    What is lost or gained on the way is in `att.checks["relevance"]`, as a share of the 1 that
    starts at the target. att.relevance is that of each token's embedding, prefix tokens included;
    att.pixels
    what of it reaches the image (position embeddings keep their share of a sum). In models that
    merge patches (Swin) att.relevance sums att.pixels per patch of the first grid.
    """
    run = call.forward(at_input=True, rules=rule_set(call, rules, alpha))
    found = to_input(call, run, lambda tensors, seed: run.relevances(tensors, seed))
    kept = found.relevance
    if kept is not None and not call.inputs.several and not call.reference:
        # One goes in for each target, less one for what it is explained against.
        given = (call.targets >= 0).long() @ call.targets.new_tensor([1, -1])
        call.checks["relevance"] = float((kept.sum(-1) - given.to(kept.device)).abs().max())
    return found


@explainer(
    "attnlrp",
    family="LRP",
    cite="achtibat2024",
    sign=signed(
        "the token's contribution to the logit; a negative score lowers it (AttnLRP's rules)"
    ),
    needs=("relevance",),
    streams="apart",
)
def attnlrp(call: Call) -> Output:
    """AttnLRP: R = x ⊙ g, g the backward pass under the paper's rules (see rules.AttnLRP)."""
    run = call.forward(at_input=True, rules=AttnLRP(Switch()))

    def relevance(tensors, seed):
        grads = run.gradients(tensors, seed)
        return [g * x.detach() for g, x in zip(grads, tensors, strict=True)]

    return to_input(call, run, relevance)


def to_input(
    call: Call, run: Run, propagate: Callable[[list[Tensor], Tensor], Sequence[Tensor]]
) -> Output:
    """Collect relevance at the token embeddings, where tokens stay apart, and at the pixels."""
    if not call.at_pixels:
        return Output(call.each_target(run, lambda seed: propagate([run.taken], seed)[0].sum(-1)))
    layout, embedded = call.layout(run), _embedded(run)
    shared = run.trace.is_shared(call.inputs.batch)
    has_tokens = shared and embedded is not None and layout.tokens >= embedded.shape[1]

    def explain(seed):
        wanted = [run.taken, *([embedded] if has_tokens else [])]
        return [r.float() if r.dtype in HALF else r for r in propagate(wanted, seed)]

    found = [explain(call.seed(target, run.logits)) for target in call.targets]
    pixels = torch.stack([r[0].sum(1) for r in found])
    if not has_tokens:
        return Output(pixels=pixels)
    # Class tokens that join after the first attention have no input embedding: they get zero.
    tokens = torch.stack([r[1].sum(-1) for r in found])
    return Output(F.pad(tokens, (layout.tokens - tokens.shape[-1], 0)), pixels)


def _embedded(run: Run) -> Tensor | None:
    """Return the tokens (batch, tokens, dim) that all relevance of the pixels comes through.

    What the first layer reads can be a branch of them, where a hook copies it. None where there are
    none, or where the first dimension is not that of samples.
    """
    first = run.sites[0].skip if run.sites else None
    for x in (run.trace.tokens, first):
        if x is None or not x.requires_grad or x.dim() != 3 or len(x) != len(run.logits):
            continue
        if not is_cut(x, run.taken, run.logits):
            continue
        # Of as many tokens as samples, sizes do not tell which dimension is which.
        if x.shape[0] != x.shape[1] or reaches_own_rows(x.transpose(0, 1), run.taken, 0):
            return x
    return None
