"""Head masks: numbers that multiply attention probabilities after the softmax, site by site."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float, Shaped
from torch import Tensor

from xai_lib.errors import InputError


class HeadMask:
    """What multiplies each head's attention: 1 keeps it, 0 prunes it; nothing is renormalised.

    keep: by the number of the attention call in execution order, (heads,) for all samples or
    (samples, heads) for each its own; one number, (1,) or (samples, 1), counts for all heads of the
    site. Sites that are not named stay whole. places: what the numbers stand for, (module's name,
    how-manieth call of it), where that is known: it holds also where a program calls parts of the
    model by themselves, as `generate` does. Output projection, its bias and the residual
    connection stay, as in Michel et al. (2019, section 2.2).
    """

    def __init__(
        self,
        keep: Mapping[int, Shaped[Tensor, "..."]],
        places: Mapping[int, tuple[str, int]] | None = None,
    ):
        self.keep = dict(keep)
        self.places = dict(places or {})

    def apply(
        self, number: int, probs: Float[Tensor, "*samples_heads queries keys"]
    ) -> Float[Tensor, "*samples_heads queries keys"]:
        """Return `probs` (samples, heads, queries, keys) of attention call `number`, masked."""
        keep = self.keep.get(number)
        if keep is None:
            return probs
        keep = keep.to(probs)
        heads = probs.shape[-3] if probs.dim() > 3 else 1
        rows = keep.shape[0] if keep.dim() == 2 else 1
        if keep.shape[-1] not in (1, heads) or rows not in (1, probs.shape[0]):
            raise InputError(
                f"The mask of attention call {number} has shape {tuple(keep.shape)}; the model "
                f"attends with {heads} heads over {probs.shape[0]} samples there: expected "
                f"({heads},) or ({probs.shape[0]}, {heads}), or 1 in place of the heads."
            )
        factor = keep[..., None, None]
        return probs * (factor if probs.dim() > 3 else factor.squeeze(-3))
