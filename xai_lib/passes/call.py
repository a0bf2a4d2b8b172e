"""What an explainer is given: a borrowed model, its inputs and targets, and forward passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from xai_lib.errors import InputError, XAIError, unknown_name
from xai_lib.options import check_range
from xai_lib.passes import pruned
from xai_lib.passes.examination import Examination
from xai_lib.passes.loan import HALF, in_float32
from xai_lib.passes.probes import SAMPLES
from xai_lib.passes.refusals import (
    is_about_writing,
    no_attention,
    no_embeddings,
    no_gradient,
    no_shared_tokens,
    not_distributions,
    not_intercepted,
    object_to,
    sequence_first,
    writes_in_place,
)
from xai_lib.passes.run import Run
from xai_lib.passes.stem import look
from xai_lib.streams.layouts import Layout, StreamsLayout
from xai_lib.streams.patches import TokenLayout
from xai_lib.streams.prepare import Inputs
from xai_lib.streams.stream import Stream
from xai_lib.tracing import Chains, Embeddings, Site, Tape, Trace

# Whose exceptions say that inputs do not fit; what a model defines itself is its own affair.
COMPLAINING = ("builtins", "torch", "einops")

# What a backward pass starts from at the target's logit.
SEEDS: dict[str, Callable[[Tensor], Tensor]] = {
    "one": torch.ones_like,
    "logit": lambda logits: logits,
    "prob": lambda logits: logits.softmax(-1),
}


@dataclass(frozen=True)
class _Located:
    """Embeddings, and the number that they have among the tensors of a pass (`Embeddings`)."""

    place: int
    values: Float[Tensor, "batch tokens dim"]


@dataclass
class Call:
    """What an explainer is given: the borrowed model, its inputs and the targets to explain.

    Explainers run forward passes through it; `each_target` shares one of them among all targets.
    """

    model: nn.Module
    inputs: Inputs
    choose_targets: Callable[[Tensor], Tensor]
    reference: bool = False
    examination: Examination | None = field(default=None, repr=False)
    # What a method measures of its own answer, such as how far a sum is from what it should be.
    checks: dict[str, float] = field(default_factory=dict, repr=False)
    # Of the first run.
    targets: Int[Tensor, "targets batch 2"] = field(init=False, repr=False)
    run: Run = field(init=False, repr=False)
    started: bool = field(default=False, init=False)
    # Where the tokens of a run lie, and the run.
    _laid: tuple[Run, Layout | StreamsLayout] | None = field(default=None, init=False)

    @property
    def coupled(self) -> bool:
        """Whether several sequences of tokens attend to each other and are looked at together."""
        return self.inputs.several and self.inputs.focus is None

    def resolved(self, options: dict) -> dict:
        """Return the options, a negative start_layer counted from the end: -1 is the last layer.

        So it means the same for streams of different depths.
        """
        start = options.get("start_layer")
        if not isinstance(start, int) or start >= 0:
            return options
        trace = self.forward(graph="as_is", keep=False).trace
        followed = trace.chains.found if trace.chains is not None and self.coupled else []
        chains = [len(chain.sites) for chain in followed]
        depth = max(chains, default=len(trace.shapes))
        if not depth:
            raise no_attention(self.model)
        check_range("start_layer", start, -depth, depth - 1, "the first layer that counts.")
        return options | {"start_layer": depth + start}

    def forward(
        self,
        features: Float[Tensor, "..."] | None = None,
        *,
        at_input: bool = False,
        on_site: Callable[[Site], None] | None = None,
        taped: bool = False,
        **options: Any,
    ) -> Run:
        """Run the model once under a trace (options: `Trace`). The first run sets the targets.

        at_input: let the graph start at the input, so that gradients and relevance reach
        `run.features`. features: run on these instead, (k·batch, ...), the batch k times over.
        taped: keep what the model does after its last attention, for `run.head`.
        """
        inputs, model, focus = self.inputs, self.model, self.inputs.focus
        rules = options.get("rules")
        wide = inputs.dtype in HALF and getattr(rules, "needs_float32", False)
        if wide:
            model = in_float32(model)
        embeddings, on_path = None, features is not None
        if focus is not None and focus.embeds:
            embeddings = self._embeddings(focus, features, at_input)
        elif focus is not None:
            features = self._given(focus, features, at_input, wide)
        copies = 1 if features is None else len(features) // inputs.batch

        def visit(site: Site) -> None:
            # Refused here already: what a visitor does with a window's map would fail obscurely.
            if site.probs.shape[0] != copies * inputs.batch:
                raise no_shared_tokens()
            if guards.objection:
                object_to(guards)
            if on_site is not None:
                on_site(site)

        plan, mask = pruned.PLANS.get(self.model), None
        if plan is not None:
            confined = inputs.only.name if inputs.fixed else None
            mask = plan.for_pass(copies, inputs.rows, confined)
        trace = Trace(
            self.model,
            mask=mask,
            on_site=visit if on_site else None,
            embeddings=embeddings,
            chains=Chains(focus=inputs.chain) if inputs.several else None,
            tape=Tape() if taped else None,
            samples=None if inputs.several else copies * inputs.batch,
            **options,
        )
        guards = trace.guards
        try:
            with nullcontext() if plan is None else pruned.traced(self.model), trace:
                logits = trace.current(inputs.scores(model, features))
            trace.settle(logits)
            if mask is not None:
                mask.check()
        except Exception as error:
            if isinstance(error, XAIError | torch.cuda.OutOfMemoryError):
                raise
            plain = self._refusal(model, features)
            if plain is not None:
                raise plain from error
            if is_about_writing(error):
                raise writes_in_place() from error
            raise not_intercepted(self.model, error) from error
        if not trace.shapes and (trace.graph != "as_is" or rules is not None):
            raise no_attention(self.model)
        if getattr(rules, "per_sample", False) and any(s.sequence_first for s in trace.sites):
            raise sequence_first()
        if embeddings is not None:
            features = self._found(embeddings, features, logits)
        run = Run(trace, logits, features, self.examination, on_path)
        starts = features is not None and features.requires_grad
        if trace.graph == "as_is" and starts and not logits.requires_grad:
            raise no_gradient()
        if not self.started:
            self.run, self.started = run, True
            if not torch.isfinite(logits).all():
                raise InputError(
                    "The model's logits hold NaN or Inf: check its weights and inputs."
                )
            if self.examination is not None and not inputs.several:
                few = inputs.first(SAMPLES)
                self.examination.compare_scores(logits, lambda: few.scores(self.model))
            self.targets = self.choose_targets(logits.detach())
        return run

    def _refusal(self, model: Callable, features: Tensor | None) -> XAIError | None:
        """Return the error for inputs with which the model's plain pass fails as well, or None.

        An exception of the model's own kind goes on up as it is.
        """
        stream = self.inputs.focus or self.inputs.streams[0]
        try:
            with torch.no_grad():
                self.inputs.scores(model, features)
        except XAIError as error:
            return error
        except torch.cuda.OutOfMemoryError:
            return None
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in COMPLAINING:
                raise
            given = stream.data if features is None else features
            return InputError(
                f"The model refused inputs of shape {tuple(given.shape)}: {error} "
                f"{stream.advise(self.model)}"
            )
        return None

    def _given(self, focus: Stream, features: Tensor | None, at_input: bool, wide: bool) -> Tensor:
        given = focus.data if features is None else features
        given = given.float() if wide else given
        return given.detach().requires_grad_() if at_input and features is None else given

    def _embeddings(self, focus: Stream, features: Tensor | None, at_input: bool) -> Embeddings:
        if features is None:
            return Embeddings(focus.data, focus.length, root=at_input)
        located = self._located
        written = getattr(focus, "written", None)
        if written is not None:
            # What another stream put there is no part of this one, and stays as it is.
            copies = len(features) // len(written)
            own = located.values.repeat(copies, 1, 1)
            features = torch.where(written.repeat(copies, 1).unsqueeze(-1), own, features)
        return Embeddings(focus.data, focus.length, supply=features, place=located.place)

    def _found(self, embeddings: Embeddings, given: Tensor | None, logits: Tensor) -> Tensor | None:
        """Return the embeddings that a run used, None where none was asked for."""
        if given is not None:
            if not embeddings.supplied:
                raise no_embeddings()
            return given
        if not embeddings.root:
            return None
        embeddings.choose(logits)
        if embeddings.found is None or not embeddings.found.requires_grad:
            raise no_embeddings()
        return embeddings.found

    @property
    def features(self) -> Float[Tensor, "batch ..."]:
        """The pixels, or the embeddings of the first run, outside any graph."""
        focus = self.inputs.only
        return self._located.values if focus.embeds else focus.data

    @cached_property
    def _located(self) -> _Located:
        """The embeddings of a text and which of the tensors of a pass they are, by a pass that
        shows it: a graph from the words to the scores."""
        with torch.enable_grad():
            run = self.forward(at_input=True, graph="as_is", keep=False)
        embeddings = run.trace.embeddings
        assert embeddings is not None, "a stream that embeds"
        return _Located(embeddings.place, run.taken.detach())

    @property
    def at_pixels(self) -> bool:
        """Whether the features are an image's pixels, so that a patch has many of them."""
        return self.inputs.focus is not None and self.inputs.focus.kind == "patches"

    @property
    def embedded(self) -> bool:
        """Whether the features are embeddings that the model makes, of a text's words."""
        return self.inputs.focus is not None and self.inputs.focus.embeds

    @property
    def channel(self) -> int:
        """The dimension of the features to sum over for one number a pixel or token."""
        return self.inputs.only.channel

    @property
    def present(self) -> Bool[Tensor, "batch tokens"] | None:
        """Bool (batch, tokens), False for padding; None where there is none."""
        return None if self.inputs.focus is None else self.inputs.focus.present

    def samples(self) -> list[Shaped[Tensor, "..."]]:
        """Return the input of each sample alone, without padding."""
        return (self.inputs.focus or self.inputs.streams[0]).samples()

    def seed(
        self,
        target: Int[Tensor, "batch *sides"],
        logits: Float[Tensor, "rows classes"],
        kind: str = "one",
    ) -> Float[Tensor, "rows classes"]:
        """Return rows that are 0 but at `target`, shaped as `logits` (k·batch, classes).

        target: (batch, 2) as `targets.resolve_pair` gives it, or (batch,) against nothing.
        kind: "one" puts 1 there, "logit" the logit and "prob" its softmax probability; the same
        with a minus sign at the class that the target is explained against.
        """
        if kind not in SEEDS:
            raise unknown_name("seed", kind, SEEDS)
        values = SEEDS[kind](logits.detach())
        seed = torch.zeros_like(logits)
        sides = target.unbind(1) if target.dim() == 2 else (target,)
        for classes, sign in zip(sides, (1, -1), strict=False):
            columns = classes.repeat(logits.shape[0] // target.shape[0]).unsqueeze(1)
            # A target against nothing has NONE there.
            there = (columns >= 0).to(values.dtype) * sign
            columns = columns.clamp(min=0)
            seed.scatter_add_(1, columns, values.gather(1, columns) * there)
        return seed

    def first_seed(self, run: Run) -> Float[Tensor, "rows classes"]:
        """Return the seed of the first target, for methods that explain all alike."""
        return self.seed(self.targets[0], run.logits)

    def each_target(
        self, run: Run, explain: Callable[[Tensor], Tensor], seed: str = "one"
    ) -> Float[Tensor, "targets ..."]:
        """Stack explain(seed) over the targets: (targets, batch, ...)."""
        return torch.stack([explain(self.seed(t, run.logits, seed)) for t in self.targets])

    def chunks(self, count: int, samples: int) -> Iterator[slice]:
        """Cut `count` copies of the batch into passes of about `samples` samples each."""
        size = max(1, samples // self.inputs.batch)
        return (slice(i, i + size) for i in range(0, count, size))

    def layout(self, run: Run) -> Layout | StreamsLayout:
        """Return where the tokens of this call lie."""
        if self.inputs.known is not None:
            return self.inputs.known
        if self._laid is None or self._laid[0] is not run:
            focus = self.inputs.focus
            assert focus is not None, "a view of all streams together says where they lie"
            look(self.model, self.inputs)
            self._laid = run, focus.layout(run.trace)
        return self._laid[1]

    def patch_sums(
        self, pixels: Float[Tensor, "targets batch height width"]
    ) -> Float[Tensor, "targets batch tokens"]:
        """Sum what a method found at the pixels over each patch.

        Where no token's pixels are known, the pixels are laid out one by one instead.
        """
        layout = self.layout(self.run)
        assert isinstance(layout, TokenLayout), "a view of another stream"
        if layout.grid is None:
            layout = TokenLayout.of_pixels((pixels.shape[-2], pixels.shape[-1]))
            self.inputs = replace(self.inputs, known=layout)
        return layout.patch_sums(pixels)

    def patches(self, run: Run) -> slice:
        """Return where the patches are among the tokens of an image."""
        layout = self.layout(run)
        assert isinstance(layout, TokenLayout), "a view of another stream"
        return layout.patches

    def side_by_side(self, run: Run) -> StreamsLayout:
        """Return where the tokens of several streams lie."""
        layout = self.layout(run)
        assert isinstance(layout, StreamsLayout), "a view of one stream"
        return layout

    def content(self, run: Run) -> Bool[Tensor, "*targets batch tokens"]:
        """Return bool (batch, tokens): which tokens hold content (patches, words)."""
        return self.layout(run).content_of(self.inputs.batch, run.logits.device)

    def require_token_sites(self, run: Run) -> None:
        """Refuse models whose sites do not see all tokens of a sample at once."""
        if self.coupled:
            if any(rows != self.inputs.batch for rows, *_ in run.trace.shapes):
                raise no_shared_tokens()
        elif not run.trace.is_shared(self.inputs.batch):
            raise no_shared_tokens()
        if run.trace.guards.objection:
            object_to(run.trace.guards)
        if self.examination is not None:
            self.examination.require_tokens(self.layout(run))

    def require_distributions(self, run: Run) -> None:
        """Refuse models whose attention maps are no distributions over tokens."""
        if run.trace.mixes_heads:
            raise not_distributions()
