"""What the examination of a model adds to its first explanation, and what complete sums cost."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import torch

import xai_lib as xai
from benchmarks import measure
from benchmarks.measure import Setting
from xai_lib.explainers.gradients import DOUBLED
from xai_lib.passes.examining import forget

METHODS = ("rollout", "generic_attention", "attnlrp")
# captum's default number of steps.
FIXED = 50


def ratios(base: Setting, rounds: int, batches=(1, 8)) -> pd.DataFrame:
    """Return the ratios to B of a first call, a later one, and one that checks nothing."""
    rows = []
    for batch in batches:
        setting = replace(base, batch=batch)
        for method in METHODS:
            row = {"method": method, "batch": batch}
            for name, make in _calls(method).items():
                row[name] = measure.ratio(setting, make, rounds)["ratio"]
            rows.append(row)
            print(f"  {method:24s} batch {batch:3d}  {row['first']:6.2f} B", flush=True)
    return pd.DataFrame(rows)


def _calls(method: str) -> dict:
    def first(model, pixels):
        def call():
            forget(model)
            return xai.explain(model, pixels, method)

        return call

    return {
        "first": first,
        "later": lambda m, x: lambda: xai.explain(m, x, method),
        "unchecked": lambda m, x: lambda: xai.explain(m, x, method, check=False),
    }


def completeness(base: Setting) -> pd.DataFrame:
    """Return how complete integrated gradients are, and the gradients taken for it."""
    model, pixels = replace(base, batch=1).build()
    auto = xai.explain(model, pixels, "integrated_gradients", steps="auto")
    tried, rows = 0, []
    for steps in DOUBLED:
        tried += steps
        found = xai.explain(model, pixels, "integrated_gradients", steps=steps)
        if found.checks["completeness"] <= auto.checks["completeness"]:
            break
    rows.append({"rule": "steps='auto'", "gradients": tried, **auto.checks})
    fixed = xai.explain(model, pixels, "integrated_gradients", steps=FIXED)
    rows.append({"rule": f"steps={FIXED}", "gradients": FIXED, **fixed.checks})
    try:
        rows.append(_captum(model, pixels, int(auto.target)))
    except ImportError:
        print("  captum is not installed: its row is left out")
    kept = ["rule", "gradients", "completeness"]
    return pd.DataFrame(rows)[kept]


def _captum(model, pixels, target: int) -> dict:
    from captum.attr import IntegratedGradients

    options = {"n_steps": FIXED, "internal_batch_size": 8, "return_convergence_delta": True}
    _, delta = IntegratedGradients(model).attribute(pixels, target=target, **options)
    with torch.no_grad():
        gained = (model(pixels) - model(torch.zeros_like(pixels)))[0, target]
    apart = float((delta / gained).abs())
    return {"rule": "captum, its default", "gradients": FIXED, "completeness": apart}
