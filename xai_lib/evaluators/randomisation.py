"""A copy of a model whose parameters turn random, stage by stage, from the output to the input."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import takewhile
from threading import RLock
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from xai_lib.errors import UnsupportedModelError
from xai_lib.passes.loan import borrowed, unwrap

# "blocks.11", "encoder.layer.3", "encoder.layers.encoder_layer_0": a numbered part of a model.
_NUMBERED = re.compile(r"(?:.*_)?\d+")
_COPIES: WeakKeyDictionary[nn.Module, tuple[int, Cascade]] = WeakKeyDictionary()
_LOCK = RLock()

# What a forward pass takes: pixels (b, c, h, w), or input_ids and their like by keyword.
Inputs = Float[Tensor, "b c h w"] | Mapping[str, Shaped[Tensor, "..."]]


class Cascade:
    """A model's copy and random tensors for all of its parameters; the model is not touched.

    stages: names of its parts in execution order reversed, so from the output to the input; see
    `stages_of`. Random tensors are drawn once, from the seed and the parameter's name alone.
    """

    def __init__(self, model: nn.Module, inputs: Inputs, seed: int = 0):
        try:
            self._model = copy.deepcopy(model).requires_grad_(False)
        except (RuntimeError, TypeError) as error:
            raise UnsupportedModelError(
                f"The model cannot be copied ({error}), and the parameters of the one that was "
                "given are not to be changed. Remove what cannot be copied from its attributes."
            ) from error
        self._model.zero_grad(set_to_none=True)
        stages = stages_of(self._model, inputs)
        self.stages = tuple(reversed(stages))
        self._tensors = {
            stage: [(p, p.data, random_like(p, name, seed)) for name, p in stages[stage].items()]
            for stage in self.stages
        }
        self._state = _state(self._model)
        self._lock = RLock()

    def is_of(self, model: nn.Module) -> bool:
        """Say whether the model is still what was copied, to the bit."""
        # Values, since an edit through `.data` leaves neither a new address nor a new version.
        state = _state(model)
        return state.keys() == self._state.keys() and all(
            (t.dtype, t.device) == (state[name].dtype, state[name].device)
            and torch.equal(t, state[name])
            for name, t in self._state.items()
        )

    @contextmanager
    def randomised(self, depth: int) -> Iterator[nn.Module]:
        """Lend the copy with its first `depth` stages random and the others as in the model."""
        changed = [entry for stage in self.stages[:depth] for entry in self._tensors[stage]]
        with self._lock:
            try:
                for parameter, _, random in changed:
                    parameter.data = random
                yield self._model
            finally:
                for parameter, original, _ in changed:
                    parameter.data = original


def cascade_of(model: nn.Module, inputs: Inputs, seed: int = 0) -> Cascade:
    """Return the model's `Cascade`, made again only where the seed or a value has changed.

    It lives as long as the model does and holds its parameters twice, as they are and random.
    """
    model = unwrap(model)
    with _LOCK:
        known = _COPIES.get(model)
        if known is None or known[0] != seed or not known[1].is_of(model):
            known = seed, Cascade(model, inputs, seed)
            _COPIES[model] = known
        return known[1]


def stages_of(model: nn.Module, inputs: Inputs) -> dict[str, dict[str, nn.Parameter]]:
    """Return the model's parameters by stage, in the order in which a forward pass reaches them.

    A stage is a module that owns parameters (head, norm), or all that a numbered part of the model
    holds (blocks.11); a number that leads to every parameter, as in Sequential(normalise, vit), is
    none. What belongs to a part around other stages, such as the class token and the position
    embedding, is read with the first of those that runs, and counts to it.
    """
    order: dict[str, None] = {}
    handles = [
        module.register_forward_pre_hook(lambda *_, name=name: order.setdefault(name))
        for name, module in model.named_modules()
        if module._parameters
    ]
    try:
        with borrowed(model), torch.no_grad():
            model(**inputs) if isinstance(inputs, Mapping) else model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    owners = {name.rpartition(".")[0] for name, _ in model.named_parameters()}
    parts = zip(*(owner.split(".") for owner in owners), strict=False)
    shared = len([*takewhile(lambda names: len(set(names)) == 1, parts)])
    around = {
        owner
        for owner in owners
        if not _numbered(owner, shared)
        and any(o.startswith(_inside(owner)) for o in owners - {owner})
    }
    called = {name: _stage(name, shared) for name in order if name in owners - around}
    stages: dict[str, dict[str, nn.Parameter]] = {stage: {} for stage in called.values()}
    for name, parameter in model.named_parameters():
        owner = name.rpartition(".")[0]
        own = None if owner in around else _stage(owner, shared)
        stage = own if own in stages else _first_around(owner, called)
        stages[stage][name] = parameter
    return {stage: parameters for stage, parameters in stages.items() if parameters}


def random_like(
    parameter: Float[Tensor, "*shape"], name: str, seed: int = 0
) -> Float[Tensor, "*shape"]:
    """Return normal numbers with the parameter's own mean and standard deviation.

    A constant parameter (biases at 0, one number) has no spread and stays. Drawn on the CPU, so
    that every device gives the same numbers.
    """
    values = parameter.detach().double().cpu()
    drawn = torch.randn(values.shape, generator=generator(seed, name), dtype=torch.float64)
    random = values.mean() + values.std(correction=0) * drawn
    return random.to(parameter.device, parameter.dtype)


def generator(seed: int, name: str | int) -> torch.Generator:
    """Return a generator on the CPU that depends on the seed and the name alone."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def _state(model: nn.Module) -> dict[str, Tensor]:
    tensors = (*model.named_parameters(), *model.named_buffers())
    return {name: tensor.detach() for name, tensor in tensors}


def _numbered(owner: str, shared: int) -> int | None:
    """Return how many parts of a dotted name lead to its first number behind the shared parts."""
    parts = enumerate(owner.split(".")[shared:], shared + 1)
    return next((i for i, part in parts if _NUMBERED.fullmatch(part)), None)


def _stage(owner: str, shared: int) -> str:
    return ".".join(owner.split(".")[: _numbered(owner, shared)])


def _first_around(owner: str, called: dict[str, str]) -> str:
    """Return the stage that runs first in the nearest part of the model around `owner`."""
    parts = owner.split(".")
    around = (".".join(parts[:k]) for k in range(len(parts), -1, -1))
    return next(
        s for part in around for name, s in called.items() if name.startswith(_inside(part))
    )


def _inside(owner: str) -> str:
    return f"{owner}." if owner else ""
