"""From the maps of a model's sites to the relevance of its tokens, for one sequence or several."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from xai_lib.errors import MethodNotApplicableError, OptionError, unknown_name
from xai_lib.explainers.mixing import check_start, mean_of_rows, mix, readout_rows
from xai_lib.explainers.stream_mixer import StreamMixer, last_maps, mix_streams, read_streams
from xai_lib.passes.call import Call, Run
from xai_lib.tracing import Site

ABLATIONS = ("normalize", "self_in_cross", "aggregate", "carry")


class Reader:
    """Mixes maps C of `sites` (those from start_layer on) and reads the rows that the head reads.

    tensors: where a backward pass must look, the sites' probabilities and the outputs that tell the
    rows; `split` parts what it found there. Several sequences that attend to each other are mixed
    by `StreamMixer`, one by `TokenMixer`.
    """

    def __init__(
        self,
        call: Call,
        run: Run,
        start_layer: int = 0,
        normalize_rows: bool = False,
        readout: int | None = None,
        bimodal: dict | None = None,
        layer: int = -1,
    ):
        call.require_token_sites(run)
        self.call, self.run, self.readout = call, run, readout
        self.normalize_rows = normalize_rows
        self.bimodal = _checked(bimodal)
        if call.coupled:
            if normalize_rows and self.bimodal and self.bimodal.get("carry", True):
                raise OptionError(
                    f"bimodal is {bimodal!r} with normalize_rows=True, whose flow has none of the "
                    'terms that bimodal leaves out; expected {"carry": False}, or one of the two.'
                )
            _refuse_for_streams(readout=(readout, None), layer=(layer, -1))
            depth = max(site.ordinal for site in run.sites) + 1
            check_start(start_layer, depth)
            self.sites = [site for site in run.sites if site.ordinal >= start_layer]
            self.skipped: list[Site] = []
            outputs = [site.output for site in self.sites]
        else:
            check_start(start_layer, len(run.sites))
            self.sites, self.skipped = run.sites[start_layer:], run.sites[:start_layer]
            outputs = [self.sites[-1].output]
        self.tensors = [*(site.probs for site in self.sites), *outputs]

    def split(self, found: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Part what was found at `tensors` into that at the probabilities and at the outputs."""
        return found[: len(self.sites)], found[len(self.sites) :]

    def read(self, maps: Iterable[Tensor], at_outputs: Sequence[Tensor]) -> Tensor:
        """Return relevance (batch, tokens) from the maps (batch, queries, keys) of the sites."""
        if self.call.coupled:
            mixer: StreamMixer = mix_streams(
                self.sites, maps, normalize_rows=self.normalize_rows, **self.bimodal
            )
            return read_streams(mixer, self.sites, at_outputs, self.call.layout(self.run))
        R = mix(self.sites, maps, self.skipped, self.normalize_rows)
        return mean_of_rows(R, readout_rows(at_outputs[-1], self.readout))

    def last(self, maps: Iterable[Tensor], at_outputs: Sequence[Tensor]) -> Tensor:
        """Return the last map that leads to each stream, in the rows the head reads."""
        return last_maps(self.sites, list(maps), at_outputs, self.call.layout(self.run))


def read_tokens(call: Call) -> Tensor:
    """Return bool (batch, tokens): the tokens whose last state the prediction reads."""
    run = call.forward(graph="readout", keep=False)
    call.require_token_sites(run)
    (grad,) = run.gradients([run.trace.readout], call.first_seed(run))
    return readout_rows(grad, None)


def _checked(bimodal: dict | None) -> dict[str, bool]:
    options = dict(bimodal or {})
    for name, value in options.items():
        if name not in ABLATIONS:
            raise unknown_name("bimodal option", name, ABLATIONS)
        if not isinstance(value, bool):
            raise OptionError(f"bimodal[{name!r}] is {value!r}; expected True or False.")
    return options


def _refuse_for_streams(**options) -> None:
    for name, (value, default) in options.items():
        if value != default:
            raise MethodNotApplicableError(
                f"{name}={value!r} names one of a single sequence's, and the streams of this model "
                f"attend to each other; leave it at {default!r}."
            )
