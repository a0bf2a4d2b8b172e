"""Verdicts: what was measured of an assumption, held against the bound that rounding allows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from xai_lib.passes.loan import HALF
from xai_lib.passes.probes import Probe
from xai_lib.streams.patches import TokenLayout

# How far scores and gradients of two passes may lie apart, as a share of the largest: kernels sum
# in other orders.
CLOSE = {torch.float64: 1e-6, torch.float32: 5e-3}
CLOSE_IN_HALF = 0.1
# What is exactly zero where tokens do not mix; left for kernels that do not compute zero as zero.
LEAK = 1e-5
# Stacked convolutions let each patch see its neighbours' pixels. Then those at its own place must
# weigh more than those at other places, by this much of a correlation.
AHEAD = 0.02

# The unit of a check of what tokens are made of.
DEPENDENCE = "share of what the chosen tokens depend on"

MIXED = "they mix outside its attention"

HOLDS, FAILS, OPEN = "holds", "fails", "not measured"


@dataclass(frozen=True)
class Assumption:
    """What methods take for granted: its short name, the sentence, and which methods need it."""

    name: str
    sentence: str
    needed_by: str


PASS = Assumption("pass", "the traced pass is the model's pass", "all methods")
REPEATS = Assumption("repeats", "the pass is repeatable", "all methods")
GRADIENT = Assumption(
    "gradient", "the gradient is the model's gradient", "methods with a gradient at the input"
)
STAYS = Assumption(
    "tokens", "a token stays at its place from layer to layer", "methods on attention maps"
)
BEGINS = Assumption(
    "input", "a token is made of its own patch or word", "methods on attention maps"
)
PADDING = Assumption("padding", "padding says nothing", "texts of several lengths in one batch")


@dataclass(frozen=True)
class Check:
    """One assumption: what was measured, the bound that it was held against, and the verdict.

    measured, bound: in the unit that `unit` names; measured is None where nothing could be.
    """

    assumption: Assumption
    measured: float | None
    bound: float
    verdict: str
    unit: str = "share of the largest"
    detail: str = ""

    @property
    def fails(self) -> bool:
        """Whether the assumption was found not to hold."""
        return self.verdict == FAILS


def bound_of(x: Float[Tensor, "..."]) -> float:
    """Return how far two passes in numbers of this type may lie apart."""
    return CLOSE_IN_HALF if x.dtype in HALF else CLOSE.get(x.dtype, CLOSE[torch.float32])


def compared(
    assumption: Assumption, found: Float[Tensor, "..."], expected: Float[Tensor, "..."]
) -> Check:
    """Return the verdict on two tensors that should be the same but for rounding."""
    a, b = found.double(), expected.double().to(found.device)
    size = float(b.abs().max())
    apart = float((a - b).abs().max())
    share = apart / size if size > 0 else (0.0 if apart == 0 else float("inf"))
    # Scores that are no number are told of by whoever runs the pass.
    measured = share if share == share else None
    return verdict(assumption, measured, bound_of(expected), "")


def verdict(assumption: Assumption, measured: float | None, bound: float, detail: str) -> Check:
    """Return the verdict on a number that should be at most `bound`."""
    if measured is None:
        return Check(assumption, None, bound, OPEN)
    fails = measured > bound
    said = FAILS if fails else HOLDS
    return Check(assumption, measured, bound, said, detail=detail if fails else "")


def stays(probe: Probe) -> Check:
    """Whether nothing reached other tokens between attention calls, and after the last."""
    if not probe.leaks:
        return Check(STAYS, None, LEAK, OPEN)
    number, worst = max(probe.leaks.items(), key=lambda item: item[1])
    return verdict(STAYS, worst, LEAK, f"after attention call {number + 1}")


def begins(probe: Probe, layout: TokenLayout) -> Check:
    """Whether the pixels that the chosen tokens depend on are those of their own patches."""
    bound = LEAK
    if layout.grid is None:
        return _in_some_order(probe)
    if probe.at_root is None or probe.at_root.dim() != 4:
        return Check(BEGINS, None, bound, OPEN)
    rows, columns = layout.grid
    count = rows * columns
    # Where the class token joins only later, the first attention has no prefix.
    start = layout.prefix if probe.tokens == layout.tokens else 0
    if probe.tokens not in (layout.tokens, count):
        return Check(BEGINS, None, bound, OPEN)
    # Of the sample whose first token sent nothing back.
    chosen = probe.chosen[0, start : start + count]
    energy = probe.at_root[0].double().square().sum(0).cpu()
    cells = layout.patch_sums(energy)[layout.patches]
    if not 0 < int(chosen.sum()) < count or not energy.sum() > 0:
        return Check(BEGINS, None, bound, OPEN)
    outside = float(energy.sum() - cells[chosen].sum()) / float(energy.sum())
    if probe.at_patches is not None and probe.at_patches.shape[-2:] == (rows, columns):
        # A convolution may look at its neighbours; between it and the tokens nothing may.
        at = probe.at_patches[0].double().abs().amax(0).flatten().cpu()
        mixed = float(at[~chosen].max()) / float(at.max()) if at.max() > 0 else 0.0
        if mixed > bound:
            return Check(BEGINS, mixed, bound, FAILS, detail=MIXED)
    elif outside > bound:
        return Check(BEGINS, outside, bound, FAILS, DEPENDENCE, "others' pixels count")
    if outside <= bound:
        return Check(BEGINS, max(outside, 0.0), bound, HOLDS, DEPENDENCE)
    here, elsewhere = _correlations(chosen.double(), cells.sqrt(), rows, columns)
    ahead = here - elsewhere
    said = HOLDS if ahead > AHEAD else FAILS
    detail = "each sees more than its patch" if said == HOLDS else "others' pixels weigh more"
    return Check(BEGINS, outside, bound, said, DEPENDENCE, detail)


def _in_some_order(probe: Probe) -> Check:
    """Whether patches of which no place in the image is known are still in their own order."""
    at = None if probe.at_patches is None else probe.at_patches[0].abs().amax(0).flatten().cpu()
    if at is None or at.numel() > probe.tokens or not at.max() > 0:
        return Check(BEGINS, None, LEAK, OPEN)
    others = [
        float(at[~probe.chosen[0, start : start + len(at)]].amax()) / float(at.max())
        for start in range(probe.tokens - len(at) + 1)
    ]
    return verdict(BEGINS, min(others), LEAK, "they are in another order, or mixed")


def _correlations(chosen: Tensor, cells: Tensor, rows: int, columns: int) -> tuple[float, float]:
    """Return how far the cells follow the chosen tokens at their places, and at others at best."""
    chosen, cells = (x - x.mean() for x in (chosen, cells))
    norm = float(chosen.norm() * cells.norm()) or 1.0

    def at(*orders: Tensor) -> Iterator[float]:
        for order in orders:
            yield float(order @ cells) / norm

    grid = chosen.view(rows, columns)
    others = [chosen.roll(n) for n in (-3, -2, -1, 1, 2, 3, columns, -columns)]
    others += [grid.flip(0).flatten(), grid.flip(1).flatten(), grid.flip((0, 1)).flatten()]
    if rows == columns:
        others.append(grid.t().flatten())
    return next(at(chosen)), max(0.0, *at(*others))
