"""One backward pass: at a scale that half precision can hold, refused where it tells nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from xai_lib.passes.loan import HALF
from xai_lib.passes.refusals import is_about_writing, no_gradient, no_influence, writes_in_place

# Half precision is seeded with the first of these under which nothing overflows, and the result
# divided by it: the shares of a token lie below the smallest number of float16, and a model may
# multiply them by another hundred (CLIP's logit scale) on the way.
SCALES = (2.0**12, 2.0**6, 1.0, 2.0**-6, 2.0**-12)


def backward(
    logits: Float[Tensor, "rows classes"],
    tensors: Sequence[Float[Tensor, "..."]],
    seed: Float[Tensor, "rows classes"],
) -> list[Float[Tensor, "..."]]:
    """Return what a backward pass from the seeded logits brings to each tensor, zero for nothing.

    Raises MethodNotApplicableError where no path leads to any of them, and UnsupportedModelError
    where the model has written into what the pass needs.
    """
    reached = [t for t in tensors if t.requires_grad]
    if tensors and not (logits.requires_grad and reached):
        raise no_gradient()
    if not tensors:
        return []
    scales = SCALES if logits.dtype == torch.float16 else (1.0,)
    defined = logits.detach().isfinite().all(1)
    best: Sequence[Tensor | None] = ()
    fewest, chosen = None, 1.0
    for scale in scales:
        start = seed.to(logits.dtype) * scale
        try:
            found = torch.autograd.grad(logits, reached, start, True, allow_unused=True)
        except RuntimeError as error:
            if not is_about_writing(error):
                raise
            raise writes_in_place() from error
        lost = _not_finite(found, defined) if len(scales) > 1 else 0
        if fewest is None or lost < fewest:
            best, fewest, chosen = found, lost, scale
        if not fewest:
            break
    by_id = {id(t): g for t, g in zip(reached, best, strict=True)}
    result = [by_id.get(id(t)) for t in tensors]
    half = logits.dtype in HALF
    return [
        torch.zeros_like(t) if g is None else g.float() / chosen if half else g
        for t, g in zip(tensors, result, strict=True)
    ]


def require_influence(
    found: Sequence[Float[Tensor, "..."]],
    logits: Float[Tensor, "rows classes"],
    seed: Float[Tensor, "rows classes"],
) -> None:
    """Refuse where a sample's score has no gradient at all: exact zeros say nothing of evidence.

    A sample that starts from nothing, or whose score is no number, is not asked for.
    """
    asked = (seed != 0).any(1) & logits.detach().isfinite().all(1)
    silent = asked.clone()
    for gradient in found:
        told = gradient != 0
        # Windows, or tokens in the first dimension: whose sample's they are is not known.
        silent &= ~(told.flatten(1).any(1) if len(told) == len(asked) else told.any())
    if len(found) and silent.any():
        raise no_influence()


def _not_finite(found: Sequence[Tensor | None], defined: Tensor) -> int:
    """Count numbers that are none, where the score is one."""
    count = 0
    for gradient in found:
        if gradient is not None:
            wrong = ~gradient.isfinite()
            count += int((wrong[defined] if len(wrong) == len(defined) else wrong).sum())
    return count
