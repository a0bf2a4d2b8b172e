"""A copy of a model without the pruned heads, in weights that transformers loads by itself."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from xai_lib.errors import InputError, MethodNotApplicableError
from xai_lib.heads.ranking import ScoredSite
from xai_lib.passes.loan import unwrap
from xai_lib.tracing import HeadMask


class Projections(NamedTuple):
    """What a module calls the linear maps of its attention; output: None where it is elsewhere."""

    query: str
    key: str
    value: str
    output: str | None


PROJECTIONS = (
    Projections("q_proj", "k_proj", "v_proj", "o_proj"),
    Projections("q_proj", "k_proj", "v_proj", "out_proj"),
    Projections("query", "key", "value", None),
    Projections("query_proj", "key_proj", "value_proj", None),
    Projections("q_lin", "k_lin", "v_lin", "out_lin"),
)
FUSED = "qkv"


@dataclass(frozen=True)
class Smaller:
    """A pruned copy of a model.

    removed: pruned heads by module whose weights are gone; zeroed: those whose value weights are
    zeros instead, so that they contribute nothing. parameters: (before, after).
    """

    model: nn.Module
    removed: dict[str, list[int]]
    zeroed: dict[str, list[int]]
    parameters: tuple[int, int]


def smaller(model: nn.Module, mask: HeadMask, sites: Sequence[ScoredSite]) -> Smaller:
    """Return a copy of a model that computes what the masked one does, without any mask.

    mask: `scores.mask(..., tied=True)`, sites: `scores.sites`. Where the configuration can express
    it, the rows of the pruned heads' query, key and value maps and the columns of the output map
    are removed: transformers models whose configuration has a `head_dim` beside their number of
    heads (ViT, DeiT, BEiT, DINOv2). That number is one for all layers, so each layer keeps as many
    as the layer that keeps most, and the rest are zeroed there. BERT, VisualBERT, LXMERT and CLIP
    tie the size of a head to the number of heads, so that no configuration holds fewer heads of the
    same size: their pruned heads are zeroed, which computes the same but is no smaller. Either
    way `save_pretrained` and `from_pretrained` work as for any model.
    Raises InputError where the calls of one module are masked differently or a mask is neither 0
    nor 1, MethodNotApplicableError where the value map of a module is not known.
    """
    model = unwrap(model)
    pruned = pruned_heads(mask, sites)
    heads = {site.name: site.heads for site in sites}
    before = size_of(model)
    cut = _cut(model, pruned, heads) if any(pruned.values()) else None
    if cut is not None:
        return Smaller(*cut, (before, size_of(cut[0])))
    zeroed = copy.deepcopy(model)
    for name, gone in pruned.items():
        _zero(zeroed.get_submodule(name), name, gone, heads[name])
    return Smaller(zeroed, {}, {n: gone for n, gone in pruned.items() if gone}, (before, before))


def pruned_heads(mask: HeadMask, sites: Sequence[ScoredSite]) -> dict[str, list[int]]:
    """Return the numbers of the pruned heads of each module."""
    found: dict[str, list[Tensor]] = defaultdict(list)
    for site in sites:
        keep = mask.keep.get(site.call, torch.ones(1))
        if keep.dim() != 1 or not ((keep == 0) | (keep == 1)).all():
            raise InputError(
                f"The mask of {site.name!r} is {tuple(keep.shape)} numbers; expected one mask for "
                "all samples, of zeros and ones: scores.mask(fraction, tied=True)."
            )
        found[site.name].append(keep.bool().cpu().expand(site.heads))
    for name, calls in found.items():
        if any(not torch.equal(keep, calls[0]) for keep in calls):
            raise InputError(
                f"{name!r} is called {len(calls)} times with one set of weights, and the mask "
                "prunes other heads in each: rank them together, scores.mask(fraction, tied=True)."
            )
    return {name: (~calls[0]).nonzero().flatten().tolist() for name, calls in found.items()}


def size_of(model: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(p.numel() for p in model.parameters())


def _projections(module: nn.Module) -> Projections | None:
    for names in PROJECTIONS:
        if all(isinstance(getattr(module, n, None), nn.Linear) for n in names if n is not None):
            return names
    return None


def _zero(module: nn.Module, name: str, gone: list[int], heads: int) -> None:
    """Let heads attend to values of zero."""
    names = _projections(module)
    fused = getattr(module, FUSED, None)
    if names is not None:
        value = getattr(module, names.value)
        rows = value.out_features
        if rows != getattr(module, names.query).out_features:
            _zero_outputs(module, name, names.output, gone, heads)
            return
    elif isinstance(fused, nn.Linear):
        value, rows = fused, fused.out_features // 3
    else:
        raise MethodNotApplicableError(
            f"The value map of {name!r} ({type(module).__name__}) is not known, so its heads "
            "cannot be pruned for good. xai.prune_heads prunes them while a program runs."
        )
    size = rows // heads
    start = value.out_features - rows
    with torch.no_grad():
        for head in gone:
            part = slice(start + head * size, start + (head + 1) * size)
            value.weight[part] = 0
            if value.bias is not None:
                value.bias[part] = 0


def _zero_outputs(
    module: nn.Module, name: str, output: str | None, gone: list[int], heads: int
) -> None:
    """Leave out what heads give that share their values with others (grouped queries)."""
    if output is None:
        raise MethodNotApplicableError(
            f"The heads of {name!r} share their values and its output map is not known, so "
            "they cannot be pruned for good. xai.prune_heads prunes them while a program runs."
        )
    joined = getattr(module, output)
    size = joined.in_features // heads
    with torch.no_grad():
        for head in gone:
            joined.weight[:, head * size : (head + 1) * size] = 0


def _cut(
    model: nn.Module, pruned: Mapping[str, list[int]], heads: Mapping[str, int]
) -> tuple[nn.Module, dict, dict] | None:
    """Return a model of fewer heads, removed and zeroed ones; None where it cannot be expressed."""
    config = getattr(model, "config", None)
    found = {name: _projections(model.get_submodule(name)) for name in pruned}
    maps = {name: names for name, names in found.items() if names is not None and names.output}
    number = getattr(config, "num_attention_heads", None)
    groups = getattr(config, "num_key_value_heads", None)
    alike = set(heads.values()) == {number} and groups in (None, number)
    if config is None or not alike or len(maps) < len(pruned):
        return None
    width = max(heads[name] - len(gone) for name, gone in pruned.items())
    total = next(iter(heads.values()))
    if width == total:
        return None
    state = {key: value.clone() for key, value in model.state_dict().items()}
    removed, zeroed = {}, {}
    for name, gone in pruned.items():
        # The configuration has one number of heads for all layers; which pruned ones fill it up is
        # all the same, since they are zeroed.
        filling = gone[: width - (total - len(gone))]
        staying = [h for h in range(total) if h not in gone or h in filling]
        removed[name] = [h for h in gone if h not in filling]
        zeroed[name] = filling
        _keep_rows(state, name, maps[name], staying, total, [staying.index(h) for h in filling])
    first, names = next(iter(maps.items()))
    size = getattr(model.get_submodule(first), names.value).out_features // total
    fewer = copy.deepcopy(config)
    fewer.num_attention_heads, fewer.head_dim = width, size
    cut = built(type(model), fewer, state, model)
    return None if cut is None else (cut, _some(removed), _some(zeroed))


def _keep_rows(
    state: dict[str, Tensor],
    name: str,
    maps: Projections,
    staying: list[int],
    total: int,
    filling: list[int],
) -> None:
    for place, part in enumerate(maps):
        weight, bias = f"{name}.{part}.weight", f"{name}.{part}.bias"
        dim = 1 if place == 3 else 0
        for key in (weight, bias) if dim == 0 and bias in state else (weight,):
            blocks = state[key].unflatten(dim, (total, -1)).index_select(dim, torch.tensor(staying))
            if place == 2:
                blocks[filling] = 0
            state[key] = blocks.flatten(dim, dim + 1)


def built(
    kind: type[nn.Module], config: Any, state: dict[str, Shaped[Tensor, "..."]], like: nn.Module
) -> nn.Module | None:
    """Return a model of this configuration with these weights, None where its shapes are others."""
    try:
        with torch.device("meta"):
            shapes = {k: v.shape for k, v in kind(config).state_dict().items()}
    except (ValueError, TypeError, RuntimeError):
        return None
    if shapes != {k: v.shape for k, v in state.items()}:
        return None
    parameter = next(like.parameters())
    with torch.random.fork_rng(devices=[]):
        built = kind(config).to(parameter.device, parameter.dtype)
    built.load_state_dict(state)
    return built.train(like.training)


def _some(heads: dict[str, list[int]]) -> dict[str, list[int]]:
    return {name: numbers for name, numbers in heads.items() if numbers}
