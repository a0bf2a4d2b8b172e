"""Chains: the sequences of tokens of a pass, followed from the model's inputs to its head.

A model of two streams keeps two sequences, and each attention call lets one of them (the query
side) look at itself or at another. Which is which is read off the pass: every tensor made from an
input carries the mark of its chain, a residual sum hands it on, and a concatenation of two chains
begins a third. So no table of models is needed, and a module that is called twice does not confuse.

A mark is (chain, version). The version counts the attention calls that the tokens have passed, so
that a map is always multiplied with the relevance its keys had when they were read: the two
directions of LXMERT's cross-attention both read the states from before the layer.
"""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float, Shaped
from torch import Tensor

from xai_lib.tracing.guards import JOINS
from xai_lib.tracing.marks import CHAIN, MINGLED, ORIGIN, Chain, State, leave, state_of
from xai_lib.tracing.ops import PRODUCTS, ROUTING
from xai_lib.tracing.sites import Site

# Operations in which two sequences meet otherwise than token by token: scores of attention, and its
# result, and the similarity of two towers.
MEETINGS = frozenset(name for name, kind in PRODUCTS.items() if kind != "multiply") | {
    "scaled_dot_product_attention",
    "multi_head_attention_forward",
}


class Chains:
    """Follows chains from the inputs that `sources` names by stream, or that are named already.

    focus: the stream whose sites are met; sites of other chains run as they are. None: all.
    mingled: whether tokens attend in which two streams were put together other than side by side,
    such as an image written into places of a text (LLaVA) or one stream added to another: no map
    tells then which stream a token is.
    """

    def __init__(
        self,
        sources: Mapping[str, tuple[Shaped[Tensor, "..."], ...]] | None = None,
        focus: str | None = None,
    ):
        self.focus = focus
        self.found: list[Chain] = []
        self.mingled = False
        for name, tensors in (sources or {}).items():
            for x in tensors:
                leave(x, ORIGIN, name)

    def follow(self, name: str, output: Shaped[Tensor, "..."], args: tuple, kwargs: dict) -> None:
        """Mark the output of the operation `name` with the chain of its operands."""
        operands = list(_tensors((*args, *kwargs.values())))
        if output.is_floating_point():
            self._watch(name, output, operands, args, kwargs)
        if state_of(output) is not None:
            return
        if not output.is_floating_point():
            if origin := _origin(operands, floating=False):
                leave(output, ORIGIN, origin)
            return
        states = _states(operands)
        if states:
            joined = _side_by_side(name, operands, args, kwargs)
            leave(output, CHAIN, self._join(operands) if joined else _latest(states))
            return
        floating = name != "embedding"
        origin = _origin(operands, floating)
        if origin and floating and name in ROUTING:
            leave(output, ORIGIN, origin)
        elif origin:
            leave(output, CHAIN, (Chain(origin), 0))

    def write(self, target: Shaped[Tensor, "..."], value: object) -> None:
        """Note that `value` was written into some places of `target`."""
        state = state_of(value)
        if state is None or not isinstance(value, Tensor) or not target.is_floating_point():
            return
        if state_of(target) is None:
            leave(target, CHAIN, state)
        self._watch("setitem", target, [target, value], (), {})

    def _watch(self, name: str, output: Tensor, operands: list[Tensor], args, kwargs) -> None:
        """Mark what two streams were put together in, element by element, and all made of it."""
        names = {chain.name for chain, _ in _states(operands)}
        apart = len(names) < 2 or name in MEETINGS or _side_by_side(name, operands, args, kwargs)
        if not apart or any(hasattr(x, MINGLED) for x in operands):
            leave(output, MINGLED, True)

    def sees(
        self, query: Shaped[Tensor, "..."], key: Shaped[Tensor, "... keys dim"] | None = None
    ) -> bool:
        """Whether attention of `query` (or its probabilities) to `key` is to be met.

        A single query that no input made pools the tokens it looks at, and is part of their chain.
        """
        state = state_of(query)
        if state is None and key is not None and query.shape[-2] == 1:
            state = state_of(key)
        return self.focus is None or (state is not None and state[0].name == self.focus)

    def meet(self, site: Site, output: Float[Tensor, "... queries dim"]) -> None:
        """Note between which chains a site lies, and mark its output."""
        query, key = state_of(site.probs), state_of(site.value)
        self.mingled |= any(hasattr(x, MINGLED) for x in (site.probs, site.value))
        if query is None:
            # What no input made: learned queries, or a decoder's start.
            apart = key is None or (site.queries != site.keys and self.focus is None)
            query = (Chain("queries"), 0) if apart or key is None else key
        key = query if key is None else key
        for (chain, _), count in ((key, site.keys), (query, site.queries)):
            self._register(chain, count)
        chain = query[0]
        site.ordinal = len(chain.sites)
        site.query, site.key = query, key
        chain.sites.append(site.index)
        leave(output, CHAIN, (chain, site.index + 1))

    def pass_by(self, query: Shaped[Tensor, "..."], output: Shaped[Tensor, "..."]) -> None:
        """Mark what attention out of focus brings: it stays with what asked, not what was read."""
        leave(output, CHAIN, state_of(query) or (Chain("queries"), 0))

    def _register(self, chain: Chain, tokens: int) -> None:
        if chain in self.found:
            return
        for part, _, count in chain.parts:
            if part is not None:
                self._register(part, count)
        chain.tokens = tokens
        if any(other.name == chain.name for other in self.found):
            # A second sequence of one input: what BART decodes it with.
            chain.name = "decoder"
        self.found.append(chain)

    def _join(self, parts: list[Tensor]) -> State:
        """Return the chain of tokens that were put side by side."""
        states = [state_of(x) for x in parts]
        chains = {id(s[0]): s for s in states if s is not None}
        if len(chains) == 1:
            ((chain, version),) = chains.values()
            if not (version or chain.parts):
                # Class tokens before the patches: still the one sequence of this input.
                return chain, version
        found: list[tuple[Chain | None, int, int]] = []
        for state, x in zip(states, parts, strict=True):
            chain, version = state or (None, 0)
            if chain is not None and chain.parts and not version:
                found += chain.parts
            else:
                found.append((chain, version, x.shape[1]))
        return Chain("joint", tuple(found)), 0


def carry(root: Shaped[Tensor, "..."], x: Shaped[Tensor, "..."]) -> None:
    """Give `root`, which stands for x from now on, the chain of x."""
    state = state_of(x)
    if state is not None:
        leave(root, CHAIN, state)
    if hasattr(x, MINGLED):
        leave(root, MINGLED, True)


def _states(operands: list[Tensor]) -> list[State]:
    return [state for state in map(state_of, operands) if state is not None]


def _latest(states: list[State]) -> State:
    """Return the first operand's chain, with the latest version any operand has of it."""
    chain = states[0][0]
    return chain, max(version for other, version in states if other is chain)


def _origin(operands: list[Tensor], floating: bool) -> str | None:
    named = (x for x in operands if x.is_floating_point() == floating)
    return next((getattr(x, ORIGIN) for x in named if hasattr(x, ORIGIN)), None)


def _side_by_side(name: str, operands: list[Tensor], args, kwargs) -> bool:
    """Whether an operation puts the tokens (batch, tokens, dim) of its operands side by side."""
    return name in JOINS and operands[0].dim() == 3 and _joined_dim(args, kwargs) == 1


def _joined_dim(args, kwargs) -> int:
    dim = kwargs.get("dim", args[1] if len(args) > 1 else 0)
    return dim % 3


def _tensors(values):
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from (x for x in value if isinstance(x, Tensor))
