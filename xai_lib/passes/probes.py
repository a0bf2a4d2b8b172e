"""What a plain pass of the model tells about it: its scores, its gradient, and who reads whom.

One forward pass under a `Watch` and two backward passes over its graph. Nothing of the engine that
is checked takes part.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from xai_lib.streams.prepare import Inputs
from xai_lib.tracing.forms import heads_first
from xai_lib.tracing.watch import Spot, Watch

# So many samples are looked at: what a model does with its tokens, it does with each. From the
# first token of one of them nothing is sent back: it may be a mean of the patches, and is at its
# place then; of the other it is.
SAMPLES = 2


@dataclass
class Plain:
    """One plain pass of the model over the first samples of its inputs, and what it showed.

    scores: (samples, classes). leaves: where the graph begins, pixels, features of regions or the
    embeddings of words, as far as they were seen. several: whether there are several streams.
    """

    scores: Float[Tensor, "samples classes"]
    leaves: list[Float[Tensor, "samples ..."]]
    watch: Watch
    several: bool = False
    _blocked: bool = field(default=False, init=False)
    _arrived: dict[int, Tensor] = field(default_factory=dict, init=False)
    _at_patches: Tensor | None = field(default=None, init=False)
    _reads_last: bool = field(default=True, init=False)
    _hooks: list = field(default_factory=list, init=False, repr=False)

    @classmethod
    def of(cls, model: nn.Module, inputs: Inputs) -> Plain:
        """Run the model as it is."""
        few = inputs.first(SAMPLES)
        words = next((stream.data for stream in few.streams if stream.embeds), None)
        watch, leaves, streams = Watch(words), [], []
        for stream in few.streams:
            if stream.data.is_floating_point():
                leaves.append(stream.data.detach().clone().requires_grad_())
                # A copy, so that a model may write into it.
                stream = replace(stream, data=leaves[-1].clone())
            streams.append(stream)
        focus = None if few.focus is None else streams[0]
        with watch:
            scores = replace(few, streams=tuple(streams), focus=focus).scores(model)
        leaves += [] if watch.root is None else [watch.root]
        found = cls(scores, leaves, watch, inputs.several)
        for number, spot in enumerate(watch.spots):
            if spot.output.requires_grad:
                found._hooks.append(spot.output.register_hook(found._hook(number)))
        if watch.patches is not None and watch.patches.requires_grad:
            found._hooks.append(watch.patches.register_hook(found._note_at_patches))
        return found

    def close(self) -> None:
        """Let go of the graph: what hooks know refers to the tensors that hold the hooks."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self.watch.forget()

    def _note_at_patches(self, gradient: Tensor | None) -> None:
        if self._blocked and gradient is not None:
            self._at_patches = gradient.detach()

    def _hook(self, number: int):
        def arrive(gradient: Tensor | None) -> Tensor | None:
            if not self._blocked or gradient is None:
                # Quantised layers hand on none.
                return None
            known = self._arrived.get(number)
            self._arrived[number] = gradient.detach() if known is None else known + gradient
            # What tokens hand each other in attention is allowed: nothing goes further that way.
            return torch.zeros_like(gradient)

        return arrive

    @contextmanager
    def _blocking(self) -> Iterator[None]:
        self._blocked = True
        self._arrived.clear()
        try:
            yield
        finally:
            self._blocked = False

    @property
    def root(self) -> Float[Tensor, "samples ..."] | None:
        """What the only stream begins with."""
        return None if self.several or not self.leaves else self.leaves[0]

    def gradient(
        self, seed: Float[Tensor, "samples classes"]
    ) -> Float[Tensor, "samples ..."] | None:
        """Return ∂⟨scores, seed⟩/∂root, None where nothing leads there."""
        if self.root is None or not self.scores.requires_grad:
            return None
        wanted = [self.root, *([] if self.watch.last is None else [self.watch.last])]
        found, *at_last = torch.autograd.grad(
            self.scores, wanted, seed.to(self.scores), retain_graph=True, allow_unused=True
        )
        # Of a branch that the scores do not use nothing is asked.
        self._reads_last = any(gradient is not None for gradient in at_last)
        return None if found is None else found.detach()

    def probes(self) -> list[Probe]:
        """Send random cotangents back from the rows of half of the tokens, and see where they go.

        They start at what every attention call reads, and at the last tokens; attention itself lets
        none through. All that arrives must lie in the rows of the same tokens. One probe of a
        single sequence; of several streams one for each length that a sequence has.
        """
        spots = [spot for spot in self.watch.spots if spot.value.requires_grad]
        lengths = list(dict.fromkeys(spot.tokens for spot in spots if spot.tokens > 1))
        if not self.leaves:
            return []
        return [self._probe(spots, count) for count in lengths[: None if self.several else 1]]

    def _probe(self, spots: list[Spot], count: int) -> Probe:
        samples = 1 if self.several else len(self.scores)
        generator = torch.Generator().manual_seed(0)
        # Some of the tokens and not all, whatever the draw.
        order = torch.randperm(count - 1, generator=generator)[: max(1, count // 2)] + 1
        chosen = torch.zeros(samples, count, dtype=torch.bool)
        chosen[:, order] = True
        chosen[1::2, 0] = True
        starts = [(spot.value, spot.keys) for spot in spots if spot.tokens == count]
        last = self.watch.last if self._reads_last else None
        if last is not None and count in last.shape[:2]:
            starts.append((last, _axis(last, count, samples)))
        cotangents = [_cotangent(x, axis, chosen, generator) for x, axis in starts]
        with self._blocking():
            at_leaves = torch.autograd.grad(
                [x for x, _ in starts],
                self.leaves,
                cotangents,
                retain_graph=True,
                allow_unused=True,
            )
        leaks = {
            number: _share(
                gradient, self.watch.spots[number].queries, chosen, self.watch.spots[number].value
            )
            for number, gradient in sorted(self._arrived.items())
            if self.watch.spots[number].looking == count
        }
        at_root = None if self.root is None or at_leaves[0] is None else at_leaves[0].detach()
        return Probe(count, chosen, at_root, self._at_patches, leaks)


@dataclass
class Probe:
    """Where the cotangents of the tokens `chosen` went, bool (samples, tokens).

    at_root: the gradient that arrived at the pixels or embeddings. at_patches: at what the last
    convolution before the tokens gave. leaks: of each attention call by
    number, which share of the largest gradient at its output lay in the rows of other tokens.
    """

    tokens: int
    chosen: Bool[Tensor, "samples tokens"]
    at_root: Float[Tensor, "samples ..."] | None
    at_patches: Float[Tensor, "samples dim rows columns"] | None
    leaks: dict[int, float]

    def at_words(self) -> float | None:
        """Return the share at the embeddings of other words, None where they are no rows."""
        at = self.at_root
        if at is None or at.dim() != 3 or at.shape[1] != self.tokens:
            return None
        return _share(at, 1, self.chosen, at)


def _axis(x: Tensor, tokens: int, samples: int) -> int:
    return 0 if x.shape[0] == tokens and x.shape[1] == samples != tokens else 1


def _cotangent(x: Tensor, axis: int, chosen: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(x.shape, generator=generator).to(x)
    return noise * _along(x, axis, chosen, x).to(x)


def _along(x: Tensor, axis: int, chosen: Tensor, value: Tensor) -> Tensor:
    """Return `chosen` as it lies along a tensor whose tokens are on `axis`.

    Samples are on another one, alone or together with heads or windows (batch x heads, ...; the
    folding of the attention's `value` tells where heads come first).
    """
    axis %= x.dim()
    among = 0 if axis else 1
    count = max(1, x.shape[among] // len(chosen))
    turned = among == 0 and heads_first(value, len(chosen))
    rows = chosen.repeat(count, 1) if turned else chosen.repeat_interleave(count, 0)
    shape = [1] * x.dim()
    shape[among], shape[axis] = rows.shape
    return (rows if among < axis else rows.t()).reshape(shape)


def _share(gradient: Tensor, axis: int, chosen: Tensor, value: Tensor) -> float:
    """Return the largest gradient in the other rows, as a share of the largest of all."""
    sizes = gradient.detach().abs()
    largest = float(sizes.max())
    others = sizes.masked_fill(_along(sizes, axis, chosen, value).to(sizes.device), 0)
    return float(others.max()) / largest if largest > 0 else 0.0
