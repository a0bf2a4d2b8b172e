"""A model with heads pruned for a while: `with xai.prune_heads(model, mask): ...`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import local

from torch import nn

from xai_lib.heads.masks import HeadPlan, Heads, Key
from xai_lib.passes import pruned
from xai_lib.passes.loan import eager, unwrap
from xai_lib.tracing import HeadMask, Trace


@contextmanager
def prune_heads(model: nn.Module, mask: Mapping[Key, Heads] | HeadMask) -> Iterator[nn.Module]:
    """Prune attention heads inside the block: `with xai.prune_heads(model, mask): model(**inputs)`.

    The attention probabilities of a head are multiplied by 0 after the softmax and nothing is
    renormalised; values' projection, output projection with its bias, and residual connection stay
    (Michel et al., NeurIPS 2019, section 2.2; the published pruning of LXMERT and VisualBERT).
    mask: `HeadScores.mask(...)`, or {site: heads}. A site is the name of a module (all its calls),
    (name, call) or the number of an attention call; heads are the numbers to prune, "all" (the
    layer), or a tensor (heads,) or (samples, heads) that multiplies them: each sample its own mask.
    Plain calls of the model see it pruned, and so do xai.explain, xai.head_scores and xai.trace;
    calls of its parts alone (generate, get_image_features) take masks by module names, as
    `HeadScores.mask` makes them. A deep copy of the model is whole.
    Blocks may be nested. Afterwards the model is what it was, also after an error.
    Raises InputError where the mask names a site or head that the model has not, has a wrong shape,
    or prunes every head of every site; what only a pass can show is raised by the first pass.
    """
    model = unwrap(model)
    plan = HeadPlan(model, mask)
    outer = pruned.PLANS.get(model)
    if outer is not None:
        with pruned.active(model, outer.with_plan(plan)):
            yield model
        return
    with eager(), pruned.active(model, plan), _masked_calls(model):
        yield model


@contextmanager
def _masked_calls(model: nn.Module) -> Iterator[None]:
    """Let plain calls of the model, and of its parts alone, run under a trace that masks them."""
    parts = [m for m in model.modules() if m is model or next(m.children(), None) is not None]
    own = {id(part) for part in parts}
    held = local()

    def enter(module, args):
        traces = getattr(held, "traces", [])
        trace = None
        # A copy of the model has these hooks as well, and is whole.
        if id(module) in own and not any(traces) and not pruned.is_traced(model):
            plan = pruned.PLANS[model]
            mask = plan.for_pass(1) if module is model else plan.for_part()
            trace = Trace(model, mask=mask, keep=False)
            trace.__enter__()
        held.traces = [*traces, trace]

    def leave(module, args, output):
        traces = getattr(held, "traces", None)
        trace = traces.pop() if traces else None
        if trace is not None:
            trace.__exit__(None, None, None)
            if output is not None:
                trace.mask.check()

    handles = []
    for part in parts:
        handles.append(part.register_forward_pre_hook(enter, prepend=True))
        handles.append(part.register_forward_hook(leave, prepend=True, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        # An interrupt leaves a pass without its hooks.
        for trace in filter(None, reversed(getattr(held, "traces", []))):
            trace.__exit__(None, None, None)
