"""One model and its answers: what works, what is refused with which advice, what fails."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

import xai_lib as xai
from benchmarks.sweep.autograd import Reference
from xai_lib.errors import XAIError
from xai_lib.explainers.registry import all_methods

METHODS: dict[str, dict] = {
    "gradient_x_input": {},
    "integrated_gradients": {"steps": 4},
    "attnlrp": {},
    "transformer_attribution": {},
    "generic_attention": {},
    "rollout": {},
}
QUOTED = re.compile(r"'([a-z_0-9]+)'")


@dataclass
class Answer:
    """One row of the table: what a method said of a model.

    outcome: "works", "refused" by a typed error, "fails" with any other or with a map that is not
    finite, "disagrees" with plain autograd, "not run" where the model itself does not run. advice:
    the methods that a refusal names; tried: "works" where all of them do, else those that do not.
    disagreement: the largest difference to plain autograd, as a part of the largest entry.
    """

    source: str
    model: str
    method: str
    outcome: str
    reason: str = ""
    advice: str = ""
    tried: str = ""
    disagreement: float | None = None


def answers(source: str, name: str, model: nn.Module, inputs: dict) -> Iterator[dict]:
    """Yield a row for each method."""
    redraw(model)
    asked = Asked(model, inputs)
    for method in METHODS:
        yield asdict(asked.row(source, name, method))


def redraw(model: nn.Module) -> None:
    """Move every weight a little, so that nothing stays at an initial zero."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():
            if p.is_floating_point():
                p.add_(torch.randn(p.shape, generator=generator), alpha=0.02)


class Asked:
    """A model under question; what was asked once is remembered."""

    def __init__(self, model: nn.Module, inputs: dict[str, Tensor]):
        self.model, self.inputs = model, inputs
        text = "input_ids" in inputs
        self.given = inputs if text else inputs["pixel_values"]
        with torch.no_grad():
            output = model(**inputs) if text else model(inputs["pixel_values"])
        logits = getattr(output, "logits", output)
        rows = isinstance(logits, Tensor) and logits.dim() == 3
        self.position = {"position": logits.shape[1] - 1} if rows else {}
        self.reference = Reference(model, self.given, **self.position)
        self.known: dict[str, Exception | None] = {}

    def ask(self, method: str):
        """Return the attribution; raise what the library raises."""
        options = METHODS.get(method, {})
        return xai.explain(self.model, self.given, method, **options, **self.position)

    def works(self, method: str) -> bool:
        """Whether a method answers, tried once."""
        if method not in self.known:
            try:
                self.ask(method)
                self.known[method] = None
            except Exception as error:
                self.known[method] = error
        return self.known[method] is None

    def row(self, source: str, name: str, method: str) -> Answer:
        """Ask a method, and try what it advises."""
        answer = Answer(source, name, method, "works")
        try:
            att = self.ask(method)
        except XAIError as error:
            self.known[method] = error
            answer.outcome, answer.reason = "refused", _one_line(error)
            named = set(QUOTED.findall(str(error))) - {method}
            advised = sorted(named & set(all_methods()))
            answer.advice = " ".join(advised)
            failed = [m for m in advised if not self.works(m)]
            answer.tried = " ".join(failed) if failed else "works" if advised else ""
            return answer
        except Exception as error:
            self.known[method] = error
            answer.outcome = "fails"
            answer.reason = _one_line(f"{type(error).__name__}: {error}")
            return answer
        self.known[method] = None
        map_ = att.relevance if att.pixels is None else att.pixels
        if not map_.isfinite().all():
            answer.outcome, answer.reason = "fails", "the map is not finite"
            return answer
        try:
            found = self.reference.disagreement(method, att, METHODS[method])
        except Exception as error:
            answer.reason = _one_line(f"no reference: {type(error).__name__}: {error}")
            return answer
        answer.disagreement = found
        if found is not None and found > self.reference.bound:
            answer.outcome = "disagrees"
        return answer


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:400]
