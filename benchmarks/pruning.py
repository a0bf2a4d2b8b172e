"""Throughput of pruning curves: all fractions as one batch of masks, over a pass for each."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

import pandas as pd
import torch

import xai_lib as xai
from benchmarks.measure import seconds
from benchmarks.streams import LxmertSetting
from xai_lib.evaluators.pruning import FRACTIONS
from xai_lib.tracing import HeadMask

# How many times as many fractions a second as with one pass each. A goal, not a measurement.
TARGET = 5.0


SMALL = LxmertSetting(width=64, heads=4, layers=(3, 2, 3))


def throughput(settings: Mapping[str, LxmertSetting], rounds: int) -> pd.DataFrame:
    """Return one row a model: seconds of a sample's ten fractions, three ways, and their ratios.

    plain: ten passes of one question, not masked, the least that a pass for each fraction costs;
    masked: ten passes, each under its fraction's mask; batch: one pass of ten masked rows. Rounds
    time all three next to each other; medians count.
    """
    rows = []
    for name, setting in settings.items():
        ways = _ways(setting)
        for call in ways.values():
            call()
        times = [
            {way: seconds(call, setting.device) for way, call in ways.items()}
            for _ in range(rounds)
        ]
        spent = {way: statistics.median(t[way] for t in times) for way in ways}
        ratios = sorted(t["plain"] / t["batch"] for t in times)
        rows.append(
            {
                "model": name,
                "fractions": len(FRACTIONS),
                **{f"{way}_seconds": value for way, value in spent.items()},
                "over_plain": statistics.median(ratios),
                "low": ratios[0],
                "high": ratios[-1],
                "over_masked": statistics.median(t["masked"] / t["batch"] for t in times),
                "target": TARGET,
            }
        )
        print(f"  {name:14s} {rows[-1]['over_plain']:5.1f} x plain passes", flush=True)
    return pd.DataFrame(rows)


def _ways(setting: LxmertSetting) -> dict[str, Callable[[], object]]:
    model, inputs = setting.build()
    scores = xai.head_scores(model, inputs, "grad_x_attention")
    each = [scores.mask(fraction, counts="floor_kept") for fraction in FRACTIONS]
    together: HeadMask = scores.mask(FRACTIONS, counts="floor_kept")
    count = len(FRACTIONS)
    repeated = {n: v.expand(count, *v.shape[1:]).contiguous() for n, v in inputs.items()}

    @torch.no_grad()
    def plain():
        for _ in FRACTIONS:
            model(**inputs)

    @torch.no_grad()
    def masked():
        for mask in each:
            with xai.prune_heads(model, mask):
                model(**inputs)

    @torch.no_grad()
    def batch():
        with xai.prune_heads(model, together):
            model(**repeated)

    return {"plain": plain, "masked": masked, "batch": batch}


if __name__ == "__main__":
    torch.set_num_threads(2)
    throughput({"small LXMERT": SMALL, "LXMERT": LxmertSetting()}, 5)
