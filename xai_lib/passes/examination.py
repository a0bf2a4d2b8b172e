"""What methods take for granted of a model, measured on the model itself and on its input.

An explanation follows what a model does; where it does something else than was thought, the answer
would be wrong and look right. So every assumption is measured once for a model, a type of numbers
and a shape of inputs (`examining`). A method that needs an assumption which does not hold is
refused with what was measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from xai_lib.errors import MethodNotApplicableError, UnsupportedModelError
from xai_lib.passes.probes import Probe
from xai_lib.passes.verdicts import (
    BEGINS,
    GRADIENT,
    PADDING,
    PASS,
    REPEATS,
    STAYS,
    Check,
    begins,
    compared,
)
from xai_lib.streams.layouts import Layout, StreamsLayout
from xai_lib.streams.patches import TokenLayout

if TYPE_CHECKING:
    import pandas

# From what all methods need to what some do.
ORDER = tuple(a.name for a in (PASS, REPEATS, GRADIENT, BEGINS, STAYS, PADDING))


@dataclass
class Examination:
    """The assumptions of one model at inputs of one shape: a `Check` for each, by its short name.

    Printed, or as the last line of a notebook's cell, it is a table.
    """

    checks: dict[str, Check] = field(default_factory=dict)
    # Of the plain pass, for whatever runs next on the same inputs; dropped afterwards.
    scores: Float[Tensor, "samples classes"] | None = field(default=None, repr=False)
    gradient: Float[Tensor, "samples ..."] | None = field(default=None, repr=False)
    root: Float[Tensor, "samples ..."] | None = field(default=None, repr=False)
    seed: Float[Tensor, "samples classes"] | None = field(default=None, repr=False)
    probe: Probe | None = field(default=None, repr=False)
    # Whether a method that takes a gradient at the input could be held against it.
    witnessed: bool = field(default=False, repr=False)

    @property
    def holds(self) -> bool:
        """Whether no assumption failed."""
        return all(not check.fails for check in self.checks.values())

    def to_frame(self) -> pandas.DataFrame:
        """Return the table: assumption, measured, bound, verdict, needed by."""
        import pandas as pd

        rows = [
            {
                "assumption": check.assumption.sentence,
                "measured": "" if check.measured is None else f"{check.measured:.2g}",
                "bound": f"{check.bound:.2g}",
                "unit": check.unit,
                "verdict": check.verdict + (f": {check.detail}" if check.detail else ""),
                "needed by": check.assumption.needed_by,
            }
            for name in ORDER
            if (check := self.checks.get(name)) is not None
        ]
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        return self.to_frame().to_string(index=False)

    def _repr_html_(self) -> str:
        return self.to_frame().to_html(index=False, escape=True)

    def close(self) -> None:
        """Let go of what the plain pass gave, once an explanation has been held against it."""
        self.scores = self.gradient = self.root = self.seed = None

    def note(self, check: Check) -> Check:
        """Keep a check; one that has failed stays failed."""
        known = self.checks.get(check.assumption.name)
        if known is None or not known.fails:
            self.checks[check.assumption.name] = check
        return self.checks[check.assumption.name]

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
        if scores is None or scores.shape[1:] != logits.shape[1:]:
            return
        count = min(len(scores), len(logits))
        traced = self.note(compared(PASS, logits.detach()[:count], scores[:count]))
        if not traced.fails:
            # A pass that came out the same twice, once traced.
            self.note(Check(REPEATS, traced.measured, traced.bound, traced.verdict))
            return
        repeated = self.note(compared(REPEATS, again().detach(), scores))
        if repeated.fails:
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
        rows = slice(min(len(root), len(features)))
        if self.seed is None or not torch.equal(seed[rows].to(self.seed), self.seed[rows]):
            return
        self.gradient = self.root = self.seed = None
        if not torch.equal(features.detach()[rows].to(root), root.detach()[rows]):
            return
        check = self.note(compared(GRADIENT, gradient.detach()[rows], expected[rows]))
        if check.fails:
            raise MethodNotApplicableError(
                "The intercepted gradient is not that of plain autograd on the model: they differ "
                f"by {check.measured:.2g} of the largest, at most {check.bound:.2g} is rounding."
            )

    def require_tokens(self, layout: Layout | StreamsLayout) -> None:
        """Refuse token maps where tokens were seen to mix or move; layout: where they lie."""
        stays = self.checks.get(STAYS.name)
        if stays is not None and stays.fails:
            raise MethodNotApplicableError(
                f"In this model tokens mix or move outside its attention ({stays.detail}: "
                f"{stays.measured:.2g} of the largest gradient lies at other tokens, 0 was "
                "expected), so no attention map tells which token is which"
            )
        begins = self.checks.get(BEGINS.name) or self._begins(layout)
        if begins is not None and begins.fails:
            raise MethodNotApplicableError(
                "The tokens of this model are not made of the patches or words at their places "
                f"({begins.detail}), so no attention map tells which token is which"
            )

    def _begins(self, layout: Layout | StreamsLayout) -> Check | None:
        probe, self.probe = self.probe, None
        if probe is None or probe.at_root is None or not isinstance(layout, TokenLayout):
            return None
        return self.note(begins(probe, layout))
