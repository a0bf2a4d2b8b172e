"""How the streams of a model meet, as one pass of it shows, and the views that it is explained by.

A first pass without a graph shows which sequences attend to which (`tracing.chains`):
  single: one stream, or one alone that is attended to;
  towers: they never attend to each other, and meet in a score (CLIP): each is explained alone;
  joint: one sequence holds all streams (VisualBERT, ViLT): explained as one text would be;
  mingled: one is written into the other or added to it (LLaVA), so that no map tells whose a
    token is, and only methods that reach the input apply;
  coupled: they look at each other (LXMERT, BLIP, DETR, BART): maps between tokens are followed
    through self- and cross-attention together (Chefer et al., ICCV 2021), and methods that reach
    the input take one stream at a time, the others being constant.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from xai_lib.errors import InputError, MethodNotApplicableError, XAIError
from xai_lib.passes import pruned
from xai_lib.passes.stem import look
from xai_lib.passes.written import without_written
from xai_lib.streams.joint import joined
from xai_lib.streams.layouts import Layout, PlainLayout, StreamsLayout
from xai_lib.streams.prepare import COMPANIONS, Inputs
from xai_lib.tracing import Chain, Chains, Site, Trace


@dataclass(frozen=True)
class Meeting:
    """How the streams of `inputs` meet.

    kind: see above. chains: the sequences that attend. logits: (batch, classes). pairwise: classes
    are the other stream. grid, patch: of the image, where there is one. model: the borrowed one.
    """

    inputs: Inputs
    kind: str
    chains: tuple[Chain, ...]
    logits: Float[Tensor, "batch classes"]
    pairwise: bool
    grid: tuple[int, int] | None
    patch: tuple[int, int] | None
    model: nn.Module

    @classmethod
    def of(cls, model: nn.Module, inputs: Inputs) -> Meeting:
        """Run the model once and look."""
        look(model, inputs)
        crossed: list[bool] = []
        probes: dict[Chain, set[Chain]] = {}

        def meet(site: Site) -> None:
            probe = _is_probe(site)
            crossed.append(site.kind == "cross" and not probe)
            if probe:
                probes.setdefault(site.looking, set()).add(site.seen)

        followed = Chains()
        trace = Trace(model, chains=followed, keep=False, on_site=meet)
        try:
            with torch.no_grad(), trace:
                logits = inputs.scores(model)
            trace.settle(logits.detach())
        except (RuntimeError, ValueError, AssertionError, IndexError) as error:
            if isinstance(error, XAIError):
                raise
            raise InputError(
                f"The model refused inputs with {inputs.counted()}: {error} "
                f"{(inputs.stream('image') or inputs.streams[0]).advise(model)}"
            ) from error
        # One learned query that looks at two streams is no probe of either.
        crossed.append(any(len(keys) > 1 for keys in probes.values()))
        chains = tuple(chain for chain in followed.found if chain.sites)
        kind = "mingled" if followed.mingled else _kind(chains, crossed)
        pairwise = not any(crossed) and inputs.in_pairs
        if not pairwise and kind == "towers":
            pairwise = scores_pairs(model, inputs, logits)
        if not pairwise and len(set(inputs.sizes.values())) > 1:
            raise inputs.unpaired()
        return cls(inputs, kind, chains, logits, pairwise, trace.grid, trace.patch, model)

    def chain(self, name: str) -> Chain | None:
        """Return the chain of a stream, its own or the part of a joint one, or None."""
        every = [*self.chains, *(p[0] for c in self.chains for p in c.parts if p[0] is not None)]
        return next((c for c in every if c.name == name), None)

    def together(self) -> Inputs:
        """Return the view of all streams together, or of the one sequence that holds them."""
        if self.kind == "joint":
            return joined(self.inputs, self._joint_layout())
        return replace(self.inputs, known=self._side_by_side())

    def apart(self) -> list[Inputs]:
        """Return a view of each stream that is attended to; texts of pairs have views of their own.

        Raises MethodNotApplicableError where there is none.
        """
        found = []
        for stream in self.inputs.streams:
            name, chain = stream.name, self.chain(stream.name)
            # Where no attention was seen at all, every stream can still be explained at its input.
            if name == "decoder" or (chain is None and self.chains):
                continue
            view = self.inputs.focused(name, pairwise=self.pairwise)
            if self.kind == "coupled" and chain is not None:
                # Other streams' sites may look at this one, so its tokens are not to be had there.
                view = replace(view, known=self.layout(name, chain.tokens))
            if self.kind == "mingled":
                view = without_written(self.model, view)
            found.append(view)
        if not found:
            raise MethodNotApplicableError("No input stream of this model is attended to.")
        return found

    def layout(self, name: str, tokens: int) -> Layout:
        """Return where the tokens of a stream lie, of which the pass had so many."""
        stream, text = self.inputs.stream(name), self.inputs.stream("text")
        if stream is not None:
            return stream.layout_among(tokens, self._grid, self.patch)
        # A decoder that is given no words reads the text again, moved by a place.
        if name == "decoder" and text is not None and tokens == text.length:
            return PlainLayout(tokens, text.present)
        return PlainLayout(tokens)

    @property
    def _grid(self) -> tuple[int, int] | None:
        """The patch grid, None where the patches of padded images are in none that all share.

        In one sequence with a text they are moved up (ViLT).
        """
        mask = self.inputs.extra.get("pixel_mask")
        shrunk = isinstance(mask, Tensor) and not bool(mask.bool().all())
        return None if self.kind == "joint" and shrunk else self.grid

    def _joint_layout(self) -> StreamsLayout:
        (chain,) = self.chains
        parts, start = [], 0
        for part, _, tokens in chain.parts:
            if part is not None:
                where = slice(start, start + tokens)
                parts.append((part.name, where, self.layout(part.name, tokens)))
            start += tokens
        return StreamsLayout(start, tuple(parts), joint=True)

    def _side_by_side(self) -> StreamsLayout:
        """Return the streams of a coupled model, the inputs' first."""
        given = [stream.name for stream in self.inputs.streams]
        found = {}
        for name in [*given, *(c.name for c in self.chains if c.name not in given)]:
            chain = self.chain(name)
            if chain is not None and not chain.parts:
                found[name] = self.layout(name, chain.tokens)
        return StreamsLayout.side_by_side(found)


def scores_pairs(
    model: nn.Module, inputs: Inputs, logits: Float[Tensor, "samples classes"]
) -> bool:
    """Whether the scores of two towers are those of every image with every text, by whatever name.

    As many rows as columns could also be classes; then another order of the texts tells.
    """
    sizes = inputs.sizes
    if not inputs.pairs_fit(logits):
        return False
    if sizes["image"] != sizes["text"]:
        return True
    if len(logits) == 1:
        return False

    def rolled(name: str | None, x):
        rows = isinstance(x, Tensor) and len(x) == len(logits)
        return x.roll(1, 0) if rows and name in COMPANIONS["text"] else x

    turned = replace(
        inputs,
        streams=tuple(replace(s, data=rolled(s.keyword, s.data)) for s in inputs.streams),
        extra={name: rolled(name, x) for name, x in inputs.extra.items()},
    )
    # A mask of each text its own would not move with it.
    with torch.no_grad(), pruned.traced(model):
        before, after = (view.scores(model) for view in (inputs, turned))
    return torch.allclose(after, before.roll(1, 1), 1e-3, 1e-4 * float(before.abs().max()))


def _is_probe(site: Site) -> bool:
    """Whether a site pools a stream by one learned query, as SigLIP does."""
    return site.queries == 1 and site.looking.name == "queries"


def _kind(chains: tuple[Chain, ...], crossed: list[bool]) -> str:
    if any(crossed) or any(part and part.sites for c in chains for part, *_ in c.parts):
        return "coupled"
    if len(chains) == 1:
        return "joint" if chains[0].parts else "single"
    return "towers"
