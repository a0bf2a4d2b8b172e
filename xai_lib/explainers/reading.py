"""From the maps of a model's sites to the relevance of its tokens, in the rows the head reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from xai_lib.errors import MethodNotApplicableError, OptionError, unknown_name
from xai_lib.explainers.mixing import Mixer
from xai_lib.options import check_range
from xai_lib.passes.call import Call
from xai_lib.passes.run import Run
from xai_lib.rules.rulesets import RuleSet
from xai_lib.tracing import Chain, Site

# The maps C of sites, one by one, and the gradients at the outputs of sites.
Maps = Iterable[Float[Tensor, "batch queries keys"]]
AtOutputs = Sequence[Float[Tensor, "..."]]

ABLATIONS = ("normalize", "self_in_cross", "aggregate", "carry")


class Reader:
    """Which sites of a run count, which rows the head reads there, and what a backward pass needs.

    sites: those from start_layer on, or the one of a `layer` where one sequence has it. tensors:
    where a backward pass must look, the sites' probabilities and the outputs that tell the rows;
    `split` parts what it found there. Of sequences that attend to each other every site's output
    tells rows, of one sequence the last.
    """

    def __init__(
        self,
        call: Call,
        run: Run,
        *,
        start_layer: int = 0,
        layer: int | None = None,
        readout: int | None = None,
        options: dict | None = None,
    ):
        """`options`: of the `Mixer` (`mixer_options`)."""
        call.require_token_sites(run)
        self.call, self.run, self.readout = call, run, readout
        self.coupled, self.options = call.coupled, options or {}
        numbers = [site.ordinal if self.coupled else site.index for site in run.sites]
        if self.coupled:
            _refuse_for_streams(readout=(readout, None), layer=(-1 if layer is None else layer, -1))
        depth = max(numbers) + 1 if numbers else len(run.trace.shapes)
        if not 0 <= start_layer < depth:
            check_start(start_layer, depth)
        pairs = list(zip(run.sites, numbers, strict=True))
        self.sites = [site for site, number in pairs if number >= start_layer]
        self.skipped = [site for site, number in pairs if number < start_layer]
        self.readers = self.sites if self.coupled else run.sites[-1:]
        if layer is not None:
            self.sites = [run.sites[layer]]
        self.tensors = [s.probs for s in self.sites] + [s.output for s in self.readers]

    @classmethod
    def of_layer(
        cls, call: Call, layer: int = -1, readout: int | None = None, rules: RuleSet | None = None
    ) -> Reader:
        """Run a pass for a method that looks at the maps of one layer, the last by default.

        Where streams attend to each other that is the last map to each, and there is no other.
        """
        if call.coupled:
            wanted = None if layer == -1 else layer
            run = call.forward(graph="sites", rules=rules)
            return cls(call, run, layer=wanted, readout=readout)
        if layer == -1:
            run = call.forward(graph="last", rules=rules)
        else:
            run = call.forward(graph="sites", first_site=layer, rules=rules)
            check_range("layer", layer, 0, len(run.sites) - 1, "a layer, or -1 for the last.")
        return cls(call, run, layer=layer, readout=readout)

    @classmethod
    def watching(
        cls,
        call: Call,
        see: Callable[[Site], None],
        *,
        start_layer: int = 0,
        skip: Callable[[Site], None] | None = None,
        layer: int = -1,
        readout: int | None = None,
    ) -> tuple[Reader, AtOutputs]:
        """Show every site to `see`, those before start_layer to `skip`, in a pass that keeps none.

        Return a reader, and the gradients by which it knows the rows that are read.
        """

        coupled = call.coupled

        def visit(site: Site) -> None:
            number = site.ordinal if coupled else site.index
            if number >= start_layer:
                see(site)
            elif skip is not None:
                skip(site)

        if not coupled:
            run = call.forward(graph="readout", keep=False, on_site=visit)
            reader = cls(call, run, start_layer=start_layer, readout=readout)
            return reader, run.gradients([run.readout], call.first_seed(run))
        run = call.forward(graph="sites", first_site=start_layer)
        wanted = None if layer == -1 else layer
        reader = cls(call, run, start_layer=start_layer, readout=readout, layer=wanted)
        _, at_outputs = reader.split(run.gradients(reader.tensors, call.first_seed(run)))
        for site in run.sites:
            visit(site)
        return reader, at_outputs

    def split(
        self, found: Sequence[Float[Tensor, "..."]]
    ) -> tuple[Sequence[Float[Tensor, "..."]], AtOutputs]:
        """Part what was found at `tensors` into that at the probabilities and at the outputs."""
        return found[: len(self.sites)], found[len(self.sites) :]

    def content_of(self, site: Site) -> Bool[Tensor, "batch 1 queries_or_1 keys"]:
        """Return bool (batch, 1, queries or 1, keys): what counts at a site.

        Of one sequence, the keys that hold content; between streams, where no padding attends or is
        attended to.
        """
        if not self.coupled:
            return self.call.content(self.run)[:, None, None, : site.keys]
        queries = self._present(site.looking, site.queries)
        keys = self._present(site.seen, site.keys)
        return queries[:, None, :, None] & keys[:, None, None, :]

    def _present(self, chain: Chain | None, count: int) -> Tensor:
        """Return which of a chain's tokens are no padding, bool (batch, count)."""
        if chain is not None and chain.parts:
            return torch.cat([self._present(part, n) for part, _, n in chain.parts], 1)
        layout = self.call.side_by_side(self.run)
        present = None
        if chain is not None and chain.name in layout.slices():
            present = layout.layout(chain.name).present
        if present is None or present.shape[1] != count:
            like = self.run.logits
            return torch.ones(self.call.inputs.batch, count, dtype=torch.bool, device=like.device)
        return present

    def read(self, maps: Maps, at_outputs: AtOutputs) -> Float[Tensor, "batch tokens"]:
        """Return relevance (batch, tokens) from the maps (batch, queries, keys) of the sites."""
        mixer = Mixer(chains=self.coupled, **self.options)
        for site in self.skipped:
            mixer.skip(site)
        return self.rows(mixer.mix(self.sites, maps), at_outputs)

    def rows(self, mixer: Mixer, at_outputs: AtOutputs) -> Float[Tensor, "batch tokens"]:
        """Return the rows of R that the prediction reads, (batch, tokens of all streams).

        at_outputs: the gradient at the output of each of `readers`. What several chains that the
        head reads count adds up.
        """
        if not self.coupled:
            return mean_of_rows(mixer.sequence, readout_rows(at_outputs[-1], self.readout))
        found: dict[str, Tensor] = {}
        for site, grad in self._heads(at_outputs):
            rows = readout_rows(grad, self.readout)
            for name, R in mixer.relevance(site.looking, grad).items():
                part = mean_of_rows(R, rows)
                found[name] = found[name] + part if name in found else part
        some = next(iter(found.values()))
        layout = self.call.side_by_side(self.run)
        for name, where, _ in layout.parts:
            found.setdefault(name, some.new_zeros(len(some), where.stop - where.start))
        return torch.cat([found[name] for name, *_ in layout.parts], -1)

    def last(
        self, maps: Maps, at_outputs: AtOutputs, layer: int = -1
    ) -> Float[Tensor, "batch tokens"]:
        """Return the last map that leads to each stream, in the rows the head reads.

        The last self-attention of each chain that the head reads gives that stream's own tokens,
        its last cross-attention the other stream's; of one sequence, the map of `layer`.
        Shape (batch, tokens of all streams).
        """
        maps = list(maps)
        if not self.coupled:
            number = check_range("layer", layer, -len(maps), len(maps) - 1, "-1 is the last.")
            return mean_of_rows(maps[number], readout_rows(at_outputs[-1], self.readout))
        layout = self.call.side_by_side(self.run)
        result = maps[0].new_zeros(maps[0].shape[0], layout.tokens)
        for last, grad in self._heads(at_outputs):
            rows, chain = readout_rows(grad, None), last.looking
            for name, where, _ in layout.parts:
                chosen = [
                    C[..., columns]
                    for site, C in zip(self.sites, maps, strict=True)
                    if site.looking is chain
                    and (columns := _columns(site.seen, name, site.keys)) is not None
                ]
                if chosen and chosen[-1].shape[-1] != where.stop - where.start:
                    raise MethodNotApplicableError(
                        f"{chosen[-1].shape[-1]} of the {where.stop - where.start} tokens of "
                        f"stream {name!r} join another stream, so that no map tells which token "
                        "is which."
                    )
                if chosen:
                    result[:, where] += mean_of_rows(chosen[-1], rows)
        return result

    def _heads(self, at_outputs: AtOutputs) -> list[tuple[Site, Tensor]]:
        """Return the sites in whose rows the prediction is read, and the gradients there.

        That is the last site with a gradient of each chain that nothing attends to afterwards.
        """
        last: dict[Chain, tuple[Site, Tensor]] = {}
        asked: dict[Chain, int] = {}
        for site, grad in zip(self.readers, at_outputs, strict=True):
            if not (grad != 0).any():
                continue
            last[site.looking] = site, grad
            if site.kind == "cross":
                # A stream that looks at itself besides others is read all the same.
                others = [c for c in _within(site.seen) if c is not site.looking]
                asked |= dict.fromkeys(others, site.index)
            for part, *_ in site.looking.parts:
                asked |= dict.fromkeys(_within(part), site.index)
        found = [pair for chain, pair in last.items() if asked.get(chain, -1) < pair[0].index]
        if not found:
            raise MethodNotApplicableError(
                "The logits take nothing from the model's attention, so its maps explain nothing."
            )
        return found


def mixer_options(call: Call, bimodal: dict | None, normalize_rows: bool) -> dict[str, bool]:
    """Return the options of the `Mixer`: `bimodal`'s ablations, checked, and normalize_rows."""
    options = dict(bimodal or {})
    for name, value in options.items():
        if name not in ABLATIONS:
            raise unknown_name("bimodal option", name, ABLATIONS)
        if not isinstance(value, bool):
            raise OptionError(f"bimodal[{name!r}] is {value!r}; expected True or False.")
    if options and call.coupled and normalize_rows and options.get("carry", True):
        raise OptionError(
            f"bimodal is {bimodal!r} with normalize_rows=True, whose flow has none of the "
            'terms that bimodal leaves out; expected {"carry": False}, or one of the two.'
        )
    return options | {"normalize_rows": normalize_rows}


def check_start(start_layer: int, depth: int) -> int:
    """Return start_layer if it names one of `depth` layers (counted from 0)."""
    return check_range("start_layer", start_layer, 0, depth - 1, "the first layer that counts.")


def read_tokens(call: Call) -> Bool[Tensor, "batch tokens"]:
    """Return bool (batch, tokens): the tokens whose last state the prediction reads."""
    run = call.forward(graph="readout", keep=False)
    call.require_token_sites(run)
    (grad,) = run.gradients([run.readout], call.first_seed(run))
    return readout_rows(grad, None)


def mean_of_rows(
    matrix: Float[Tensor, "batch rows tokens"], rows: Bool[Tensor, "batch read"]
) -> Float[Tensor, "batch tokens"]:
    """Return the mean of the chosen rows of (batch, rows, tokens): (batch, tokens)."""
    weights = rows.to(matrix.dtype)
    weights = weights / weights.sum(1, keepdim=True).clamp(min=1)
    return torch.einsum("br,brt->bt", weights, matrix[:, : rows.shape[1]])


def readout_rows(
    grad: Float[Tensor, "batch *inner rows dim"], readout: int | None
) -> Bool[Tensor, "batch rows"]:
    """Return which tokens the prediction reads: bool (batch, rows).

    grad: the gradient (or relevance) at the last site's output, (batch, ..., rows, dim): a row that
    the head does not read has exactly none. `readout` asks for one row by number instead.
    """
    if grad.dim() == 4:
        grad = grad.transpose(1, 2).flatten(2)
    rows = (grad != 0).any(-1)
    if readout is None:
        if not rows.any():
            raise MethodNotApplicableError(
                "The logits take nothing from the model's last attention, so it explains nothing."
            )
        return rows
    chosen = torch.zeros_like(rows)
    count = int(rows.any(0).sum())
    if not isinstance(readout, int) or not 0 <= readout < rows.shape[1]:
        raise OptionError(
            f"readout is {readout!r}; expected a token number from 0 to {rows.shape[1] - 1}, or "
            f"None for the {count} token(s) that this model's head reads."
        )
    chosen[:, readout] = True
    return chosen


def _columns(chain: Chain | None, name: str, tokens: int) -> slice | None:
    """Return where a stream is among the tokens of a chain, which may be joined of several."""
    if chain is None or chain.name == name:
        return None if chain is None else slice(0, tokens)
    start = 0
    for part, _, count in chain.parts:
        inner = _columns(part, name, count)
        if inner is not None:
            return slice(start + inner.start, start + inner.stop)
        start += count
    return None


def _within(chain: Chain | None) -> list[Chain]:
    """Return a chain and the chains that it was joined of."""
    if chain is None:
        return []
    return [chain, *(inner for part, *_ in chain.parts for inner in _within(part))]


def _refuse_for_streams(**options) -> None:
    for name, (value, default) in options.items():
        if value != default:
            raise MethodNotApplicableError(
                f"{name}={value!r} names one of a single sequence's, and the streams of this model "
                f"attend to each other; leave it at {default!r}."
            )
