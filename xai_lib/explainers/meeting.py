"""Explanations of models of several streams: how a model's streams meet decides how each is read.

A first pass without a graph shows which sequences attend to which (`tracing.chains`):
  towers: they never do, and meet in a score (CLIP): each stream is explained on its own;
  joint: one sequence holds all streams (VisualBERT, ViLT): explained as one text would be;
  mingled: one is written into the other or added to it (LLaVA), so that no map tells whose a
    token is, and only methods that reach the input apply;
  coupled: they look at each other (LXMERT, BLIP, DETR, BART): maps between tokens are followed
    through self- and cross-attention together (Chefer et al., ICCV 2021), and methods that reach
    the input take one stream at a time, the others being constant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from xai_lib.errors import InputError, MethodNotApplicableError, XAIError
from xai_lib.explainers.output import Output
from xai_lib.explainers.reading import read_tokens
from xai_lib.explainers.registry import Method
from xai_lib.passes import pruned
from xai_lib.passes.call import Call
from xai_lib.passes.loan import borrowed
from xai_lib.passes.refusals import coupled_streams, mingled_streams
from xai_lib.streams.layouts import PlainLayout, RegionLayout, StreamsLayout, image_layout
from xai_lib.streams.patches import Layout
from xai_lib.streams.prepare import COMPANIONS, REGIONS, StreamInputs
from xai_lib.streams.targets import NONE
from xai_lib.streams.views import Prepared
from xai_lib.streams.words import TextLayout
from xai_lib.tracing import Chain, Chains, Site, Trace

AGAINST = "against"


@dataclass(frozen=True)
class Structure:
    """How the streams of a model meet, as one pass of it showed.

    kind: "towers", "joint", "coupled", "mingled", or "single" where one stream alone is attended
    to. chains: the sequences that attend. logits: (batch, classes). pairwise: classes are the other
    stream.
    """

    kind: str
    chains: tuple[Chain, ...]
    logits: Tensor
    pairwise: bool
    grid: tuple[int, int] | None
    patch: tuple[int, int] | None

    @classmethod
    def of(cls, model: nn.Module, inputs: StreamInputs) -> Structure:
        """Run the model once and look."""
        crossed: list[bool] = []
        probes: dict[Chain, set[Chain]] = {}

        def meet(site: Site) -> None:
            probe = _is_probe(site)
            crossed.append(site.kind == "cross" and not probe)
            if probe:
                probes.setdefault(site.query[0], set()).add(site.key[0])

        view = inputs.whole(StreamsLayout(0, ()))
        trace = Trace(
            model,
            chains=Chains(),
            keep=False,
            on_site=meet,
        )
        sizes = inputs.sizes()
        try:
            with torch.no_grad(), trace:
                output = view.call(model)
            trace.settle(view.logits(output).detach())
        except (RuntimeError, ValueError, AssertionError, IndexError) as error:
            if isinstance(error, XAIError):
                raise
            raise InputError(
                f"The model refused inputs with {_counted(sizes)}: {error} {view.advice}"
            ) from error
        logits = view.logits(output)
        # One learned query that looks at two streams is no probe of either.
        crossed.append(any(len(keys) > 1 for keys in probes.values()))
        chains = tuple(chain for chain in trace.chains.found if chain.sites)
        kind = "mingled" if trace.chains.mingled else _kind(chains, crossed)
        pairwise = not any(crossed) and is_pairwise(output, logits, sizes)
        if not pairwise and kind == "towers":
            pairwise = scores_pairs(model, view, logits, sizes)
        if not pairwise and len(set(sizes.values())) > 1:
            raise InputError(
                f"inputs has {_counted(sizes)}, which do not pair; this model reads them together: "
                "expected one of each for every sample."
            )
        return cls(kind, chains, logits, pairwise, trace.grid, trace.patch)

    def chain(self, name: str) -> Chain | None:
        """Return the chain of a stream, its own or the part of a joint one, or None."""
        every = [*self.chains, *(p[0] for c in self.chains for p in c.parts if p[0] is not None)]
        return next((c for c in every if c.name == name), None)


def explain_streams(
    model: nn.Module,
    inputs: StreamInputs,
    method: Method,
    options: dict,
    choose: Callable[[Tensor, bool], Tensor],
    *,
    reference: bool,
    read: bool,
) -> tuple[Output, StreamsLayout, Tensor, Tensor]:
    """Return what the method finds, where its tokens lie, the targets and the logits.

    choose: logits, and whether classes are texts -> targets (targets, batch, 2). read: whether to
    find out which token of a joint sequence is read, for `finishing`.
    """
    with borrowed(model):
        structure = Structure.of(model, inputs)
        targets = choose(structure.logits, structure.pairwise)

        def run(view, wanted: Tensor = targets) -> tuple[Output, Call]:
            call = Call(model, view, lambda logits: wanted, reference=reference)
            return method.function(call, **call.resolved(options)), call

        if structure.kind == "joint":
            layout = _joint_layout(inputs, structure)
            output, call = run(inputs.joint(layout))
            if read:
                layout = replace(layout, read=read_tokens(call))
        elif structure.kind == "mingled" and method.streams != "apart":
            raise mingled_streams(method.name)
        elif structure.kind == "coupled" and method.streams != "apart":
            if method.streams == "one":
                raise coupled_streams(method.name)
            layout = _layouts(inputs, structure, structure.chains)
            output, _ = run(inputs.whole(layout))
        else:
            output, layout = _stream_by_stream(inputs, structure, targets, run)
    return output, layout, targets, structure.logits


def _stream_by_stream(
    inputs: StreamInputs, structure: Structure, targets: Tensor, run: Callable
) -> tuple[Output, StreamsLayout]:
    """Explain each stream on its own and put the results side by side."""
    relevances: dict[str, Tensor] = {}
    layouts: dict[str, Layout] = {}
    pixels = None
    for name in inputs.names:
        if name == "decoder" or structure.chain(name) is None:
            continue
        if name == "text" and structure.pairwise:
            relevances |= _of_texts(inputs, targets, run, layouts)
            continue
        view = inputs.focused(name, pairwise=structure.pairwise)
        if structure.kind == "coupled":
            # Other streams' sites may look at this one, so that its tokens are not to be had there.
            view.known = _layout(inputs, structure, name, structure.chain(name).tokens)
        output, call = run(view)
        layouts[name] = call.layout(call.run)
        pixels = pixels if output.pixels is None else output.pixels
        found = output.relevance
        relevances[name] = layouts[name].patch_sums(output.pixels) if found is None else found
    if not layouts:
        raise MethodNotApplicableError("No input stream of this model is attended to.")
    device = targets.device
    relevance = torch.cat([r.to(device) for r in relevances.values()], -1)
    return Output(relevance, pixels), StreamsLayout.side_by_side(layouts)


def _of_texts(inputs: StreamInputs, targets: Tensor, run: Callable, layouts) -> dict[str, Tensor]:
    """Explain the texts that the targets name, each by the image it is scored against."""
    count, batch, _ = targets.shape
    found = {}
    images = torch.arange(batch, device=targets.device).repeat(count)
    for name, side, sign in (("text", 0, 1), (AGAINST, 1, -1)):
        rows = targets[..., side].flatten()
        there = rows >= 0
        if not there.any():
            continue
        # Samples of a list that are explained against nothing have zeros there.
        rows = rows.clamp(min=0)
        view = inputs.texts_against(rows)
        output, call = run(view, torch.stack([images, torch.full_like(images, NONE)], 1)[None])
        relevance = sign * output.relevance[0] * there[:, None]
        found[name] = relevance.unflatten(0, (count, batch))
        layouts[name] = call.layout(call.run)
    return found


def _joint_layout(inputs: StreamInputs, structure: Structure) -> StreamsLayout:
    (chain,) = structure.chains
    parts, start = [], 0
    for part, _, tokens in chain.parts:
        if part is not None:
            parts.append((part.name, start, _layout(inputs, structure, part.name, tokens)))
        start += tokens
    return StreamsLayout(start, tuple(parts))


def _shrunk(inputs: StreamInputs) -> bool:
    """Whether images of a batch are padded to one size, by a mask of pixels."""
    mask = inputs.everything.get("pixel_mask")
    return isinstance(mask, Tensor) and not bool(mask.bool().all())


def _layouts(inputs: StreamInputs, structure: Structure, chains) -> StreamsLayout:
    """Return the streams of a coupled model side by side, the inputs' first."""
    names = [*inputs.names, *(c.name for c in chains if c.name not in inputs.names)]
    found = {}
    for name in names:
        chain = structure.chain(name)
        if chain is not None and not chain.parts:
            found[name] = _layout(inputs, structure, name, chain.tokens)
    return StreamsLayout.side_by_side(found)


def _layout(inputs: StreamInputs, structure: Structure, name: str, tokens: int) -> Layout:
    keyword = inputs.names.get(name)
    text = inputs.text
    if name == "text" and text is not None and tokens == text.ids.shape[1]:
        return TextLayout.of(text.ids, text.present, text.special, text.encodings, text.texts)
    if keyword in REGIONS:
        boxes, present = inputs.regions()
        return RegionLayout(present, boxes)
    if keyword == "pixel_values":
        pixels = inputs.everything[keyword]
        # In one sequence with a text, the patches of a padded image are moved up (ViLT): they are
        # in no grid that a batch could share.
        grid = None if structure.kind == "joint" and _shrunk(inputs) else structure.grid
        return image_layout(tokens, grid, structure.patch, pixels)
    # A decoder that is given no words reads the text again, moved by a place.
    again = name == "decoder" and keyword is None and text is not None
    echo = again and tokens == text.ids.shape[1]
    return PlainLayout(tokens, text.present if echo else None)


def _is_probe(site: Site) -> bool:
    """Whether a site pools a stream by one learned query, as SigLIP does."""
    return site.queries == 1 and site.query[0].name == "queries"


def _kind(chains: tuple[Chain, ...], crossed: list[bool]) -> str:
    if any(crossed) or any(part and part.sites for c in chains for part, *_ in c.parts):
        return "coupled"
    if len(chains) == 1:
        return "joint" if chains[0].parts else "single"
    return "towers"


def is_pairwise(output, logits: Tensor, sizes: dict[str, int]) -> bool:
    """Whether scores are those of every image with every text."""
    if set(sizes) != {"image", "text"} or tuple(logits.shape) != (sizes["image"], sizes["text"]):
        return False
    # BLIP's itm_score is of this kind without its matching head, which attends to the image.
    return any(getattr(output, n, None) is not None for n in ("logits_per_image", "itm_score"))


def scores_pairs(model: nn.Module, view: Prepared, logits: Tensor, sizes: dict[str, int]) -> bool:
    """Whether the scores of two towers are those of every image with every text, by whatever name.

    As many rows as columns could also be classes; then another order of the texts tells.
    """
    if set(sizes) != {"image", "text"} or tuple(logits.shape) != (sizes["image"], sizes["text"]):
        return False
    if sizes["image"] != sizes["text"]:
        return True
    if len(logits) == 1:
        return False
    texts = {k: view.extra[k] for k in COMPANIONS["text"] if k in view.extra}
    rolled = {
        k: v.roll(1, 0) if isinstance(v, Tensor) and len(v) == len(logits) else v
        for k, v in texts.items()
    }
    # A mask of each text its own would not move with it.
    with torch.no_grad(), pruned.traced(model):
        before, after = (
            view.logits(replace(view, extra=view.extra | part).call(model))
            for part in (texts, rolled)
        )
    return torch.allclose(after, before.roll(1, 1), 1e-3, 1e-4 * float(before.abs().max()))


def _counted(sizes: dict[str, int]) -> str:
    return " and ".join(f"{n} of {stream}" for stream, n in sizes.items())
