"""The examination of a model: one plain pass and two backward passes at the first call.

`examined` is what every explanation asks, and costs that much; `fully_examined` makes every check.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional

from xai_lib.errors import MethodNotApplicableError, UnsupportedModelError, XAIError
from xai_lib.passes import pruned
from xai_lib.passes.call import Call
from xai_lib.passes.examination import Examination
from xai_lib.passes.meeting import Meeting
from xai_lib.passes.probes import SAMPLES, Plain
from xai_lib.passes.verdicts import (
    BEGINS,
    LEAK,
    MIXED,
    OPEN,
    PADDING,
    Check,
    bound_of,
    compared,
    stays,
    verdict,
)
from xai_lib.streams.prepare import Inputs
from xai_lib.streams.targets import resolve_all

_KNOWN: WeakKeyDictionary[nn.Module, dict[Hashable, Examination]] = WeakKeyDictionary()


@contextmanager
def examined(model: nn.Module, inputs: Inputs, witness: bool) -> Iterator[Examination]:
    """Give the examination of a borrowed model at such inputs, made at the first call.

    One that failed is made again: the model may have been mended since. witness: whether what is
    asked for takes a gradient at the input, which the first such method is held against.
    """
    known = _KNOWN.setdefault(model, {})
    key = _key(model, inputs)
    found = known.get(key)
    if found is None or not found.holds or (witness and not found.witnessed):
        found = known[key] = _examine(model, inputs)
        found.witnessed = witness
    try:
        yield found
    finally:
        found.close()


def fully_examined(model: nn.Module, inputs: Inputs) -> Examination:
    """Return an examination in which every check is made that a model and its inputs allow.

    From then on `examined` goes by it.
    """
    found = _examine(model, inputs)
    found.witnessed = True
    _KNOWN.setdefault(model, {})[_key(model, inputs)] = found
    try:
        if inputs.several:
            meeting = Meeting.of(model, inputs)
            found.compare_scores(meeting.logits, lambda: inputs.scores(model))
            return found
        call = Call(model, inputs, _predicted, examination=found)
        run = call.forward(graph="as_is", at_input=True)
        if found.seed is not None and run.logits.requires_grad:
            rest = torch.zeros_like(run.logits)
            rest[: len(found.seed)] = found.seed[: len(rest)]
            # Of a text, plain autograd was asked at its words, before what is made of them.
            words = run.trace.embeddings.words if run.trace.embeddings is not None else None
            leaf = run.taken if words is None else words
            found.compare_gradient(leaf, run.gradients([leaf], rest)[0], rest)
        if inputs.focus is not None and inputs.focus.embeds:
            found.note(_padded(model, inputs))
        call.require_token_sites(run)
    except (MethodNotApplicableError, UnsupportedModelError):
        # The verdicts say it, or the trace has found a reason of its own.
        pass
    finally:
        found.close()
    return found


def forget(model: nn.Module) -> None:
    """Let the next explanation of a model examine it anew."""
    _KNOWN.pop(model, None)


def _predicted(logits: Tensor) -> Tensor:
    return resolve_all(None, None, logits, None)


def _padded(model: nn.Module, inputs: Inputs) -> Check:
    """Whether scores stay as they are with one more token of padding behind a text."""
    few = inputs.first(SAMPLES)
    mask = few.extra.get("attention_mask")
    if not isinstance(mask, Tensor) or mask.shape != few.only.data.shape:
        return Check(PADDING, None, bound_of(few.scores(model)), OPEN)
    filled = getattr(getattr(model, "config", None), "pad_token_id", None) or 0

    def longer(x: Tensor, value: int) -> Tensor:
        return functional.pad(x, (0, 1), value=value)

    stream = few.only
    assert stream.present is not None, "a stream of words has a mask"
    ids, present = longer(stream.data, filled), longer(stream.present, 0)
    stream = replace(stream, data=ids, present=present, special=None, encodings=None)
    rows = {k: x for k, x in few.extra.items() if isinstance(x, Tensor) and x.shape == mask.shape}
    extra = few.extra | {k: longer(x, 0) for k, x in rows.items() if k != "position_ids"}
    before = few.scores(model).detach()
    # Places that are counted from the end lie one further from it.
    place = few.position
    place = place - 1 if place is not None and place < 0 else place
    try:
        longer_few = replace(few, streams=(stream,), focus=stream, extra=extra, position=place)
        after = longer_few.scores(model).detach()
    except Exception:
        # A text that is as long as the model takes has no room for padding.
        return Check(PADDING, None, bound_of(before), OPEN)
    # Where tokens are what is scored there is one more of them.
    return compared(PADDING, after[:, : before.shape[1]], before)


def _key(model: nn.Module, inputs: Inputs) -> Hashable:
    shapes = sorted(
        (name, tuple(x.shape), str(x.dtype))
        for name, x in inputs.everything.items()
        if isinstance(x, Tensor)
    )
    own = [str(s.data.dtype) + str(tuple(s.data.shape)) for s in inputs.streams]
    weights = next((str(p.dtype) for p in model.parameters()), "")
    return (weights, inputs.position, inputs.output, *own, *shapes)


def _examine(model: nn.Module, inputs: Inputs) -> Examination:
    # Masks of heads belong to samples; what tokens do is the same without them.
    whole = model not in pruned.PLANS
    try:
        with nullcontext() if whole else pruned.traced(model):
            plain = Plain.of(model, inputs)
    except XAIError:
        raise
    except Exception:
        # What the model itself refuses is told by the pass that is asked for.
        return Examination()
    try:
        found = _judged(plain, inputs)
    finally:
        plain.close()
    if not whole:
        found.close()
    return found


def _judged(plain: Plain, inputs: Inputs) -> Examination:
    found = Examination(scores=plain.scores.detach())
    if not plain.leaves or not plain.scores.requires_grad:
        return found
    top = plain.scores.detach().argmax(1, keepdim=True)
    seed = torch.zeros_like(plain.scores).scatter_(1, top, 1.0)
    try:
        found.gradient = plain.gradient(seed)
        probes = plain.probes()
    except RuntimeError:
        # Plain autograd does not get through this model; nothing was measured.
        return found
    if plain.root is not None:
        found.root, found.seed = plain.root.detach(), seed
    for probe in probes:
        found.note(stays(probe))
    if inputs.several or not probes:
        return found
    (probe,) = probes
    if inputs.focus is None or not inputs.focus.embeds:
        # Where patches lie is known once a trace has seen them.
        found.probe = probe
    elif (words := probe.at_words()) is not None:
        found.note(verdict(BEGINS, words, LEAK, MIXED))
    return found
