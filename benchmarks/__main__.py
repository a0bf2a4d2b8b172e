"""`python -m benchmarks`: measure every method and write tables and a plot to reports/bench/."""

from __future__ import annotations

import argparse
import os
import platform
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from benchmarks import evaluation, examination, measure, pruning, streams, texts
from benchmarks.measure import Setting, explanation
from benchmarks.report import write
from xai_lib.explainers.registry import all_methods

# The most that a method may take, in B by batch, on ViT-B/16 in float32, two threads.
# Goals, not measurements.
TARGETS = {
    "rollout": {1: 0.48},
    "attn_gradcam": {1: 0.60},
    "partial_lrp": {1: 0.60},
    "generic_attention": {1: 1.15},
    "transformer_attribution": {1: 2.0, 8: 2.3},
    "attnlrp": {1: 1.3},
    "lrp": {1: 2.2},
    "integrated_gradients": {1: 16.0},
    "bi_head": {1: 9.0},
    "bi_token": {1: 9.0},
}
PARTS = (
    *("import", "ratios", "examination", "texts", "streams"),
    *("pruning", "memory", "scaling", "evaluation"),
)
STEPPED = ("integrated_gradients", "smoothgrad", "bi_head", "bi_token")
SWEPT = ("rollout", "generic_attention", "transformer_attribution", "attnlrp", "lrp")


def captum_integrated_gradients(model, pixels):
    """Return captum's integrated gradients at 20 steps, the peer measured in the same run."""
    from captum.attr import IntegratedGradients

    target = model(pixels).argmax(-1)
    attribute = IntegratedGradients(model).attribute
    return lambda: attribute(pixels, target=target, n_steps=20, internal_batch_size=8)


def ratios(base: Setting, rounds: int, batches=(1, 8)) -> pd.DataFrame:
    """Return one row per method and batch: ratio to B, its target, images per second."""
    rows = []
    for batch in batches:
        setting = replace(base, batch=batch)
        for method in all_methods():
            if batch > 1 and method in STEPPED:
                continue
            row = measure.ratio(setting, lambda m, x, name=method: explanation(m, x, name), rounds)
            target = TARGETS.get(method, {}).get(batch)
            rows.append({"method": method, "batch": batch, **row, "target": target})
            print(f"  {method:24s} batch {batch:3d}  {row['ratio']:6.2f} B", flush=True)
    try:
        row = measure.ratio(replace(base, batch=1), captum_integrated_gradients, rounds)
        rows.append({"method": "captum integrated_gradients", "batch": 1, **row, "target": None})
    except ImportError:
        print("  captum is not installed: its row is left out")
    return pd.DataFrame(rows)


def memory(base: Setting, batch: int = 8) -> pd.DataFrame:
    """Return each method's peak memory at `batch`, in MiB and over B's; rollout by depth too."""
    setting = replace(base, batch=batch)
    plain = measure.peak_memory(setting, None)
    rows = [{"method": "B", "depth": base.depth, "MiB": plain, "relative to B": 1.0}]
    for method in all_methods():
        peak = measure.peak_memory(setting, method)
        rows.append(
            {"method": method, "depth": base.depth, "MiB": peak, "relative to B": peak / plain}
        )
        print(f"  {method:24s} {peak:8.0f} MiB", flush=True)
    for depth in (3, 24):
        peak = measure.peak_memory(replace(setting, depth=depth), "rollout")
        rows.append({"method": "rollout", "depth": depth, "MiB": peak})
    return pd.DataFrame(rows)


def scaling(base: Setting, rounds: int) -> pd.DataFrame:
    """Return ratios over batch, depth, width and tokens, one varied at a time from ViT-S/16."""
    small = replace(base, width=384, heads=6)
    points = [("batch", b, replace(small, batch=b)) for b in (1, 2, 4, 8, 16, 32)]
    points += [("depth", d, replace(small, depth=d)) for d in (6, 12, 24)]
    points += [("width", w, replace(small, width=w, heads=w // 64)) for w in (192, 384, 768)]
    points += [("tokens", (s // 16) ** 2, replace(small, image=s)) for s in (224, 384, 512)]
    rows = []
    for axis, value, setting in points:
        for method in SWEPT:
            row = measure.ratio(setting, lambda m, x, name=method: explanation(m, x, name), rounds)
            rows.append({"axis": axis, "value": value, "method": method, **row})
        print(f"  {axis} {value}", flush=True)
    return pd.DataFrame(rows)


def environment(threads: int) -> dict[str, str]:
    """Return what the figures were measured on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    kernel = "BLAS" if os.environ.get("XAI_GEMM") == "blas" else "oneDNN where float32 on the CPU"
    return {
        "processor": platform.processor() or platform.machine(),
        "threads": str(threads),
        "gpu": gpu,
        "torch": torch.__version__,
        "matrix kernel of explanations": kernel,
    }


def main() -> None:
    """Run the benchmark with two threads, so that runs on different machines compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("reports/bench"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=PARTS, default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    base, rounds = Setting(), arguments.rounds
    tables: dict[str, pd.DataFrame] = {}

    def wanted(name: str) -> bool:
        return arguments.only in (None, name)

    if wanted("import"):
        tables["import"] = pd.DataFrame([measure.import_seconds()])
    if wanted("ratios"):
        print("Ratios to B, ViT-B/16, float32", flush=True)
        tables["ratios"] = ratios(base, rounds)
    if wanted("examination"):
        print("What the first call adds; integrated gradients that are complete", flush=True)
        tables["examination"] = examination.ratios(base, rounds)
        tables["completeness"] = examination.completeness(base)
    if wanted("texts"):
        print("Ratios to B, BERT-base, float32", flush=True)
        tables["text_ratios"] = texts.ratios(texts.TextSetting(), rounds)
    if wanted("streams"):
        print("Ratios to B, LXMERT and CLIP ViT-B/32, float32", flush=True)
        tables["stream_ratios"] = streams.ratios(rounds)
    if wanted("pruning"):
        print("Ten fractions of pruned heads in one batch, LXMERT", flush=True)
        sizes = {"small LXMERT": pruning.SMALL, "LXMERT": streams.LxmertSetting()}
        tables["pruning"] = pruning.throughput(sizes, rounds)
    if wanted("memory"):
        print("Peak memory at batch 8", flush=True)
        tables["memory"] = memory(base)
    if wanted("scaling"):
        print("Scaling", flush=True)
        tables["scaling"] = scaling(base, max(3, rounds - 2))
    if wanted("evaluation"):
        print("Perturbation stream over plain forward passes", flush=True)
        tables["perturbation_stream"] = evaluation.throughput(base, rounds)
        print(f"Memory over {evaluation.MEMORY_SAMPLES} images", flush=True)
        tables["memory_of_a_run"] = evaluation.memory_of_a_run()
    if torch.cuda.is_available() and wanted("evaluation"):
        gpu = replace(base, device="cuda")
        tables["gpu_perturbation_stream"] = evaluation.throughput(gpu, rounds, (64, 256))
    if torch.cuda.is_available() and wanted("ratios"):
        for dtype in ("float32", "bfloat16"):
            gpu = replace(base, device="cuda", dtype=dtype)
            tables[f"gpu_{dtype}"] = ratios(gpu, rounds, batches=(64, 256))
    if torch.cuda.is_available() and wanted("texts"):
        gpu_texts = texts.TextSetting(device="cuda")
        tables["gpu_text_ratios"] = texts.ratios(gpu_texts, rounds, batches=(64,))
    if torch.cuda.is_available() and wanted("streams"):
        gpu_streams = streams.LxmertSetting(device="cuda")
        tables["gpu_stream_ratios"] = streams.ratios(rounds, batches=(64,), base=gpu_streams)
    if torch.cuda.is_available() and wanted("pruning"):
        sizes = {
            "small LXMERT": replace(pruning.SMALL, device="cuda"),
            "LXMERT": streams.LxmertSetting(device="cuda"),
        }
        tables["gpu_pruning"] = pruning.throughput(sizes, rounds)
    write(tables, environment(torch.get_num_threads()), arguments.out)
    print(f"Written to {arguments.out}/")


if __name__ == "__main__":
    main()
