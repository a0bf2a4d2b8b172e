"""The trace: one forward pass of an unmodified model, seen from inside."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.nn import functional as F

from xai_lib.errors import UnsupportedModelError
from xai_lib.rules.gate import Switch
from xai_lib.rules.rulesets import RuleSet
from xai_lib.tracing.arguments import is_plain
from xai_lib.tracing.chains import Chains, carry
from xai_lib.tracing.embeddings import Embeddings
from xai_lib.tracing.follow import (
    follow,
    heads_within,
    mark_site_output,
    stop_following,
)
from xai_lib.tracing.forms import folded_heads, heads_first, note_folding
from xai_lib.tracing.graph import current, feeds, reaches_own_rows, substituted
from xai_lib.tracing.guards import Guards
from xai_lib.tracing.handlers import Handlers
from xai_lib.tracing.marks import AFTER, STAGE, hand_over, leave, mark_of, state_of
from xai_lib.tracing.masks import HeadMask
from xai_lib.tracing.ops import KINDS, ROUTING, bare_name, out_of_place, writes
from xai_lib.tracing.sites import Site, caller_name
from xai_lib.tracing.sources import note_source
from xai_lib.tracing.tape import Tape

# Names under which operations take the operands that handlers read by place.
OPERANDS = ("input", "other", "mat2")

# Operations that leave out some of the tokens.
MASKS = ("mul", "rmul", "multiply", "masked_fill", "where")

Graph = Literal["as_is", "sites", "last", "readout"]


class Trace(Handlers):
    """Intercepts every torch call of a forward pass; touches neither the model nor its classes.

    graph: where the autograd graph starts.
      "as_is": wherever the caller's tensors start it (the model's input, its parameters).
      "sites": at the attention probabilities of site `first_site`, so that no backward pass goes
        deeper than that.
      "last": at the last site; everything before is let go as the pass moves on. Sites with fewer
        queries than keys (class attention, pooling probes) are kept together with the last one
        that has not, since nobody knows yet whether the logits come from them.
      "readout": after the last site, at the token tensor that the head reads.
    rules: a rule set (`xai_lib.rules.rulesets`) for relevance passes, or None.
    fused: so many attention calls at the beginning run as the model makes them, where those are
      fused: nobody asks for their maps.
    embeddings: what to do with the embeddings of a text (`Embeddings`), or None.
    chains: follows the token sequences of a model of several streams (`Chains`), or None. Then
      `first_site` counts the sites of each chain, and "last" and "readout" need a focus.
    mask: multiplies the probabilities of sites, head by head (`HeadMask`), or None.
    tape: keeps what the model does after its last attention call (`Tape`), or None.
    samples: the number of samples, where it is known: so heads are told from them where a model
      keeps both in one dimension.
    on_site: called with each site once the next one is met, when its projection and residual are
      known, and with the last one in `settle`; with keep=False nothing else holds on to it, so
      that memory does not grow with depth.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        *,
        graph: Graph = "as_is",
        first_site: int = 0,
        rules: RuleSet | None = None,
        on_site: Callable[[Site], None] | None = None,
        keep: bool = True,
        embeddings: Embeddings | None = None,
        fused: int = 0,
        chains: Chains | None = None,
        mask: HeadMask | None = None,
        tape: Tape | None = None,
        samples: int | None = None,
    ):
        super().__init__()
        self.sites: list[Site] = []
        self.graph, self.first_site = graph, first_site
        self.rules, self.on_site, self.keep = rules, on_site, keep
        self.embeddings, self.fused = embeddings, fused
        self.chains, self.mask, self.tape = chains, mask, tape
        self.samples = samples
        self.switch = rules.switch if rules is not None else Switch()
        self.grid: tuple[int, int] | None = None
        self.patch: tuple[int, int] | None = None
        self.tokens: Float[Tensor, "batch tokens dim"] | None = None
        self.readout: Float[Tensor, "batch tokens dim"] | None = None
        self._names = {id(m): n for n, m in model.named_modules()} if model is not None else {}
        self.shapes: list[tuple[int, int, int]] = []
        self.mixes_heads = False
        # Attention calls so far, and those of them that were looked into.
        self._calls = self._count = 0
        # Whether the heads of the site to be met were told from the number of samples.
        self._guessed = False
        self._queries = -1
        self._pending: Site | None = None
        self._earlier_readout: Tensor | None = None
        # Where the graph was started since the last site.
        self._readouts: list[Tensor] = []
        self._embeddings: list[Tensor] = []
        self._live: list[weakref.ref] = []
        # In-place operands and what stands for them from then on.
        self._replaced: dict[int, tuple[Tensor, object]] = {}
        # The probabilities of the last attention call, and whether its caller wants them.
        self._recent: Tensor | None = None
        self._wants_weights = False
        self.guards = Guards()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if self._replaced:
            args = substituted(args, self._replaced)
            values = substituted(tuple(kwargs.values()), self._replaced)
            kwargs = dict(zip(kwargs, values, strict=True))
        name = bare_name(func)
        if name == "addmm" and len(args) == 3 and not kwargs and is_plain(args[2]):
            # x W + b, as GPT-2 writes its linear maps.
            name, func, args = "linear", F.linear, (args[1], args[2].t(), args[0])
        kind = KINDS.get(name)
        # Names of operands become places, so that handlers find them.
        args += tuple(kwargs.pop(k) for k in OPERANDS if kind and k in kwargs and len(args) < 2)
        pure = out_of_place(func)
        if pure is not None and self._alters:
            # Rules and sites need the operands as they were.
            output = self._run(name, kind, pure, args, kwargs)
            self._replaced[id(args[0])] = (args[0], output)
        else:
            if writes(func) and args and _must_not_change(args[0]):
                copy = args[0].clone()
                hand_over(args[0], copy)
                self._replaced[id(args[0])] = (args[0], copy)
                args = copy, *args[1:]
            output = self._run(name, kind, func, args, kwargs)
        if self.tape is not None:
            self.tape.note(name, pure or func, args, kwargs, output)
        return output

    def _run(self, name: str, kind: str | None, func, args, kwargs):
        device = next((x.device.type for x in args if isinstance(x, Tensor)), "cpu")
        if self._alters and device != "meta" and torch.is_autocast_enabled(device):
            # Rules and fresh roots need one dtype from end to end.
            with torch.autocast(device, enabled=False):
                output = self._handle(name, kind, func, args, kwargs)
        else:
            output = self._handle(name, kind, func, args, kwargs)
        if name == "setitem" and self.chains is not None:
            self.chains.write(args[0], args[-1])
        if isinstance(output, tuple | list) and self.chains is not None and name in ROUTING:
            # Pieces of one tensor (chunk, split, unbind) are of its chain.
            for x in output:
                if isinstance(x, Tensor):
                    self.chains.follow(name, x, args, kwargs)
        if isinstance(output, Tensor):
            output = self._after(name, output, args, kwargs)
        self.guards.spread(name, output, args, kwargs)
        return output

    def _handle(self, name: str, kind: str | None, func, args, kwargs):
        if kind is None:
            return self._plain(name, func, args, kwargs)
        return getattr(self, f"_{kind}")(func, args, kwargs)

    @property
    def _alters(self) -> bool:
        """Whether this pass changes the graph or its tensors, or only looks on."""
        exchanges = self.embeddings is not None and self.embeddings.exchanges
        return self.rules is not None or self.graph != "as_is" or exchanges

    # -- bookkeeping around every operation ------------------------------------------------------

    def _plain(self, name: str, func, args, kwargs):
        output = func(*args, **kwargs)
        found = output if isinstance(output, tuple | list) else (output,)
        carries = any(isinstance(x, Tensor) and x.requires_grad for x in found)
        if self.rules is not None and carries and name not in ROUTING:
            raise UnsupportedModelError(
                f"The model uses {name!r} between its input and its logits, for which no relevance "
                "rule is defined."
            )
        if name == "multinomial" and args and isinstance(output, Tensor):
            # ViLT draws all patches in an order of chance; any order gives its logits, and in their
            # own every pass has the same tokens, at the places that the image has them.
            return output.sort(-1).values if output.shape[-1] == args[0].shape[-1] else output
        if name == "getitem" and carries and isinstance(output, Tensor):
            return self.rules.select(args[0], output) if self.rules is not None else output
        return output

    def _after(self, name: str, output: Tensor, args, kwargs) -> Tensor:
        if self.chains is not None:
            self.chains.follow(name, output, args, kwargs)
        if self.embeddings is not None and self.embeddings.exchanges:
            begun = bool(self._count) or not self._in_focus(output)
            made = self.embeddings.after(name, output, args, begun=begun)
            output = self._standing_for(output, made)
        follow(name, output, args, kwargs)
        note_folding(name, output, args)
        if self.rules is not None:
            note_source(name, output, args)
        if not self._count:
            self.guards.follow_patches(name, output, args, kwargs)
        elif name not in ROUTING:
            leave(output, AFTER, self._count)
        if self.graph == "readout" and output.requires_grad:
            # What masks the tokens does not read them: behind it, padding would seem to be read.
            rows = (self.shapes[-1][0], self._queries) if self.shapes else ()
            tokens = output.dim() == 3 and tuple(output.shape[:2]) == rows
            if name not in MASKS and tokens and not self._turned(output):
                output = self.readout = self._root(output)
                self._readouts.append(output)
        elif self.graph == "last" and output.requires_grad:
            self._live.append(weakref.ref(output))
        return output

    def _turned(self, x: Tensor) -> bool:
        """Whether x, of as many tokens as samples, has its samples in the second dimension."""
        square, last = 1 < x.shape[0] == x.shape[1], self.readout
        if not square or last is None or not last.requires_grad:
            return False
        return not reaches_own_rows(x.transpose(0, 1), last, 0)

    def _root(self, x: Tensor) -> Tensor:
        """Start the graph afresh at x."""
        root = x.detach().requires_grad_()
        if hasattr(x, STAGE):
            leave(root, STAGE, mark_of(x))
        return self._standing_for(x, root)

    def _standing_for(self, x: Tensor, other: Tensor) -> Tensor:
        """Return `other`, which takes the place of x in the pass, as part of the chain of x."""
        if self.chains is not None and other is not x:
            carry(other, x)
        return other

    def _in_focus(self, x: Tensor, key: Tensor | None = None) -> bool:
        """Whether x belongs to the one chain that is looked at, or to whatever chain there is.

        key: what x attends to, where it does.
        """
        return self.chains is None or self.chains.focus is None or self.chains.sees(x, key)

    def _release(self) -> None:
        """Let go of the graph so far, also in the tensors that the model still holds."""
        for reference in self._live:
            x = reference()
            if x is not None and x.requires_grad and not x._is_view():
                x.detach_()
        self._live.clear()

    # -- attention -------------------------------------------------------------------------------

    def _meet(self, probs: Tensor, value: Tensor) -> Tensor:
        """Record the site at which `probs` multiplies `value`, and return their product."""
        given = probs
        if self.mask is not None:
            probs = self._standing_for(probs, self.mask.apply(self._calls, probs))
        self._calls += 1
        if not self._in_focus(probs, value):
            self._recent = probs
            output = self._product(probs, value)
            stop_following(output)
            if self.chains is not None:
                self.chains.pass_by(probs, output)
            return output
        index = self._count
        self._count += 1
        if self.tape is not None:
            self.tape.restart()
        self.guards.irregular |= probs.dim() not in (3, 4)
        self.guards.meet(probs, value)
        started = index > (max(self.first_site, 0) if self.graph == "sites" else 0)
        if self.chains is None or self.chains.focus is not None:
            self.guards.unconnected |= self.graph != "as_is" and started and not probs.requires_grad
        if self.graph == "last" and (probs.size(-2) == probs.size(-1) or not index):
            self._release()
            self.sites.clear()
            probs, value = self._root(probs), value.detach()
        elif self._starts_at(self._ordinal(index, probs)) and not probs.requires_grad:
            probs = self._root(probs)
        if self.tokens is None:
            self.tokens = next((x for x in self._embeddings if x.size(1) == probs.size(-1)), None)
            self._embeddings.clear()
        self.shapes.append((probs.shape[0], probs.shape[-2], probs.shape[-1]))
        self._queries, self._recent = probs.size(-2), probs
        self._earlier_readout = self.readout
        weights = probs if probs.dtype == value.dtype else probs.to(value.dtype)
        rules = self._rules_of(weights, value)
        # Two activations, even if one of them lies before the start of the graph.
        output = weights @ value if rules is None else rules.matmul(weights, value)
        site = Site(index, caller_name(self._names), probs, value, output, call=self._calls - 1)
        site.mixes_heads = mark_of(given)[0] == "talked"
        site.guessed = self._guessed
        self.mixes_heads |= site.mixes_heads
        mark_site_output(output, site)
        if self.chains is not None:
            self.chains.meet(site, output)
        if self.graph == "readout":
            output = self.readout = site.output = self._root(output)
            self._readouts = [output]
        if self.embeddings is not None:
            self.embeddings.meet(site)
        self._visit_pending()
        self._pending = site if self.on_site is not None else None
        if self.keep:
            self.sites.append(site)
        return output

    def _pass_by(self, func, args, kwargs) -> Tensor:
        """Count an attention call that nobody looks into, and run it as it is."""
        output = func(*args, **kwargs)
        query, key = (*args, *(kwargs[k] for k in ("query", "key") if k in kwargs))[:2]
        self._calls += 1
        if self._in_focus(query, key):
            self._count += 1
            rows = query.shape[0]
            if query.dim() == 3:
                rows //= folded_heads(query, self.samples)
            self.shapes.append((rows, query.shape[-2], key.shape[-2]))
        elif isinstance(output, Tensor) and self.chains is not None:
            self.chains.pass_by(query, output)
        return output

    def _ordinal(self, index: int, probs: Tensor) -> int:
        """Return the number of a site within its chain, where chains are followed."""
        state = state_of(probs) if self.chains is not None else None
        return len(state[0].sites) if state is not None else index

    def _meet_folded(self, probs: Tensor, value: Tensor) -> Tensor:
        """Meet a site of one head, or whose samples and heads share the first dimension."""
        known = heads_within(probs)
        heads = known or folded_heads(value, self.samples)
        turned = heads > 1 and heads_first(value, self.samples)

        def apart(x: Tensor) -> Tensor:
            x = x.unflatten(0, (heads, -1) if turned else (-1, heads))
            return x.transpose(0, 1) if turned else x

        split, own = apart(probs), apart(value)
        hand_over(probs, split)
        hand_over(value, own)
        self._guessed = heads > 1 and not known
        output = self._meet(split, own)
        self._guessed = False
        together = (output.transpose(0, 1) if turned else output).flatten(0, 1)
        hand_over(output, together)
        return together

    def _starts_at(self, index: int) -> bool:
        return self.graph == "last" or (self.graph == "sites" and index >= self.first_site)

    def _visit_pending(self) -> None:
        if self._pending is not None and self.on_site is not None:
            self.guards.irregular |= self._pending.is_window
            self.on_site(self._pending)
            self._pending = None

    def current(self, x: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """Return what stands for x at the end of the pass, if the model has written into it."""
        found = current(x, self._replaced)
        assert isinstance(found, Tensor), "what stands for a tensor is one"
        return found

    def settle(self, logits: Float[Tensor, "batch classes"]) -> None:
        """Finish the bookkeeping once the logits are known.

        Some models run a pooling probe whose result the logits do not use (HF SigLIP): such a last
        site is dropped, since nothing could be read from it.
        """
        if self._count > 1 and self._queries != self.shapes[-1][2] and self.graph != "as_is":
            end = self.readout if self.graph == "readout" else self.sites[-1].output
            if not feeds(end, logits):
                self.shapes.pop()
                self._pending = None
                self.readout = self._earlier_readout
                del self.sites[-1:]
        if self.graph == "readout" and not feeds(self.readout, logits):
            # What was made last may lead nowhere.
            read = (x for x in reversed(self._readouts) if feeds(x, logits))
            self.readout = next(read, self.readout)
        self._readouts.clear()
        if self.embeddings is not None:
            self.embeddings.settle()
        self.guards.settle(logits)
        self.guards.irregular |= any(site.is_window for site in self.sites)
        self._visit_pending()
        # What it refers to may refer to this trace, and nothing may wait for a garbage collector.
        self.on_site = None

    def is_shared(self, batch: int) -> bool:
        """Return whether every attention map lies between the same tokens of one sample.

        Class tokens may join in front (keys = rows + queries) and a probe may pool the tokens;
        windows and merged patches may not.
        """
        rows = {self.shapes[0][2]}
        for first, queries, keys in self.shapes:
            joined = keys - queries in rows and queries < keys
            if first != batch or queries > keys or not (keys in rows or joined):
                return False
            rows = {keys} if joined or queries == keys else {keys, queries}
        return True


def _must_not_change(x: object) -> bool:
    """Whether autograd allows no writing into x, or a rule keeps it: then a copy is written to.

    That is where a graph starts, and what an `autograd.Function` such as ours gives.
    """
    if not isinstance(x, Tensor) or not x.requires_grad:
        return False
    return x.is_leaf or isinstance(x.grad_fn, BackwardCFunction)
