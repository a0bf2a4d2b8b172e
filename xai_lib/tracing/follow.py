"""Marks on tensors that lead from attention probabilities to values, projection and residual sum.

A tensor is marked by an attribute of its Python object, (stage, site):
  "scores": a product of two activations (`guards.Mixing`), on its way to a softmax;
  "probs": softmax probabilities; "talked": the same after heads were mixed or otherwise changed, so
    that rows are no distributions any more (talking heads);
  "mixed": the attended values; "branch": after the output projection;
  "after": anything computed from the branch, before a residual sum takes it up.
Sites are marked by weak references, since a site holds its output: memory is freed without a cycle.
"""

from __future__ import annotations

import weakref

from torch import Tensor

from xai_lib.tracing.ops import ROUTING, SUMS
from xai_lib.tracing.sites import Site

Mark = tuple[str, weakref.ref | None]


def mark_of(x) -> Mark:
    """Return the mark of a tensor, ("", None) where it has none."""
    return getattr(x, "_xai", ("", None))


def mark_site_output(output: Tensor, site: Site) -> None:
    """Start following the attended values of a site."""
    output._xai = ("mixed", weakref.ref(site))


def follow(name: str, output: Tensor, args, kwargs) -> None:
    """Mark the output of the operation `name`; note in its site what the operation tells of it."""
    if name == "softmax":
        stage, mixing = mark_of(args[0])
        if stage == "scores":
            mixing.resolved = True
        output._xai = ("probs", None)
        return
    operands = [x for x in args[:2] if isinstance(x, Tensor)]
    marked = next((x for x in operands if hasattr(x, "_xai")), None)
    if marked is None or hasattr(output, "_xai"):
        return
    stage, reference = marked._xai
    if stage == "scores":
        output._xai = marked._xai
        return
    others = [x for x in operands if x is not marked]
    carried = name in ROUTING or "dropout" in name
    if stage in ("probs", "talked"):
        output._xai = (stage if carried else "talked", None)
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
        if stage == "branch":
            # The other summand came past the site: it is the residual connection.
            site.residual = others[0]
        return ""
    scales = stage == "branch" and name in ("mul", "multiply", "rmul") and others
    if scales and others[0].numel() == others[0].shape[-1:].numel():
        site.branch_scale = others[0]
        return "branch"
    return "after"
