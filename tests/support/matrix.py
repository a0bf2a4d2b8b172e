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
from support.catalogue import CATALOGUE, CLASSES, Entry
from xai_lib.errors import XAIError
from xai_lib.registry import Method, all_methods

FEW_STEPS = {
    "integrated_gradients": {"steps": 3},
    "smoothgrad": {"samples": 2},
    "bi_head": {"steps": 3},
    "bi_token": {"steps": 3},
}
TARGETS = list(range(CLASSES))


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
        """The methods that a refusal names as working."""
        return [w for w in re.findall(r"'(\w+)'", self.reason or "") if w in all_methods()]


@cache
def row(entry: Entry) -> tuple[Cell, ...]:
    """Try every method on one model; raises AssertionError where an answer is wrong."""
    with _one_thread():
        model = entry.model()
        eager = entry.model(eager=True) if entry.eager else None
        return tuple(_cell(entry, model, eager, m) for m in all_methods().values())


def matrix() -> list[Cell]:
    """Return all cells, model by model."""
    return [cell for entry in CATALOGUE for cell in row(entry)]


def _cell(entry: Entry, model: nn.Module, eager: nn.Module | None, method: Method) -> Cell:
    pixels = entry.pixels()
    try:
        att = _explain(entry, model, pixels, method.name)
    except XAIError as error:
        return Cell(entry.name, method.name, str(error))
    where = f"{method.name} on {entry.name}"
    relevance = att.relevance
    assert relevance.shape == (CLASSES, 3, entry.tokens), f"{where}: shape {tuple(relevance.shape)}"
    assert att.content.shape == (3, entry.tokens), f"{where}: content {tuple(att.content.shape)}"
    assert int(att.content[0].sum()) == entry.grid[0] * entry.grid[1], f"{where}: prefix"
    assert att.grid == entry.grid, f"{where}: grid {att.grid}"
    assert relevance.isfinite().all(), f"{where}: not finite"
    # Grad-CAM is all zero where every head counts against the class, but not for every class.
    varied = (relevance.std(-1) > 0).any(0)
    assert varied.all(), f"{where}: the same for every token"
    same = all(torch.equal(relevance[0], other) for other in relevance[1:])
    assert same != method.class_specific, f"{where}: class-specific is {not same}"

    by_rules = "relevance" in method.needs
    samples = [_explain(entry, model, pixels[i : i + 1], method.name).relevance for i in range(3)]
    error = _deviation(torch.cat(samples, 1), relevance)
    assert error < (1e-6 if by_rules else 1e-9), (
        f"{where}: a batch is not its samples ({error:.0e})"
    )
    if eager is not None:
        with _wide_softmax():
            other = _explain(entry, eager, pixels, method.name).relevance
        error = _deviation(other, relevance)
        # They round differently, which LRP's sum rule can amplify; another rule would show as 1.
        assert error < (1e-4 if by_rules else 1e-9), f"{where}: eager is not sdpa ({error:.0e})"
    return Cell(entry.name, method.name, None)


def _explain(entry: Entry, model: nn.Module, pixels: Tensor, method: str):
    inputs = {"pixel_values": pixels} if entry.name.startswith("HF") else pixels
    return xai.explain(model, inputs, method, targets=TARGETS, **FEW_STEPS.get(method, {}))


def _deviation(a: Tensor, b: Tensor) -> float:
    """Return the largest difference relative to each sample's largest relevance."""
    scale = b.abs().amax(-1).clamp(min=1e-300)
    return float(((a - b).abs().amax(-1) / scale).max())


@contextmanager
def _wide_softmax():
    """Let eager attention of transformers, which rounds its softmax to float32, keep float64."""
    softmax = F.softmax

    def wide(x, dim=None, dtype=None, **rest):
        dtype = None if dtype == torch.float32 and x.dtype == torch.float64 else dtype
        return softmax(x, dim=dim, dtype=dtype, **rest)

    wide.__name__ = "softmax"
    with mock.patch.object(F, "softmax", wide):
        yield


@contextmanager
def _one_thread():
    """Models this small are slower on more threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
