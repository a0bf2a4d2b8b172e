"""The answers that plain autograd gives on the untouched model, to hold the library's against."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

import xai_lib as xai
from xai_lib.explainers.output import Output
from xai_lib.explainers.registry import explainer
from xai_lib.explainers.signs import DIRECTION

WATCHER = "sweep_features"
_SEEN: list[Tensor] = []


@explainer(WATCHER, family="gradient", cite="simonyan2014", sign=DIRECTION, streams="apart")
def watch(call) -> Output:
    """Keep what the library takes for the features of a text: no explanation."""
    run = call.forward(at_input=True, graph="as_is", keep=False)
    _SEEN.append(run.taken.detach())
    return Output.at_input(call, run.taken.detach().sum(call.channel)[None])


class Reference:
    """Gradient times input and integrated gradients by autograd alone.

    Of a text the input are the features that the library takes; they are put in the place of the
    first tensor with their values that goes into or out of one of the model's modules.
    """

    # Of the largest entry, in float32.
    bound = 1e-3

    def __init__(self, model: nn.Module, given, position: int | None = None):
        self.model, self.given, self.position = model, given, position

    def disagreement(self, method: str, att, options: dict) -> float | None:
        """Return max |ours - autograd's| / max |autograd's|, None for methods without reference."""
        if method not in ("gradient_x_input", "integrated_gradients"):
            return None
        target = int(att.target[0])
        if isinstance(self.given, Tensor):
            x, run, ours = self.given, self.model, att.pixels
            dim = 1
        else:
            x, place = self._features()
            ours, dim = att.relevance, -1

            def run(features: Tensor):
                return _run_on(self.model, self.given, place, features)

        theirs = self._answer(run, x, target, dim, method, options)
        largest = float(theirs.abs().max())
        if not np.isfinite(largest):
            return None
        apart = float((ours - theirs).abs().max()) / max(largest, 1e-12)
        if apart > self.bound and isinstance(self.given, Tensor):
            # Of some models float32 leaves little: then float64 says who is nearer.
            wide = copy.deepcopy(self.model).double()
            exact = self._answer(wide, x.double(), target, dim, method, options)
            noise, error = ((y - exact).abs().max() / largest for y in (theirs, ours))
            return min(apart, float(error - 3 * noise)) if error > noise else 0.0
        return apart

    def _answer(self, run: Callable, x: Tensor, target: int, dim: int, method: str, options: dict):
        """Return what a method's definition gives, by autograd alone."""
        if method == "gradient_x_input":
            return (self._gradient(run, x, target) * x).sum(dim)
        nodes, weights = np.polynomial.legendre.leggauss(options["steps"])
        total = torch.zeros_like(x)
        for node, weight in zip(nodes, weights, strict=True):
            total += self._gradient(run, x * float((node + 1) / 2), target) * float(weight / 2)
        return (total * x).sum(dim)

    def _gradient(self, run: Callable, x: Tensor, target: int) -> Tensor:
        leaf = x.detach().clone().requires_grad_()
        output = run(leaf)
        logits = getattr(output, "logits", output)
        logits = logits[0] if isinstance(logits, tuple) else logits
        logits = logits if self.position is None else logits[:, self.position]
        return torch.autograd.grad(logits[:, target].sum(), leaf)[0]

    def _features(self) -> tuple[Tensor, tuple[nn.Module, str]]:
        """Return what the library takes for the words, and where the model has it.

        Raises ValueError where words mix before that: another word must change its own row alone.
        """
        seen = [self._watched(self.given)]
        ids = self.given["input_ids"]
        for number in (5, 6):
            other = ids.clone()
            other[:, 3] = number
            seen.append(self._watched(self.given | {"input_ids": other}))
        rows = (seen[1] - seen[2]).abs().amax((0, 2))
        rows[3] = 0
        if float(rows.max()) > 1e-5:
            raise ValueError("the features of a word depend on other words")
        place = _place_of(self.model, self.given, seen[0])
        if place is None:
            raise ValueError("no module takes or gives the features")
        return seen[0], place

    def _watched(self, given: dict) -> Tensor:
        _SEEN.clear()
        options = {} if self.position is None else {"position": self.position}
        xai.explain(self.model, given, WATCHER, **options)
        return _SEEN[-1]


def _place_of(model: nn.Module, given: dict, x: Tensor) -> tuple[nn.Module, str] | None:
    """Return the first module with x among its inputs or as its output, and which of both."""
    found: list[tuple[nn.Module, str]] = []

    def equal(y) -> bool:
        return isinstance(y, Tensor) and y.shape == x.shape and torch.allclose(y, x, atol=1e-6)

    def before(module, args, kwargs):
        if any(map(equal, (*args, *kwargs.values()))):
            found.append((module, "input"))

    def after(module, args, output):
        if equal(output):
            found.append((module, "output"))

    handles = []
    for module in model.modules():
        handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(module.register_forward_hook(after))
    try:
        with torch.no_grad():
            model(**given)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def _run_on(model: nn.Module, given: dict, place: tuple[nn.Module, str], features: Tensor):
    module, side = place
    done: list[bool] = []

    def exchanged(y):
        same = isinstance(y, Tensor) and y.shape == features.shape and y.is_floating_point()
        return features if same else y

    def before(module, args, kwargs):
        if done:
            return None
        done.append(True)
        return tuple(map(exchanged, args)), {k: exchanged(v) for k, v in kwargs.items()}

    def after(module, args, output):
        if done:
            return output
        done.append(True)
        return exchanged(output)

    if side == "input":
        handle = module.register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = module.register_forward_hook(after)
    try:
        return model(**given)
    finally:
        handle.remove()
