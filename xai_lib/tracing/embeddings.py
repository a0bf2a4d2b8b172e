"""The embeddings of a text: found in the forward pass, made the start of its graph, or exchanged.

Words are what the pass looks up for the token numbers, whatever else it does; no attention needs to
be seen for that. Where a block takes up what was made of them token by token (BERT adds positions
and types and normalises), that is the input of the model's blocks, and the embeddings are meant to
be those: the tensor to which the first attention's result is added. It takes the words' place only
if that was measured in the pass's own graph: nothing passes it by, and no token reaches another's.
"""

from __future__ import annotations

from jaxtyping import Float, Shaped
from torch import Tensor

from xai_lib.tracing.graph import is_cut, reaches_own_rows
from xai_lib.tracing.marks import leave
from xai_lib.tracing.ops import ROUTING
from xai_lib.tracing.sites import Site

# The name of the mark, and what it says of a tensor: these are the token numbers (or, "turned",
# with tokens in the first dimension), or what was looked up for them in another shape.
NUMBERS, KEPT, TURNED, LOOKED_UP = "_xai_numbers", "numbers", "turned", "looked up"
TURNS = frozenset(("t", "T", "mT", "transpose", "swapaxes", "swapdims", "permute"))
# The number that stands for the words among the tensors that a pass makes.
WORDS = -1


class Embeddings:
    """Watches what a pass makes of the token numbers `ids` before its first attention.

    tokens: the length of the sequence that the first attention takes up, which an image can share.
    root: start the graph at the words, so that a gradient reaches them and what is made of them.
    supply, place: use the tensor `supply` for the words, or for what is made as number `place`.
    words: what was looked up, (batch, tokens, dim). found: the embeddings, once `choose` has been
    asked; `place` is then their number.
    supplied: whether `supply` has been put in place.
    exchanges: whether tensors of the model are replaced, which it must not write into.
    """

    def __init__(
        self,
        ids: Shaped[Tensor, "batch words"],
        tokens: int,
        *,
        root: bool = False,
        supply: Float[Tensor, "rows tokens dim"] | None = None,
        place: int = WORDS,
    ):
        self.ids, self.tokens = ids, tokens
        self.root, self.supply, self.place = root, supply, place
        self.exchanges = root or supply is not None
        self.words: Float[Tensor, "rows words dim"] | None = None
        self.found: Float[Tensor, "rows tokens dim"] | None = None
        self.supplied = False
        self._made: list[tuple[Tensor, int]] = []
        self._first: Site | None = None
        self._taken_up: Tensor | None = None
        self._settled = False

    def after(
        self, name: str, output: Shaped[Tensor, "..."], args: tuple, *, begun: bool
    ) -> Shaped[Tensor, "..."]:
        """Take note of what an operation made; return what to use.

        begun: whether attention has begun already, or the operation is of another stream.
        """
        if not self.exchanges:
            return output
        looked_up = self._follow(name, output, args)
        if looked_up and self.words is None:
            output = self._begin(output, turned=looked_up == TURNED)
        candidate = output.dim() == 3 and output.is_floating_point()
        if begun or not candidate or output.shape[1] != self.tokens:
            return output
        if any(x is output and version == output._version for x, version in self._made):
            # Returned as it was given: float32 asked for float32, dropout that is off.
            return output
        if self.supply is not None and len(self._made) == self.place:
            output, self.supplied = self.supply, True
        self._made.append((output, output._version))
        return output

    def _follow(self, name: str, output: Tensor, args: tuple) -> str:
        """Follow the token numbers; return KEPT or TURNED if this is what is looked up for them."""
        operands = [x for x in args if isinstance(x, Tensor)]
        if name in ("getitem", "index_put") and len(args) > 1 and isinstance(args[1], tuple | list):
            operands += [x for x in args[1] if isinstance(x, Tensor)]
        marks = [KEPT if x is self.ids else getattr(x, NUMBERS, "") for x in operands]
        mark = next(filter(None, marks), "")
        if not mark or hasattr(output, NUMBERS) or output is self.ids:
            return ""
        routed = name in ROUTING or name in ("one_hot", "long", "int")
        if mark == LOOKED_UP:
            if routed and not self._has_words(output):
                leave(output, NUMBERS, mark)
            return KEPT if routed and self._has_words(output) else ""
        if routed and marks[0]:
            turns = name in TURNS and output.dim() == 2
            leave(output, NUMBERS, {KEPT: TURNED, TURNED: KEPT}[mark] if turns else mark)
            return ""
        if not output.is_floating_point():
            return ""
        if mark == TURNED and output.dim() == 3 and output.shape[0] == self.ids.shape[1]:
            return TURNED
        if self._has_words(output):
            return KEPT
        if output.dim() == 2 and output.shape[0] % self.ids.numel() == 0:
            leave(output, NUMBERS, LOOKED_UP)
        return ""

    def _has_words(self, x: Tensor) -> bool:
        return x.dim() == 3 and x.is_floating_point() and x.shape[1] == self.ids.shape[1]

    def _begin(self, output: Tensor, turned: bool) -> Tensor:
        """Start the graph at the words, or exchange them."""
        self.words = output.transpose(0, 1) if turned else output
        if self.root:
            self.words = self.words.detach().requires_grad_()
        elif self.supply is not None and self.place == WORDS:
            self.words, self.supplied = self.supply, True
        else:
            return output
        return self.words.transpose(0, 1) if turned else self.words

    def meet(self, site: Site) -> None:
        """Wait for the residual connection of the first site."""
        if self._first is not None:
            self.settle()
        elif not self._settled:
            self._first = site

    def settle(self) -> None:
        """Find what the first block takes up, now that it has been passed."""
        if self._first is not None:
            skip = self._first.skip
            # A model that writes in place makes one tensor several times; the last time counts.
            places = [number for number, (made, _) in enumerate(self._made) if made is skip]
            if places:
                self._taken_up, self.place = skip, places[-1]
        # A site holds its maps: they are let go as soon as they are not needed.
        self._first, self._settled = None, True
        self._made.clear()

    def choose(self, logits: Float[Tensor, "rows classes"]) -> None:
        """Say which tensor the embeddings are, now that the graph from the words is complete."""
        words, taken_up = self.words, self._taken_up
        if words is None or taken_up is None or self._instead(taken_up, words, logits):
            self.found = taken_up
        else:
            self.found = None
        if self.found is None and words is not None:
            self.found, self.place = words, WORDS

    def _instead(self, x: Tensor, words: Tensor, logits: Tensor) -> bool:
        """Whether x stands for the words: made of them, row by row, and of all that they do."""
        if x is words or not (x.requires_grad and words.is_leaf and words.requires_grad):
            return x is words
        if not is_cut(x, words, logits):
            return False
        # An image in the same sequence: which rows are the words' is not known.
        return x.shape[1] != words.shape[1] or reaches_own_rows(x, words)
