"""A model on loan with minus its one score, for rules that follow what speaks for a score.

A gradient of minus the score is minus its gradient, but relevance that flows to what adds to a
score (z+) is another for minus the score: what subtracted adds then. So the layer that makes the
score changes its sign, for the length of a call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from xai_lib.errors import MethodNotApplicableError

# What a sign may change of sums, as a share of the largest score.
CLOSE = 1e-2


@contextmanager
def negated(model: nn.Module, scores: Callable[[], Tensor]) -> Iterator[None]:
    """Let the borrowed model give minus its one score inside the block.

    scores: runs the model. Raises MethodNotApplicableError where no linear layer's sign does it.
    """
    with torch.no_grad():
        wanted = -scores()
    for module in model.modules():
        if not isinstance(module, nn.Linear) or module.out_features != 1:
            continue
        own = dict(module._parameters)
        if own.get("weight") is None:
            continue
        try:
            for name, value in own.items():
                if value is not None:
                    module._parameters[name] = nn.Parameter(-value.detach(), requires_grad=False)
            with torch.no_grad():
                found = scores()
            if (found - wanted).abs().max() <= CLOSE * wanted.abs().max():
                yield
                return
        finally:
            module._parameters.update(own)
    raise MethodNotApplicableError(
        "The relevance of a low score is that of the model with minus the score, and no linear "
        "layer of this model makes the score, whose sign could be changed"
    )
