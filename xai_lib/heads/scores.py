"""How much each attention head counts for a prediction: all scores of one forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from xai_lib.errors import InputError, OptionError, unknown_name
from xai_lib.explainers.lrp import rule_set
from xai_lib.explainers.steps import step
from xai_lib.heads.ranking import LEVELS, HeadScores, ScoredSite
from xai_lib.passes.call import Call
from xai_lib.passes.loan import borrowed, unwrap
from xai_lib.passes.meeting import scores_pairs
from xai_lib.passes.run import Run
from xai_lib.streams.labels import class_names
from xai_lib.streams.outputs import Choice, choice_of
from xai_lib.streams.prepare import Inputs, prepare
from xai_lib.streams.scales import SOFTMAX, scale_of
from xai_lib.streams.targets import Target, resolve_all
from xai_lib.tracing import Site
from xai_lib.tracing.marks import State

METHODS = ("grad_x_attention", "lrp", "taylor", "random")
QUANTITIES = ("logit", "loss")


@torch.inference_mode(False)
def head_scores(
    model: nn.Module,
    inputs: Float[Tensor, "..."] | Mapping,
    method: str = "grad_x_attention",
    target: Target = None,
    *,
    methods: Sequence[str] | None = None,
    level: str = "head",
    quantity: str = "logit",
    compat: str | None = None,
    position: int | None = None,
    output: Choice = None,
    seed: int | Sequence[int] = 0,
) -> HeadScores | dict[str, HeadScores]:
    """Score every attention head, or layer, of any model that can be explained.

    method: with A the attention probabilities of a head (queries, keys) and y what is
    differentiated,
      "grad_x_attention": mean over (q, k) of ∂y/∂A ⊙ A, signed (the published LXMERT and VisualBERT
        head analysis);
      "lrp": mean over (q, k) of the relevance of A, signed (same; rules of Chefer et al., CVPR
        2021). compat="reference" lets sums leak over the batch and takes means over padding
        as well, as published; else means are over a sample's own tokens;
      "taylor": |Σ A ⊙ ∂y/∂A| = |∂y/∂ξ|, ξ being what the head's output is multiplied with (Michel
        et al., NeurIPS 2019, Eq. 2); `HeadScores.normalised` is their norm of each layer;
      "random": uniform in [0, 1) from `seed`, alike for all samples, or a seed for each sample.
    methods=[...]: several, which share the forward pass; returns {method: scores}.
    target: as in `xai.explain`; quantity: y is the target's "logit", or the cross-entropy "loss" of
    the target as label. level="layer": the mean over the heads of each attention call (published).
    inputs, position, output: as in `xai.explain`; models of several streams take the inputs of all.
    The gradient scores take one forward pass and one backward pass to the attention probabilities.
    Raises InputError, TargetError, OptionError, UnsupportedModelError, MethodNotApplicableError.
    """
    wanted = [method] if methods is None else list(methods)
    for known, name, kind in (
        *((METHODS, one, "head score") for one in wanted),
        (LEVELS, level, "level"),
        (QUANTITIES, quantity, "quantity"),
        (("reference",), compat or "reference", "compat"),
    ):
        if name not in known:
            raise unknown_name(kind, name, known)
    if not wanted:
        raise OptionError(f"methods is empty; expected some of {', '.join(METHODS)}.")
    if quantity == "loss" and isinstance(target, tuple):
        raise OptionError("A loss has one label for each sample: target is a pair of classes.")
    model = unwrap(model)
    given = prepare(model, inputs, position, choice_of(output, None))
    call = Call(
        model,
        given,
        lambda logits: resolve_all(
            None, target, given.scored(logits), class_names(model, logits.shape[1])
        ),
        reference=compat == "reference",
    )
    rules = rule_set(call, "zplus", 1.0) if "lrp" in wanted else None
    with borrowed(model):
        run = call.forward(graph="sites", rules=rules)
        pairwise = _pairwise(model, given, run)
        present = step(call, "head_scores.present", _present)(given)
        if pairwise and "text" in present:
            # A sample's text is the one that it is scored with.
            present["text"] = present["text"][call.targets[0][:, 0]]
        scorer = _Scorer(run, _seeds(call, run, quantity, pairwise), pairwise, present)
        values = {name: scorer.values(name, seed, len(run.logits)) for name in wanted}
    sites = scorer.sites(given.streams[0].name)
    found = {
        name: HeadScores(
            sites,
            _of_layers(rows, sites) if level == "layer" else rows,
            name,
            level,
            call.targets[0].detach(),
            run.logits.detach(),
            pairwise,
        )
        for name, rows in values.items()
    }
    return found[method] if methods is None else found


@dataclass
class _Scorer:
    """Values of heads, from the passes of a run that they take; each pass runs at most once.

    seeds: (passes, samples, classes). pairwise: the rows of a site may be other than the samples,
    so that each sample has a pass of its own. present: by stream, which tokens are no padding.
    """

    run: Run
    seeds: Tensor
    pairwise: bool
    present: dict[str, Tensor]

    def __post_init__(self):
        self._found: dict[str, list[Tensor]] = {}

    def values(self, method: str, seed, samples: int) -> Tensor:
        """Return (samples, heads) of all sites."""
        if method == "random":
            return _random(seed, samples, self._totals("gradient")).to(self.run.logits.device)
        totals = self._totals("relevance" if method == "lrp" else "gradient")
        if method == "taylor":
            return torch.cat([total.abs() for total in totals], 1)
        parts = zip(totals, self.run.sites, strict=True)
        return torch.cat([total / self._size(site).to(total) for total, site in parts], 1)

    def _size(self, site: Site) -> Tensor:
        """Return how many pairs of tokens a site's mean is over, (samples, 1), without padding.

        Else a sample's streams would be weighted by the others of its batch.
        """
        queries, keys = (
            self._count(state, tokens)
            for state, tokens in ((site.query, site.queries), (site.key, site.keys))
        )
        return queries * keys * self._windows(site)

    def _count(self, state: State | None, tokens: int) -> Tensor:
        """Return the number of tokens, (samples, 1), of a chain that has `tokens` with padding."""
        chain = None if state is None else state[0]
        if chain is not None and chain.parts:
            counts = [self._of_stream(part and part.name, n) for part, _, n in chain.parts]
            return torch.stack(counts).sum(0)
        name = next(iter(self.present), None) if chain is None else chain.name
        return self._of_stream(name, tokens)

    def _of_stream(self, name: str | None, tokens: int) -> Tensor:
        present, samples = self.present.get(name or ""), len(self.run.logits)
        if present is None or tuple(present.shape) != (samples, tokens):
            return self.run.logits.new_full((samples, 1), tokens)
        return present.sum(1, keepdim=True)

    def sites(self, stream: str) -> tuple[ScoredSite, ...]:
        """Return what the scores belong to; a site that no pass reached counts as unreached."""
        known = list(self._found.values())
        return tuple(
            ScoredSite(
                site.index,
                site.name,
                stream if site.query is None else site.looking.name,
                site.index if site.query is None else site.ordinal,
                site.kind,
                site.heads,
                any(bool(found[place].any()) for found in known),
            )
            for place, site in enumerate(self.run.sites)
        )

    def _totals(self, kind: str) -> list[Tensor]:
        """Return for each site Σ_qk of gradient ⊙ attention, or of relevance: (samples, heads)."""
        if kind not in self._found:
            probs = [site.probs for site in self.run.sites]
            back = self.run.gradients if kind == "gradient" else self.run.relevances
            passes = []
            for seed in self.seeds:
                found = back(probs, seed)
                if kind == "gradient":
                    found = [g * p.detach() for g, p in zip(found, probs, strict=True)]
                passes.append([self._per_sample(x) for x in found])
            self._found[kind] = [torch.cat(rows) for rows in zip(*passes, strict=True)]
        return self._found[kind]

    def _per_sample(self, x: Tensor) -> Tensor:
        """Return (samples, heads) sums of (rows, [heads,] queries, keys)."""
        totals = x.sum((-1, -2)) if x.dim() > 3 else x.sum((-1, -2))[:, None]
        if self.pairwise:
            # Only what belongs to the one sample of this pass is not zero.
            return totals.sum(0, keepdim=True)
        samples = len(self.run.logits)
        if totals.shape[0] % samples:
            raise InputError(
                f"An attention call works on {totals.shape[0]} rows for {samples} samples, so its "
                "heads cannot be scored for each sample. Score one sample at a time."
            )
        return totals.unflatten(0, (samples, -1)).sum(1)

    def _windows(self, site: Site) -> int:
        return 1 if self.pairwise else site.probs.shape[0] // len(self.run.logits)


def _pairwise(model: nn.Module, inputs: Inputs, run: Run) -> bool:
    """Whether the samples that a pass has shown are images and their classes texts."""
    if not inputs.several or any(site.kind == "cross" for site in run.sites):
        return False
    if any(site.query is not None and site.looking.parts for site in run.sites):
        return False
    return inputs.in_pairs or scores_pairs(model, inputs, run.logits.detach())


def _present(inputs: Inputs) -> dict[str, Tensor]:
    """Return by stream which tokens are no padding, bool (samples of that stream, tokens)."""
    return {s.name: s.present for s in inputs.streams if s.present is not None}


def _seeds(call: Call, run: Run, quantity: str, pairwise: bool) -> Tensor:
    """Return what the backward passes start from, (passes, samples, classes)."""
    seed = call.seed(call.targets[0], run.logits)
    if quantity == "loss" and scale_of(call.model, run.logits) != SOFTMAX:
        raise OptionError(
            "quantity='loss' is the cross-entropy of one right class, and the model's scores are "
            "no logits of classes that exclude each other; quantity='logit' takes a score."
        )
    if quantity == "loss" and (call.targets[0][:, 1] >= 0).any():
        raise OptionError("A loss has one label for each sample: target holds a pair of classes.")
    if quantity == "loss":
        seed = run.logits.detach().softmax(-1) - seed
    if not pairwise:
        return seed[None]
    return torch.eye(len(seed), dtype=seed.dtype, device=seed.device)[..., None] * seed


def _random(seed, samples: int, like: list[Tensor]) -> Tensor:
    seeds = [seed] * samples if isinstance(seed, int) else list(seed)
    if len(seeds) != samples:
        raise OptionError(f"seed has {len(seeds)} numbers for a batch of {samples} samples.")
    heads = sum(x.shape[1] for x in like)
    draw = (torch.rand(heads, generator=torch.Generator().manual_seed(int(s))) for s in seeds)
    return torch.stack(list(draw)).to(like[0].dtype)


def _of_layers(values: Tensor, sites: Sequence[ScoredSite]) -> Tensor:
    parts = values.split([site.heads for site in sites], 1)
    return torch.stack([part.mean(1) for part in parts], 1)
