"""Evaluation at scale: throughput of the perturbation stream, and memory over a long run."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from benchmarks.measure import Setting, seconds
from xai_lib.evaluators import Subject
from xai_lib.evaluators.maps import ranks
from xai_lib.evaluators.packing import PixelEdits, packed
from xai_lib.models import Processor
from xai_lib.runs import Run

# Throughput of edited images over that of plain forward passes at the same batch size.
STREAM_TARGET = 0.9
STEPS = tuple(range(1, 10))
MEMORY_SAMPLES = 10_000


def throughput(base: Setting, rounds: int, batches=(1, 8)) -> pd.DataFrame:
    """Return the perturbation stream's images per second over those of plain forward passes.

    Per batch size: one batch of images, perturbed in nine steps in both orders, ranking included,
    against as many plain forward passes without a gradient. The median of the rounds counts.
    """
    rows = []
    for batch in batches:
        setting = replace(base, batch=batch)
        model, pixels = setting.build()
        plain, perturbed, count = _pair(model, pixels, setting)
        plain(), perturbed()
        pairs = [
            (seconds(plain, setting.device), seconds(perturbed, setting.device))
            for _ in range(rounds)
        ]
        ratios = sorted(p / s for p, s in pairs)
        rows.append(
            {
                "batch": batch,
                "stream over plain": statistics.median(ratios),
                "low": ratios[0],
                "high": ratios[-1],
                "target": STREAM_TARGET,
                "images_per_second": count / statistics.median(s for _, s in pairs),
            }
        )
        print(f"  batch {batch:3d}  {rows[-1]['stream over plain']:.3f}", flush=True)
    return pd.DataFrame(rows)


def _pair(model: nn.Module, pixels: torch.Tensor, setting: Setting) -> tuple[Callable, ...]:
    size = (setting.image, setting.image)
    subject = Subject(model, Processor(size, (0.5,) * 3, (0.5,) * 3), setting.batch)
    draw = torch.Generator().manual_seed(0)
    maps = torch.rand(setting.batch, *size, generator=draw, dtype=torch.float64).to(pixels.device)
    counts = torch.tensor([step * setting.image**2 // 10 for step in STEPS], device=pixels.device)
    black = -torch.ones(3, 1, 1, device=pixels.device, dtype=pixels.dtype)
    passes = 2 * len(STEPS)

    @torch.inference_mode()
    def plain():
        for _ in range(passes):
            model(pixels)

    def perturbed():
        edits = (
            PixelEdits(image, rank, counts, black, [(flag, place, step) for step in STEPS])
            for flag in (False, True)
            for place, (image, rank) in enumerate(zip(pixels, ranks(maps, flag), strict=True))
        )
        return packed(subject, edits)

    return plain, perturbed, passes * setting.batch


def memory_of_a_run(samples: int = MEMORY_SAMPLES) -> pd.DataFrame:
    """Return the resident memory after each shard of an embedded run over `samples` images."""
    with tempfile.TemporaryDirectory(prefix="xai-") as folder:
        command = [
            *(sys.executable, "-c", "from xai_lib.cli.main import main; main()", "evaluate"),
            *("localisation", "--model", "vit-scenes", "--dataset", "scenes", "--device", "cpu"),
            *("--methods", "raw_attention", "--limit", str(samples)),
            *("--batch-size", "64", "--workers", "0", "--out", f"{folder}/run"),
        ]
        subprocess.run(command, check=True, capture_output=True)
        events = Run(Path(folder) / "run").folder.events("shard")
    table = pd.DataFrame(events)[["samples", "seconds", "rss_mb"]]
    table.insert(0, "images", table.pop("samples").cumsum())
    return table
