"""What the training scripts share: the loop, the log, and saving a model with its card."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / "xai_lib" / "weights"
LOGS = ROOT / "reports" / "training"


@dataclass(frozen=True)
class Stage:
    """One part of a curriculum: steps at an image size, with objects enlarged by zoom."""

    steps: int
    size: int
    zoom: float
    rate: float
    final: float

    def scaled(self, factor: float) -> Stage:
        """Return this stage with its number of steps multiplied, for quick trials."""
        return replace(self, steps=max(2, round(self.steps * factor)))


def learning_rate(stage: Stage, step: int, warmup: int = 50) -> float:
    """Return the rate at a step: linear warm-up, then half a cosine from `rate` to `final`."""
    if step < warmup:
        return stage.rate * (step + 1) / warmup
    done = (step - warmup) / max(1, stage.steps - warmup)
    return stage.final + (stage.rate - stage.final) * 0.5 * (1 + math.cos(math.pi * done))


def optimizer(modules: list[nn.Module], decay: float = 0.05) -> torch.optim.AdamW:
    """Return AdamW that decays matrices only, not biases, norms, tokens or positions."""
    named = [item for module in modules for item in module.named_parameters()]
    free = ("pos_embed", "cls_token", "dist_token")
    heavy = [p for name, p in named if p.ndim > 1 and not name.endswith(free)]
    light = [p for name, p in named if p.ndim <= 1 or name.endswith(free)]
    groups = [{"params": heavy, "weight_decay": decay}, {"params": light, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98))


def fit(
    modules: list[nn.Module],
    stage: Stage,
    losses: Callable[[int], dict[str, Tensor]],
    check: Callable[[], dict[str, float]],
    every: int = 100,
    precision: torch.dtype = torch.bfloat16,
) -> list[dict[str, float]]:
    """Train the modules for one stage and return the log, a row every `every` steps.

    `losses(step)` returns the named terms whose sum is minimised; it runs under autocast to
    `precision` unless that is float32. `check()` returns held-out measurements.
    """
    steer, started, log = optimizer(modules), time.time(), []
    for step in range(stage.steps):
        for group in steer.param_groups:
            group["lr"] = learning_rate(stage, step)
        for module in modules:
            module.train()
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            terms = losses(step)
        steer.zero_grad()
        sum(terms.values()).backward()
        nn.utils.clip_grad_norm_([p for module in modules for p in module.parameters()], 1.0)
        steer.step()
        if (step + 1) % every == 0 or step + 1 == stage.steps:
            for module in modules:
                module.eval()
            row = {"size": stage.size, "step": step + 1, "seconds": round(time.time() - started)}
            row |= {name: round(value.item(), 4) for name, value in terms.items()}
            row |= {name: round(value, 4) for name, value in check().items()}
            log.append(row)
            print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    return log


def by_stage(log: list[dict[str, float]]) -> list[list[dict[str, float]]]:
    """Return the rows of each stage; every stage counts its steps from zero."""
    stages: list[list[dict[str, float]]] = []
    for row in log:
        if not stages or row["step"] <= stages[-1][-1]["step"]:
            stages.append([])
        stages[-1].append(row)
    return stages


def minutes(log: list[dict[str, float]]) -> float:
    """Return the wall-clock minutes of all stages of a log."""
    return round(sum(rows[-1]["seconds"] for rows in by_stage(log)) / 60, 1)


def write_log(name: str, log: list[dict[str, float]], folder: Path = LOGS) -> None:
    """Write a training log as CSV, one row per check; what a stage does not have stays empty."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(log[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(log)


def read_log(name: str, folder: Path = LOGS) -> list[dict[str, float]]:
    """Return a training log that `write_log` wrote."""
    with (folder / f"{name}.csv").open(newline="") as file:
        rows = csv.DictReader(file)
        return [{k: json.loads(v) for k, v in row.items() if v != ""} for row in rows]


def store(model: nn.Module, name: str, card: dict, folder: Path = WEIGHTS) -> None:
    """Save the weights in float16 with their JSON card, and load the rounded values back.

    Whatever is measured on `model` afterwards is measured on the stored weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    save_file({key: value.half().contiguous() for key, value in model.state_dict().items()}, path)
    path.chmod(0o644)
    model.load_state_dict(read_weights(name, folder))
    card = {"name": name, "library": "timm"} | card
    card |= {
        "dtype": "float16",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "date": date.today().isoformat(),
    }
    write_card(name, card, folder)


def read_weights(name: str, folder: Path = WEIGHTS) -> dict[str, Tensor]:
    """Return the stored weights of an embedded model in float32."""
    stored = load_file(folder / f"{name}.safetensors")
    return {key: value.float() for key, value in stored.items()}


def read_card(name: str, folder: Path = WEIGHTS) -> dict:
    """Return the JSON card of an embedded model."""
    return json.loads((folder / f"{name}.json").read_text())


def write_card(name: str, card: dict, folder: Path = WEIGHTS) -> None:
    """Write the JSON card of an embedded model."""
    (folder / f"{name}.json").write_text(json.dumps(card, indent=2) + "\n")


def predictor(model: nn.Module, card: dict) -> Callable[[Tensor], Tensor]:
    """Return a function from images in [0, 1] to the model's logits."""
    mean, std = (torch.tensor(card["input"][key])[:, None, None] for key in ("mean", "std"))
    return lambda images: model((images - mean) / std)
