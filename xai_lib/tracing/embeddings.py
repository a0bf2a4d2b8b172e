"""The embeddings of a text: found in the forward pass, made the start of its graph, or exchanged.

They are what the first block takes up: the tensor to which it adds its attention's result. That
holds for models that normalise embeddings before the blocks (BERT) and inside them (GPT-2, T5), so
nothing needs to be known of where a model adds positions, types or a projection.
"""

from __future__ import annotations

from jaxtyping import Float, Shaped
from torch import Tensor

from xai_lib.tracing.sites import Site


class Embeddings:
    """Watches the (batch, tokens, dim) tensors that a model makes before its first attention.

    root: start the graph at the first of them, the embeddings of the `words` words (all tokens but
    where an image shares their sequence), so that a gradient reaches the embeddings. supply, place:
    use the tensor `supply` for the one that is made as number `place`.
    found: the embeddings, once the first block has taken them up; `place` is then their number.
    supplied: whether `supply` has been put in place.
    exchanges: whether tensors of the model are replaced, which it must not write into.
    """

    def __init__(
        self,
        tokens: int,
        *,
        root: bool = False,
        supply: Float[Tensor, "batch tokens dim"] | None = None,
        place: int = -1,
        words: int | None = None,
    ):
        self.tokens, self.root, self.supply = tokens, root, supply
        self.words = tokens if words is None else words
        self.place = place
        self.exchanges = root or supply is not None
        self.found: Float[Tensor, "batch tokens dim"] | None = None
        self.supplied = False
        self._made: list[Tensor] = []
        self._first: Site | None = None
        self._settled = False

    def after(self, name: str, output: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """Take note of what an operation before the first attention made; return what to use."""
        if output.dim() != 3 or not output.is_floating_point():
            return output
        if self.root and name == "embedding" and output.shape[1] == self.words:
            output = output.detach().requires_grad_()
            self.root = False
        if output.shape[1] != self.tokens:
            return output
        if self.supply is not None and len(self._made) == self.place:
            output, self.supplied = self.supply, True
        self._made.append(output)
        return output

    def meet(self, site: Site) -> None:
        """Wait for the residual connection of the first site."""
        if self._first is not None:
            self.settle()
        elif not self._settled:
            self._first = site

    def settle(self) -> None:
        """Find the embeddings, now that the first block has been passed."""
        if self._first is not None:
            skip = self._first.skip
            # A model that writes in place makes one tensor several times; the last time counts.
            places = [number for number, made in enumerate(self._made) if made is skip]
            if places:
                self.found, self.place = skip, places[-1]
        # A site holds its maps: they are let go as soon as they are not needed.
        self._first, self._settled = None, True
        self._made.clear()
