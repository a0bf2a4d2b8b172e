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

from torch import Tensor, nn

from xai_lib.tracing.ops import REORDERING, ROUTING, SUMS
from xai_lib.tracing.sites import Site

Mark = tuple[str, object]


def mark_of(x) -> Mark:
    """Return the mark of a tensor, ("", None) where it has none."""
    return getattr(x, "_xai", ("", None))


def mark_site_output(output: Tensor, site: Site) -> None:
    """Start following the attended values of a site."""
    output._xai = ("mixed", weakref.ref(site))


def stop_following(output: Tensor) -> None:
    """Mark what comes of probabilities of which no site is made: nothing that is computed of it
    stems from a softmax."""
    output._xai = "", None


def heads_within(probs: Tensor) -> int:
    """Return how many heads share the first dimension with the samples; 0 where none do."""
    made = mark_of(probs)[1]
    flat = made is not None and len(made) == 4 and probs.dim() == 3
    return made[1] if flat and probs.shape == (made[:2].numel(), *made[2:]) else 0


def follow(name: str, output: Tensor, args, kwargs) -> None:
    """Mark the output of the operation `name`; note in its site what the operation tells of it."""
    if name == "softmax":
        stage, mixing = mark_of(args[0])
        if stage == "scores":
            mixing.resolve()
        output._xai = ("probs", output.shape)
        return
    operands = [x for x in args[:2] if isinstance(x, Tensor)]
    marked = next((x for x in operands if mark_of(x)[0]), None)
    if marked is None or hasattr(output, "_xai"):
        return
    stage, reference = marked._xai
    others = [x for x in operands if x is not marked]
    if stage == "scores":
        for other in others:
            if mark_of(other)[0] == "scores":
                reference.join(mark_of(other)[1])
        output._xai = marked._xai
        return
    carried = name in ROUTING or "dropout" in name
    if stage in ("probs", "talked"):
        kept = None if name in REORDERING else reference
        output._xai = (stage if carried else "talked", kept)
        return
    site = reference()
    if site is None:
        return
    if not carried and kwargs.get("alpha", 1) != 1:
        stage = "after"
    elif not carried:
        stage = _next_stage(stage, name, site, others)
    if stage:
        output._xai = (stage, reference)


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


def _made_after(site: Site, x: Tensor) -> bool:
    """Whether x was computed after the site was met (views of earlier tensors do not count)."""
    return getattr(x, "_xai_after", 0) > site.index
