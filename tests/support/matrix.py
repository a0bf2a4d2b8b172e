"""One cell of the support matrix: a method tried on a model, found to work or to be refused."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import xai_lib as xai
from xai_lib.errors import XAIError
from xai_lib.explainers.registry import Method, all_methods

FEW = {"steps": 3, "samples": 2}


@dataclass(frozen=True)
class Cell:
    """reason is None where the method works, else the sentence with which it is refused."""

    model: str
    method: str
    reason: str | None

    @property
    def works(self) -> bool:
        return self.reason is None

    @property
    def named(self) -> list[str]:
        """The methods that a refusal names as working, beside the one that it refuses."""
        words = re.findall(r"'(\w+)'", self.reason or "")
        return [w for w in words if w in all_methods() and w != self.method]


@cache
def row(entry) -> tuple[Cell, ...]:
    """Try every method on one model; raises AssertionError where an answer is wrong."""
    with one_thread(), wide():
        model = entry.model()
        eager = entry.model(eager=True) if entry.eager else None
        before = {name: (id(t), t.clone()) for name, t in model.state_dict(keep_vars=True).items()}
        cells = tuple(_cell(entry, model, eager, m) for m in all_methods().values())
        for name, t in model.state_dict(keep_vars=True).items():
            same = id(t) == before[name][0] and torch.equal(t, before[name][1])
            assert same, f"{entry.name}: {name} was changed"
        return cells


def matrix(entries) -> list[Cell]:
    """Return all cells of `entries`, model by model."""
    return [cell for entry in entries for cell in row(entry)]


def _cell(entry, model: nn.Module, eager: nn.Module | None, method: Method) -> Cell:
    try:
        att = explain(entry, model, entry.batch(), method.name)
    except XAIError as error:
        return Cell(entry.name, method.name, str(error))
    where = f"{method.name} on {entry.name}"
    relevance = att.relevance
    entry.check(att, where)
    assert relevance.isfinite().all(), f"{where}: not finite"
    samples = [explain(entry, model, s, method.name).relevance[:, 0] for s in entry.samples()]
    # Grad-CAM is all zero where every head counts against the class, but not for every class.
    varied = [(one.std(-1) > 0).any() for one in samples]
    assert all(varied), f"{where}: the same for every token"
    first, *others = entry.of_one_input(relevance)
    same = all(torch.equal(first, other) for other in others)
    assert same != method.class_specific, f"{where}: class-specific is {not same}"

    by_rules = "relevance" in method.needs
    for batch in entry.batches():
        found = entry.unpadded(explain(entry, model, batch, method.name).relevance, batch)
        error = max(map(deviation, samples, found))
        # The alpha-beta rule divides by sums of one sign, which can be as small as their rounding.
        bound = 1e-4 if method.name == "lrp_alpha_beta" else 1e-6 if by_rules else 1e-9
        assert error < bound, f"{where}: a batch is not its samples ({error:.0e})"
    if eager is not None:
        error = deviation(explain(entry, eager, entry.batch(), method.name).relevance, relevance)
        # They round differently, which LRP's sum rule can amplify; another rule would show as 1.
        assert error < (1e-4 if by_rules else 1e-9), f"{where}: eager is not sdpa ({error:.0e})"
    return Cell(entry.name, method.name, None)


def explain(entry, model: nn.Module, inputs, method: str):
    """Explain the classes that the entry asks for, with few steps."""
    return xai.explain(model, inputs, method, **entry.asked, **few(method))


def few(method: str) -> dict[str, int]:
    """Return options that let a method take few steps, where it takes any."""
    return {name: FEW[name] for name in FEW if name in all_methods()[method].options}


def deviation(a: Tensor, b: Tensor) -> float:
    """Return the largest difference relative to each sample's largest relevance."""
    scale = b.abs().amax(-1).clamp(min=1e-300)
    return float(((a - b).abs().amax(-1) / scale).max())


@contextmanager
def wide():
    """Let transformers keep float64 in eager attention and norms, which it rounds to float32."""
    softmax, to, single = F.softmax, Tensor.to, Tensor.float

    def wide_softmax(x, dim=None, dtype=None, **rest):
        dtype = None if dtype == torch.float32 and x.dtype == torch.float64 else dtype
        return softmax(x, dim=dim, dtype=dtype, **rest)

    def wide_to(x, *args, **kwargs):
        narrows = torch.float32 in (*args, *kwargs.values()) and x.dtype == torch.float64
        return x if narrows else to(x, *args, **kwargs)

    def wide_single(x, **rest):
        return x if x.dtype == torch.float64 else single(x, **rest)

    wide_softmax.__name__, wide_to.__name__, wide_single.__name__ = "softmax", "to", "float"
    with (
        mock.patch.object(F, "softmax", wide_softmax),
        mock.patch.object(Tensor, "to", wide_to),
        mock.patch.object(Tensor, "float", wide_single),
    ):
        yield


@contextmanager
def one_thread():
    """Models this small are slower on more threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
