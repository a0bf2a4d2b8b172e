"""Throughput of pruning curves: all fractions as one batch of masks, over a pass for each."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

import xai_lib as xai
from xai_lib.bench.measure import seconds
from xai_lib.evaluators.pruning import FRACTIONS
from xai_lib.tracing import HeadMask

# How many times as many fractions a second as with one pass each. A goal, not a measurement.
TARGET = 5.0


@dataclass(frozen=True)
class QuestionSetting:
    """One LXMERT with random weights and one question: by default of the published size."""

    name: str = "LXMERT"
    tokens: int = 20
    regions: int = 36
    width: int = 768
    heads: int = 12
    language: int = 9
    vision: int = 5
    cross: int = 5
    features: int = 2048
    dtype: str = "float32"
    device: str = "cpu"

    def build(self) -> tuple[nn.Module, dict[str, Tensor]]:
        """Return the model (frozen, eval) and the inputs of one question, none of them padding."""
        from transformers import LxmertConfig, LxmertForQuestionAnswering

        torch.manual_seed(0)
        config = LxmertConfig(
            hidden_size=self.width,
            num_attention_heads=self.heads,
            intermediate_size=4 * self.width,
            l_layers=self.language,
            r_layers=self.vision,
            x_layers=self.cross,
            visual_feat_dim=self.features,
            num_qa_labels=3129,
        )
        dtype = getattr(torch, self.dtype)
        model = LxmertForQuestionAnswering(config).eval().requires_grad_(False)
        corners = torch.rand(1, self.regions, 2, 2).sort(2).values.flatten(2)
        inputs = {
            "input_ids": torch.randint(1000, config.vocab_size, (1, self.tokens)),
            "attention_mask": torch.ones(1, self.tokens, dtype=torch.long),
            "visual_feats": torch.randn(1, self.regions, self.features, dtype=dtype),
            "visual_pos": corners.to(dtype),
        }
        inputs = {name: value.to(self.device) for name, value in inputs.items()}
        return model.to(self.device, dtype), inputs


SMALL = QuestionSetting("small LXMERT", width=64, heads=4, language=3, vision=2, cross=3)


def throughput(settings: tuple[QuestionSetting, ...], rounds: int) -> pd.DataFrame:
    """Return one row a model: seconds of a sample's ten fractions, three ways, and their ratios.

    plain: ten passes of one question, not masked, the least that a pass for each fraction costs;
    masked: ten passes, each under its fraction's mask; batch: one pass of ten masked rows. Rounds
    time all three next to each other; medians count.
    """
    rows = []
    for setting in settings:
        ways = _ways(setting)
        for call in ways.values():
            call()
        times = [
            {name: seconds(call, setting.device) for name, call in ways.items()}
            for _ in range(rounds)
        ]
        spent = {name: statistics.median(t[name] for t in times) for name in ways}
        ratios = sorted(t["plain"] / t["batch"] for t in times)
        rows.append(
            {
                "model": setting.name,
                "fractions": len(FRACTIONS),
                **{f"{name}_seconds": value for name, value in spent.items()},
                "over_plain": statistics.median(ratios),
                "low": ratios[0],
                "high": ratios[-1],
                "over_masked": statistics.median(t["masked"] / t["batch"] for t in times),
                "target": TARGET,
            }
        )
        print(f"  {setting.name:14s} {rows[-1]['over_plain']:5.1f} x plain passes", flush=True)
    return pd.DataFrame(rows)


def _ways(setting: QuestionSetting) -> dict[str, Callable[[], object]]:
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
    throughput((SMALL, QuestionSetting()), 5)
