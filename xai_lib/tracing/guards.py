"""What a pass is watched for, so that no explanation is silently wrong.

A token map is a product over the attention that was seen. It means nothing where tokens also mix in
another way, or where the attention calls do not follow from each other; and patches must be told
from class and register tokens wherever the model puts those.
"""

from __future__ import annotations

from jaxtyping import Shaped
from torch import Tensor, nn

from xai_lib.tracing.marks import PATCHES, STAGE, leave

JOINS = frozenset(("cat", "concat", "concatenate"))


class Mixing:
    """A product of two activations, whose purpose is open until a softmax takes it up.

    summed: whether something, such as a mask, has been added to it.
    """

    resolved = False
    summed = False

    def __init__(self):
        self._parts: list[Mixing] = []

    def join(self, other: Mixing) -> None:
        """Take up another product that was added to this one (disentangled attention)."""
        if other is not self:
            self._parts.append(other)

    def resolve(self) -> None:
        """Let a softmax take up the product and all that was added to it."""
        self.resolved = True
        while self._parts:
            self._parts.pop().resolve()


class Guards:
    """Findings of one pass. `objection` is the reason against token maps, or None."""

    def __init__(self):
        self.unconnected = False
        self.irregular = False
        self.convolved = False
        # How many patches the last convolution made, and how many tokens stand before them.
        self.patches = 0
        self.offset: int | None = None
        self._mixings: list[Mixing] = []

    @property
    def objection(self) -> str | None:
        """Return why no map between tokens would be right, or None."""
        if self.unconnected:
            return (
                "This model runs several chains of attention that do not follow from each other "
                "(two towers, or one model called twice), so no single map spans its tokens"
            )
        if self.irregular:
            return "This model's attention has further dimensions beside batch, heads and tokens"
        if self.convolved:
            return (
                "This model convolves over its tokens between the layers, so tokens also mix in a "
                "way that attention maps do not show"
            )
        if any(not mixing.resolved for mixing in self._mixings):
            return (
                "This model multiplies activations by each other without a softmax, so tokens also "
                "mix in a way that attention maps do not show"
            )
        return None

    def product(
        self, a: Shaped[Tensor, "..."], b: Shaped[Tensor, "..."], output: Shaped[Tensor, "..."]
    ) -> None:
        """Watch a batched product of two activations until its softmax."""
        constant = isinstance(a, nn.Parameter) or isinstance(b, nn.Parameter)
        if constant or min(a.dim(), b.dim()) < 3 or hasattr(output, STAGE):
            return
        mixing = Mixing()
        self._mixings.append(mixing)
        leave(output, STAGE, ("scores", mixing))

    def follow_patches(
        self, name: str, output: Shaped[Tensor, "..."], args: tuple, kwargs: dict
    ) -> None:
        """Follow the patch embedding and count the tokens that are joined in front of it."""
        if name not in JOINS:
            if any(hasattr(x, PATCHES) for x in args[:2]):
                leave(output, PATCHES, True)
            return
        parts = list(args[0])
        dim = kwargs.get("dim", args[1] if len(args) > 1 else 0)
        followed = [i for i, x in enumerate(parts) if hasattr(x, PATCHES)]
        if not followed:
            return
        leave(output, PATCHES, True)
        if output.dim() == 3 and dim % 3 != 2:
            # Registers may be put between a class token and the patches that it was joined to.
            place = max(followed, key=lambda i: parts[i].shape[dim])
            before = sum(x.shape[dim] for x in parts[:place])
            alone = parts[place].shape[dim] == self.patches
            self.offset = before + (0 if alone else self.offset or 0)
