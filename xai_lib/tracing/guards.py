"""What a pass is watched for, so that no explanation is silently wrong.

A token map is a product over the attention that was seen. It means nothing where tokens also mix in
another way, or where the attention calls do not follow from each other; and patches must be told
from class and register tokens wherever the model puts those.
"""

from __future__ import annotations

from jaxtyping import Shaped
from torch import Tensor, nn

from xai_lib.tracing.marks import MIXED, PATCHES, STAGE, leave

JOINS = frozenset(("cat", "concat", "concatenate"))

# Stands among the ways in which tokens were mixed for a convolution over them.
CONVOLVED = "convolved"


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
    """Findings of one pass. `objection` is the reason against token maps, or None.

    Tokens that mix beside the attention count where an attention call takes them up afterwards: a
    head may convolve, and a branch that leads nowhere may do anything.
    """

    def __init__(self):
        self.unconnected = False
        self.irregular = False
        self.convolved = False
        # How many patches the last convolution made, and how many tokens stand before them.
        self.patches = 0
        self.offset: int | None = None
        # Products of activations that lead to an attention call or to the logits.
        self._met: dict[int, Mixing] = {}

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
        if any(not mixing.resolved for mixing in self._met.values()):
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
        leave(output, STAGE, ("scores", mixing))
        leave(output, MIXED, (*getattr(output, MIXED, ()), mixing))

    def convolution(self, output: Shaped[Tensor, "..."], kernel: int) -> None:
        """Watch a convolution over the tokens, of so many places each."""
        if kernel > 1:
            leave(output, MIXED, (*getattr(output, MIXED, ()), CONVOLVED))

    def spread(self, name: str, output: object, args: tuple, kwargs: dict) -> None:
        """Note in what an operation made or wrote to how its operands' tokens were mixed."""
        made = _flat((args[0],) if name == "setitem" else (output,))
        found: dict[int, object] = {}
        for x in (*_flat((*args, *kwargs.values())), *made):
            for way in getattr(x, MIXED, ()):
                if not (isinstance(way, Mixing) and (way.resolved or id(way) in self._met)):
                    found[id(way)] = way
        for x in made if found else ():
            leave(x, MIXED, tuple(found.values()))

    def meet(self, probs: Shaped[Tensor, "..."], value: Shaped[Tensor, "..."]) -> None:
        """Note how tokens were mixed that an attention call takes up."""
        self.settle(probs, value)
        ways = (*getattr(probs, MIXED, ()), *getattr(value, MIXED, ()))
        self.convolved |= CONVOLVED in ways

    def settle(self, *ends: Shaped[Tensor, "..."]) -> None:
        """Note what activations were multiplied by each other on the way to the logits."""
        for x in ends:
            for way in getattr(x, MIXED, ()):
                if isinstance(way, Mixing) and id(way) not in self._met:
                    self._met[id(way)] = way

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


def _flat(values: tuple) -> list[Tensor]:
    """Return the tensors among values, and in the lists among them."""
    found = []
    for value in values:
        inner = value if isinstance(value, list | tuple) else (value,)
        found += [x for x in inner if isinstance(x, Tensor)]
    return found
