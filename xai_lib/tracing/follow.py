"""Marks on tensors that lead from attention probabilities to values, projection and residual sum.

A tensor is marked by an attribute of its Python object, (stage, what it belongs to):
  "scores": a product of two activations (`guards.Mixing`), on its way to a softmax;
  "probs": softmax probabilities, with their shape; "talked": the same after heads were mixed or
    otherwise changed, so that rows are no distributions any more (talking heads);
  "mixed": the attended values; "branch": after the output projection;
  "after": anything computed from the branch, before a residual sum takes it up.
Sites are marked by weak references, since a site holds its output: memory is freed without a cycle.
"""

from __future__ import annotations

import weakref

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from xai_lib.tracing.graph import reaches_own_rows
from xai_lib.tracing.guards import Mixing
from xai_lib.tracing.marks import AFTER, STAGE, leave, mark_of
from xai_lib.tracing.ops import REORDERING, ROUTING, SUMS
from xai_lib.tracing.sites import Site


def mark_site_output(output: Float[Tensor, "..."], site: Site) -> None:
    """Start following the attended values of a site."""
    leave(output, STAGE, ("mixed", weakref.ref(site)))


def stop_following(output: Float[Tensor, "..."]) -> None:
    """Mark what comes of probabilities of which no site is made: nothing that is computed of it
    stems from a softmax."""
    leave(output, STAGE, ("", None))


def heads_within(probs: Shaped[Tensor, "..."]) -> int:
    """Return how many heads share the first dimension with the samples; 0 where none do."""
    made = mark_of(probs)[1]
    if not isinstance(made, torch.Size) or len(made) != 4:
        return 0
    return made[1] if probs.shape == (made[:2].numel(), *made[2:]) else 0


def follow(name: str, output: Shaped[Tensor, "..."], args: tuple, kwargs: dict) -> None:
    """Mark the output of the operation `name`; note in its site what the operation tells of it."""
    if name == "softmax":
        mixing = mark_of(args[0])[1]
        if isinstance(mixing, Mixing):
            mixing.resolve()
        leave(output, STAGE, ("probs", output.shape))
        return
    operands = [x for x in args[:2] if isinstance(x, Tensor)]
    marked = next((x for x in operands if mark_of(x)[0]), None)
    if marked is None or hasattr(output, STAGE):
        return
    stage, reference = mark_of(marked)
    others = [x for x in operands if x is not marked]
    if isinstance(reference, Mixing):
        for other in (mark_of(x)[1] for x in others):
            if isinstance(other, Mixing):
                reference.join(other)
        leave(output, STAGE, (stage, reference))
        return
    carried = name in ROUTING or "dropout" in name
    if stage in ("probs", "talked"):
        kept = None if name in REORDERING else reference
        leave(output, STAGE, (stage if carried else "talked", kept))
        return
    site = reference() if isinstance(reference, weakref.ref) else None
    if site is None:
        return
    if not carried and kwargs.get("alpha", 1) != 1:
        stage = "after"
    elif not carried:
        stage = _next_stage(stage, name, site, others)
        if site.residual is not None and site.turned is None:
            site.turned = _turned(output, site)
    if stage:
        leave(output, STAGE, (stage, reference))


def _next_stage(stage: str, name: str, site: Site, others: list[Tensor]) -> str:
    """Return the stage after an operation that computes something, or "" to stop following."""
    if stage == "mixed":
        if name == "linear" and others:
            site.projection = others[0]
            return "branch"
        return ""
    if name in SUMS and others:
        if mark_of(others[0])[0] in ("branch", "after"):
            return "after"
        if isinstance(others[0], nn.Parameter) or _made_after(site, others[0]):
            # A bias, or the result of a feed-forward block beside the attention (GPT-NeoX).
            return stage
        # The other summand came past the site: it is the residual connection.
        site.skip = others[0]
        if stage == "branch":
            site.residual = others[0]
        return ""
    scales = stage == "branch" and name in ("mul", "multiply", "rmul") and others
    if scales and others[0].numel() == others[0].shape[-1:].numel():
        site.branch_scale = others[0]
        return "branch"
    return "after"


def _turned(output: Tensor, site: Site) -> bool:
    """Whether the block's sum has its samples in the second dimension, of as many as tokens.

    Asked of the graph: which samples of the attention a sample of the sum is made of.
    """
    square = output.dim() == 3 and output.shape[0] == output.shape[1] == len(site.output)
    if not square or len(output) < 2 or not (output.requires_grad and site.output.requires_grad):
        return False
    return reaches_own_rows(output, site.output, 0)


def _made_after(site: Site, x: Tensor) -> bool:
    """Whether x was computed after the site was met (views of earlier tensors do not count)."""
    return getattr(x, AFTER, 0) > site.index
