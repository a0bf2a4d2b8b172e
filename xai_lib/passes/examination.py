"""What methods take for granted of a model, measured on the model itself and on its input.

An explanation follows what a model does; where it does something else than was thought, the answer
would be wrong and look right. So every assumption is measured once for a model, a type of numbers
and a shape of inputs: one plain pass and two backward passes over it (`probes`). A method that
needs an assumption which does not hold is refused with what was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from xai_lib.errors import MethodNotApplicableError, UnsupportedModelError, XAIError
from xai_lib.passes.loan import HALF
from xai_lib.passes.probes import Plain, Probe
from xai_lib.streams.layouts import Layout, StreamsLayout
from xai_lib.streams.patches import TokenLayout
from xai_lib.streams.prepare import Inputs

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

MIXED = "they mix before the first attention"

HOLDS, FAILS, OPEN = "holds", "fails", "not measured"

PASS = "the traced pass is the model's pass"
REPEATABLE = "the pass is repeatable"
GRADIENT = "the gradient is the model's gradient"
STAYS = "a token stays at its place from layer to layer"
BEGINS = "a token is made of its own patch or word"

NEEDED_BY = {
    PASS: "all methods",
    REPEATABLE: "all methods",
    GRADIENT: "methods with a gradient at the input",
    STAYS: "methods on attention maps",
    BEGINS: "methods on attention maps",
}


@dataclass(frozen=True)
class Check:
    """One assumption: what was measured, the bound that it was held against, and the verdict.

    measured, bound: in the unit that `unit` names; measured is None where nothing could be.
    """

    assumption: str
    measured: float | None
    bound: float
    verdict: str
    unit: str = "share of the largest"
    detail: str = ""

    @property
    def needed_by(self) -> str:
        """Which methods rest on it."""
        return NEEDED_BY[self.assumption]


@dataclass
class Examination:
    """The assumptions of one model at inputs of one shape; `checks` by assumption.

    Printed, or as the last line of a notebook's cell, it is a table.
    """

    checks: dict[str, Check] = field(default_factory=dict)
    # Of the plain pass, for whatever runs next on the same inputs; dropped afterwards.
    scores: Float[Tensor, "samples classes"] | None = field(default=None, repr=False)
    gradient: Float[Tensor, "samples ..."] | None = field(default=None, repr=False)
    root: Float[Tensor, "samples ..."] | None = field(default=None, repr=False)
    seed: Float[Tensor, "samples classes"] | None = field(default=None, repr=False)
    probe: Probe | None = field(default=None, repr=False)

    @property
    def holds(self) -> bool:
        """Whether no assumption failed."""
        return all(check.verdict != FAILS for check in self.checks.values())

    def to_frame(self):
        """Return the table: assumption, measured, bound, verdict, needed by."""
        import pandas as pd

        rows = [
            {
                "assumption": check.assumption,
                "measured": "" if check.measured is None else f"{check.measured:.2g}",
                "bound": f"{check.bound:.2g}",
                "unit": check.unit,
                "verdict": check.verdict + (f": {check.detail}" if check.detail else ""),
                "needed by": check.needed_by,
            }
            for check in self.checks.values()
        ]
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        return self.to_frame().to_string(index=False)

    def _repr_html_(self) -> str:
        return self.to_frame().to_html(index=False, escape=True)

    def note(self, check: Check) -> Check:
        """Keep a check; one that has failed stays failed."""
        known = self.checks.get(check.assumption)
        if known is None or known.verdict != FAILS:
            self.checks[check.assumption] = check
        return self.checks[check.assumption]

    def numbers(self) -> dict[str, float]:
        """Return what was measured, by assumption."""
        return {
            name: check.measured
            for name, check in self.checks.items()
            if check.measured is not None
        }

    # -- what a method's own pass is held against ------------------------------------------------

    def compare_scores(
        self, logits: Float[Tensor, "rows classes"], again: Callable[[], Tensor]
    ) -> None:
        """Hold the scores of the first traced pass against the plain pass.

        again: makes another plain pass, to tell a trace that errs from a model of chance.
        """
        scores, self.scores = self.scores, None
        if scores is None or scores.shape[1:] != logits.shape[1:] or len(logits) < len(scores):
            return
        traced = self.note(_compared(PASS, logits.detach()[: len(scores)], scores))
        if traced.verdict != FAILS:
            # A pass that came out the same twice, once traced.
            self.note(Check(REPEATABLE, traced.measured, traced.bound, traced.verdict))
            return
        repeated = self.note(_compared(REPEATABLE, again().detach(), scores))
        if repeated.verdict == FAILS:
            raise UnsupportedModelError(
                f"The model gives other scores for the same inputs: they differ by "
                f"{repeated.measured:.2g} of the largest. Something of chance stays on in eval "
                "mode (dropout by a function, masking, shuffled or sampled tokens); switch it off."
            )
        raise UnsupportedModelError(
            f"The intercepted pass gives other scores than the model: they differ by "
            f"{traced.measured:.2g} of the largest, at most {traced.bound:.2g} is rounding. "
            "Something in its forward pass depends on who calls it, so it is not explained."
        )

    def compare_gradient(
        self,
        features: Float[Tensor, "rows ..."],
        gradient: Float[Tensor, "rows ..."],
        seed: Float[Tensor, "rows classes"],
    ) -> None:
        """Hold a traced gradient at the input against plain autograd, for the same seed."""
        expected, root = self.gradient, self.root
        if expected is None or root is None or features.shape[1:] != root.shape[1:]:
            return
        rows = slice(len(root))
        if self.seed is None or not torch.equal(seed[rows].to(self.seed), self.seed):
            return
        self.gradient = self.root = self.seed = None
        if not torch.equal(features.detach()[rows].to(root), root.detach()):
            return
        check = self.note(_compared(GRADIENT, gradient.detach()[rows], expected))
        if check.verdict == FAILS:
            raise MethodNotApplicableError(
                "The intercepted gradient is not that of plain autograd on the model: they differ "
                f"by {check.measured:.2g} of the largest, at most {check.bound:.2g} is rounding."
            )

    def require_tokens(self, layout: Layout | StreamsLayout) -> None:
        """Refuse token maps where tokens were seen to mix or move; layout: where they lie."""
        stays = self.checks.get(STAYS)
        if stays is not None and stays.verdict == FAILS:
            raise MethodNotApplicableError(
                f"In this model tokens mix or move outside its attention ({stays.detail}: "
                f"{stays.measured:.2g} of the largest gradient lies at other tokens, 0 was "
                "expected), so no attention map tells which token is which"
            )
        begins = self.checks.get(BEGINS) or self._begins(layout)
        if begins is not None and begins.verdict == FAILS:
            raise MethodNotApplicableError(
                "The tokens of this model are not made of the patches or words at their places "
                f"({begins.detail}), so no attention map tells which token is which"
            )

    def _begins(self, layout: Layout | StreamsLayout) -> Check | None:
        probe, self.probe = self.probe, None
        if isinstance(layout, StreamsLayout) and len(layout.parts) == 1:
            layout = layout.only
        if probe is None or probe.at_root is None or not isinstance(layout, TokenLayout):
            return None
        return self.note(_at_patches(probe, layout))


_KNOWN: WeakKeyDictionary[nn.Module, dict[Hashable, Examination]] = WeakKeyDictionary()


def examined(model: nn.Module, inputs: Inputs) -> Examination:
    """Return the examination of a borrowed model at such inputs, made at the first call.

    One that failed is made again: the model may have been mended since.
    """
    known = _KNOWN.setdefault(model, {})
    key = _key(model, inputs)
    if key not in known or not known[key].holds:
        known[key] = _examine(model, inputs)
    return known[key]


def fully_examined(model: nn.Module, inputs: Inputs) -> Examination:
    """Return an examination in which every check is made, by a traced pass of its own."""
    found = _examine(model, inputs)
    return found


def _key(model: nn.Module, inputs: Inputs) -> Hashable:
    shapes = sorted(
        (name, tuple(x.shape), str(x.dtype))
        for name, x in inputs.everything.items()
        if isinstance(x, Tensor)
    )
    own = [str(s.data.dtype) + str(tuple(s.data.shape)) for s in inputs.streams]
    weights = next((str(p.dtype) for p in model.parameters()), "")
    return (weights, inputs.position, inputs.output, *own, *shapes)


def _examine(model: nn.Module, inputs: Inputs) -> Examination:
    try:
        plain = Plain.of(model, inputs)
    except XAIError:
        raise
    except Exception:
        # What the model itself refuses is told by the pass that is asked for.
        return Examination()
    found = Examination(scores=plain.scores.detach())
    if plain.root is None or not plain.scores.requires_grad:
        return found
    top = plain.scores.detach().argmax(1, keepdim=True)
    seed = torch.zeros_like(plain.scores).scatter_(1, top, 1.0)
    try:
        found.gradient = plain.gradient(seed)
        found.probe = plain.probe()
    except RuntimeError:
        # Plain autograd does not get through this model; nothing was measured.
        return found
    found.root, found.seed = plain.root.detach(), seed
    if found.probe is not None:
        found.note(_stays(found.probe))
        words = found.probe.at_words()
        if words is not None and inputs.focus is not None and inputs.focus.embeds:
            found.note(_verdict(BEGINS, words, LEAK, MIXED))
    return found


def _bound(x: Tensor) -> float:
    return CLOSE_IN_HALF if x.dtype in HALF else CLOSE.get(x.dtype, CLOSE[torch.float32])


def _compared(assumption: str, found: Tensor, expected: Tensor) -> Check:
    a, b = found.double(), expected.double().to(found.device)
    size = float(b.abs().max())
    apart = float((a - b).abs().max())
    share = apart / size if size > 0 else (0.0 if apart == 0 else float("inf"))
    # Scores that are no number are told of by whoever runs the pass.
    measured = share if share == share else None
    return _verdict(assumption, measured, _bound(expected), "")


def _verdict(assumption: str, measured: float | None, bound: float, detail: str) -> Check:
    if measured is None:
        return Check(assumption, None, bound, OPEN)
    fails = measured > bound
    verdict = FAILS if fails else HOLDS
    return Check(assumption, measured, bound, verdict, detail=detail if fails else "")


def _stays(probe: Probe) -> Check:
    if not probe.leaks:
        return Check(STAYS, None, LEAK, OPEN)
    number, worst = max(probe.leaks.items(), key=lambda item: item[1])
    return _verdict(STAYS, worst, LEAK, f"after attention call {number + 1}")


def _at_patches(probe: Probe, layout: TokenLayout) -> Check:
    """Whether the pixels that the chosen tokens depend on are those of their own patches."""
    bound = LEAK
    if layout.grid is None or probe.at_root is None or probe.at_root.dim() != 4:
        return Check(BEGINS, None, bound, OPEN)
    rows, columns = layout.grid
    count = rows * columns
    # Where the class token joins only later, the first attention has no prefix.
    start = layout.prefix if probe.tokens == layout.tokens else 0
    if probe.tokens not in (layout.tokens, count):
        return Check(BEGINS, None, bound, OPEN)
    chosen = probe.chosen[start : start + count]
    energy = probe.at_root.double().square().sum((0, 1)).cpu()
    cells = layout.patch_sums(energy)[layout.patches]
    if not 0 < int(chosen.sum()) < count or not energy.sum() > 0:
        return Check(BEGINS, None, bound, OPEN)
    outside = float(energy.sum() - cells[chosen].sum()) / float(energy.sum())
    if probe.at_patches is not None and probe.at_patches.shape[-2:] == (rows, columns):
        # A convolution may look at its neighbours; between it and the tokens nothing may.
        at = probe.at_patches.double().abs().amax((0, 1)).flatten().cpu()
        mixed = float(at[~chosen].max()) / float(at.max()) if at.max() > 0 else 0.0
        if mixed > bound:
            return Check(BEGINS, mixed, bound, FAILS, detail=MIXED)
    elif outside > bound:
        return Check(BEGINS, outside, bound, FAILS, DEPENDENCE, "others' pixels count")
    if outside <= bound:
        return Check(BEGINS, max(outside, 0.0), bound, HOLDS, DEPENDENCE)
    here, elsewhere = _correlations(chosen.double(), cells.sqrt(), rows, columns)
    ahead = here - elsewhere
    verdict = HOLDS if ahead > AHEAD else FAILS
    detail = "each sees more than its patch" if verdict == HOLDS else "others' pixels weigh more"
    return Check(BEGINS, outside, bound, verdict, DEPENDENCE, detail)


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
