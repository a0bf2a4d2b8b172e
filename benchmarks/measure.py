"""Time and memory of explanations, relative to B: a forward pass and the gradient to the input.

Machines are noisy, so a method is never timed alone: each round times B and the method next to each
other, and the median of the rounds' ratios counts.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

import xai_lib as xai


@dataclass(frozen=True)
class Setting:
    """One model and batch: a ViT of `depth` blocks and `width` features on `image` pixels."""

    batch: int = 1
    image: int = 224
    patch: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    dtype: str = "float32"
    device: str = "cpu"

    def build(self) -> tuple[nn.Module, Tensor]:
        """Return the model with random weights (frozen, eval) and an input batch."""
        from timm.models.vision_transformer import VisionTransformer

        torch.manual_seed(0)
        model = VisionTransformer(
            self.image, self.patch, embed_dim=self.width, depth=self.depth, num_heads=self.heads
        )
        dtype = getattr(torch, self.dtype)
        model = model.eval().requires_grad_(False).to(self.device, dtype)
        pixels = torch.randn(self.batch, 3, self.image, self.image)
        return model, pixels.to(self.device, dtype)

    @staticmethod
    def baseline(model: nn.Module, pixels: Tensor) -> Callable[[], object]:
        """Return B: one forward pass and the gradient of the predicted logits at the input."""

        def run():
            leaf = pixels.clone().requires_grad_()
            return torch.autograd.grad(model(leaf).amax(-1).sum(), leaf)

        return run


def explanation(model: nn.Module, inputs, method: str) -> Callable[[], object]:
    """Return a call of xai.explain with the method's default options."""
    return lambda: xai.explain(model, inputs, method)


def seconds(call: Callable[[], object], device: str) -> float:
    """Return the wall time of one call, the device's queue included."""
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def ratio(setting, make: Callable, rounds: int = 5) -> dict[str, float]:
    """Return the median ratio to B of make(model, inputs), its spread, and images per second.

    setting: builds model and inputs and knows their B, as `Setting` does.
    """
    model, pixels = setting.build()
    reference, call = setting.baseline(model, pixels), make(model, pixels)
    reference(), call()
    pairs = [
        (seconds(reference, setting.device), seconds(call, setting.device)) for _ in range(rounds)
    ]
    ratios = sorted(c / b for b, c in pairs)
    spent = statistics.median(c for _, c in pairs)
    return {
        "ratio": statistics.median(ratios),
        "low": ratios[0],
        "high": ratios[-1],
        "baseline_seconds": statistics.median(b for b, _ in pairs),
        "images_per_second": setting.batch / spent,
    }


def peak_memory(setting: Setting, method: str | None) -> float:
    """Return the peak memory in MiB that one call adds to the loaded model; None measures B.

    On the CPU this is a process of its own, whose resident peak the kernel keeps.
    """
    if setting.device != "cpu":
        model, pixels = setting.build()
        call = (
            setting.baseline(model, pixels)
            if method is None
            else explanation(model, pixels, method)
        )
        gc.collect()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    command = [
        sys.executable,
        "-m",
        "benchmarks.measure",
        json.dumps(asdict(setting)),
        method or "",
    ]
    # Freed blocks must go back to the system at once, or the peak would be the allocator's.
    environment = os.environ | {
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
    }
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout.strip().splitlines()[-1])


def _child(setting: Setting, method: str) -> float:
    import resource

    model, pixels = setting.build()
    xai.explain(model, pixels[:1], method or "raw_attention")
    reset = "/proc/self/clear_refs"
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if os.path.exists(reset) and os.access(reset, os.W_OK):
        with open(reset, "w") as handle:
            handle.write("5")
        before = _status("VmRSS")
        (setting.baseline(model, pixels) if not method else explanation(model, pixels, method))()
        return (_status("VmHWM") - before) / 1024
    (setting.baseline(model, pixels) if not method else explanation(model, pixels, method))()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def _status(field: str) -> int:
    with open("/proc/self/status") as handle:
        return next(int(line.split()[1]) for line in handle if line.startswith(field))


def import_seconds(rounds: int = 7) -> dict[str, float]:
    """Return what `import xai_lib` adds to `import torch`, median of fresh interpreters."""
    script = (
        "import time; import torch; t = time.perf_counter(); import xai_lib; "
        "print(time.perf_counter() - t)"
    )
    spent = [
        float(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout)
        for _ in range(rounds)
    ]
    return {"seconds": statistics.median(spent), "low": min(spent), "high": max(spent)}


if __name__ == "__main__":
    torch.set_num_threads(2)
    print(_child(Setting(**json.loads(sys.argv[1])), sys.argv[2]))
