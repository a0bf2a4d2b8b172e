"""A copy of a model without some of its blocks: attention and feed-forward together.

Masking the attention of a layer leaves its feed-forward part and so most of its weights; dropping
the block is another function, smaller and faster in any architecture that counts its layers.
"""

from __future__ import annotations

import copy
from collections import defaultdict

from torch import Tensor, nn

from xai_lib.errors import MethodNotApplicableError, OptionError, unknown_name
from xai_lib.heads.ranking import ORDERS, HeadScores
from xai_lib.heads.smaller import Smaller, built, size_of
from xai_lib.passes.loan import unwrap

# What configurations call the number of a list's blocks, beside the list's own name.
FIELDS = ("num_hidden_layers", "n_layers", "l_layers")

# A block: the path of its list in the model, and its place there.
Block = tuple[str, int]


def without_blocks(
    model: nn.Module, scores: HeadScores, fraction: float, order: str = "negative"
) -> Smaller:
    """Return a copy without ⌊fraction·N⌋ of its N blocks, ranked by the mean score of their sites.

    scores: head or layer scores of the model. order: "negative" drops the smallest first,
    "positive" the largest. Every list of blocks keeps at least one; `removed` names the dropped.
    Raises OptionError for a fraction outside [0, 1), MethodNotApplicableError where the model's
    attention is in no list of blocks or its configuration does not count them.
    """
    model = unwrap(model)
    if order not in ORDERS:
        raise unknown_name("order", order, ORDERS)
    usable = isinstance(fraction, int | float) and not isinstance(fraction, bool)
    if not usable or not 0 <= fraction < 1:
        raise OptionError(f"fraction is {fraction!r}; expected a number from 0 to below 1.")
    ranked = _ranked(model, scores, order)
    left: dict[str, set[int]] = defaultdict(set)
    for path, place in ranked:
        left[path].add(place)
    for path, place in ranked:
        if sum(map(len, left.values())) <= len(ranked) - int(fraction * len(ranked)):
            break
        if len(left[path]) > 1:
            left[path].remove(place)
    return _keeping(model, left)


def _ranked(model: nn.Module, scores: HeadScores, order: str) -> list[Block]:
    """Return all blocks, the first to drop first."""
    found: dict[Block, list[Tensor]] = defaultdict(list)
    for site, part in zip(scores.sites, scores.values.split(scores.widths, 1), strict=True):
        block = _block_of(model, site.name)
        # What the prediction does not depend on says nothing of its block.
        found[block] += [part.mean()] if site.reached else []
    means = {block: float(sum(values)) / max(len(values), 1) for block, values in found.items()}
    return sorted(means, key=lambda block: means[block], reverse=order == "positive")


def _block_of(model: nn.Module, name: str) -> Block:
    parts = name.split(".")
    for end in range(1, len(parts)):
        path = ".".join(parts[:end])
        if isinstance(model.get_submodule(path), nn.ModuleList) and parts[end].isdecimal():
            return path, int(parts[end])
    raise MethodNotApplicableError(
        f"{name!r} is in no list of blocks, so no block can be dropped. Prune heads instead."
    )


def _keeping(model: nn.Module, left: dict[str, set[int]]) -> Smaller:
    config = copy.deepcopy(getattr(model, "config", None))
    state, removed = dict(model.state_dict()), {}
    for path, places in left.items():
        total = len(list(model.get_submodule(path).children()))
        own = path.rpartition(".")[2]
        field = next((f for f in (own, *FIELDS) if getattr(config, f, None) == total), None)
        if field is None:
            raise _uncounted(model, path)
        setattr(config, field, len(places))
        removed[path] = [place for place in range(total) if place not in places]
        state = _renumbered(state, path, sorted(places))
    found = built(type(model), config, {k: v.clone() for k, v in state.items()}, model)
    if found is None:
        raise _uncounted(model, next(iter(left)))
    gone = {path: places for path, places in removed.items() if places}
    return Smaller(found, gone, {}, (size_of(model), size_of(found)))


def _renumbered(state: dict[str, Tensor], path: str, places: list[int]) -> dict[str, Tensor]:
    new = {}
    for key, value in state.items():
        if key.startswith(f"{path}."):
            number, _, rest = key.removeprefix(f"{path}.").partition(".")
            if int(number) not in places:
                continue
            key = f"{path}.{places.index(int(number))}.{rest}"
        new[key] = value
    return new


def _uncounted(model: nn.Module, path: str) -> MethodNotApplicableError:
    return MethodNotApplicableError(
        f"The configuration of {type(model).__name__} does not count the blocks of {path!r}, or "
        "the model is built otherwise than it says, so a checkpoint of fewer would not load."
    )
