"""Train the scene models from nothing: a small ConvNet teacher, `vit-scenes` and `deit-scenes`.

    python data_scripts/train_scenes.py              # both
    python data_scripts/train_scenes.py --model vit-scenes

A curriculum: large objects in 64x64 images, then 96x96 images with the positions resampled, last
two stages with more scenes of several objects and without token labels. What is learned is in
`scene_objective.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

import storing
import torch
import torch.nn.functional as F
import typer
from proofs.scenes import (
    accuracy,
    both_lead,
    measure_scenes,
    prove_scene_evidence,
)
from scene_objective import MEAN, PATCH, STD, Teacher, image_targets, normalise, scene_losses
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from training import (
    LOGS,
    WEIGHTS,
    Stage,
    fit,
    minutes,
    predictor,
    read_card,
    read_weights,
    store,
    write_log,
)

from xai_lib.datasets.worlds.scenes import SCENE_CLASSES, SCENE_SIZE, SceneBatch, Scenes

BATCH, HELD = 128, 256
MIX = (0, 1, 1, 1, 1, 2, 2, 2, 3)
CLASSES = {"vit-scenes": VisionTransformer, "deit-scenes": VisionTransformerDistilled}
KWARGS = {
    "img_size": SCENE_SIZE,
    "patch_size": PATCH,
    "num_classes": len(SCENE_CLASSES),
    "global_pool": "token",
    "embed_dim": 128,
    "depth": 6,
    "num_heads": 4,
    "mlp_ratio": 3.0,
}
STAGES = (
    Stage(steps=400, size=64, zoom=1.3, rate=1e-3, final=5e-4),
    Stage(steps=240, size=SCENE_SIZE, zoom=1.0, rate=8e-4, final=1e-5),
)
POLISH = (
    Stage(steps=240, size=SCENE_SIZE, zoom=1.0, rate=4e-4, final=2e-6),
    Stage(steps=240, size=SCENE_SIZE, zoom=1.0, rate=4e-4, final=2e-6),
)
POLISH_MIX = (0, 1, 1, 2, 2, 2, 3)
TEACHER_STAGES = (
    Stage(steps=200, size=64, zoom=1.3, rate=3e-3, final=1e-3),
    Stage(steps=150, size=SCENE_SIZE, zoom=1.0, rate=2e-3, final=1e-5),
)


def run_stage(
    model: nn.Module,
    stage: Stage,
    loss: Callable[[SceneBatch], dict[str, Tensor]],
    key: tuple[int, int],
    mix: tuple[int, ...] = MIX,
    helpers: tuple[nn.Module, ...] = (),
    precision: torch.dtype = torch.bfloat16,
    every: int = 100,
) -> list[dict[str, float]]:
    """Train for one stage on scenes that follow from `key` = (seed, stage number); return the log.

    `helpers` are further modules to train with the model.
    """
    seed, number = key
    held, pairs = (
        Scenes(HELD, (seed, 99, number, k), k, stage.size, stage.zoom)[:] for k in (1, 2)
    )

    def predict(images: Tensor) -> Tensor:
        return model(normalise(images))

    def losses(step: int) -> dict[str, Tensor]:
        return loss(Scenes(BATCH, (seed, 1, number, step), mix, stage.size, stage.zoom)[:])

    def check() -> dict[str, float]:
        return {
            "held_out": accuracy(predict, held.image, held.labels[:, 0]),
            "two_lead": both_lead(predict, pairs.image, pairs.labels),
        }

    return fit([model, *helpers], stage, losses, check, every, precision)


def train_teacher(seed: int, scale: float = 1.0, **options) -> tuple[nn.Module, list]:
    """Train the ConvNet teacher; return it with its log."""
    torch.manual_seed(seed)
    model, log = Teacher(), []

    def loss(batch: SceneBatch) -> dict[str, Tensor]:
        logits = model(normalise(batch.image))
        return {"class": F.cross_entropy(logits, image_targets(batch))}

    for number, stage in enumerate(TEACHER_STAGES):
        log += run_stage(model, stage.scaled(scale), loss, (seed, number), **options)
    return model.eval(), log


def train(
    name: str, teacher: nn.Module | None, seed: int, scale: float = 1.0, **options
) -> tuple[nn.Module, list]:
    """Train a transformer through the curriculum; return it with its log."""
    torch.manual_seed(seed)
    model = CLASSES[name](**KWARGS | {"img_size": STAGES[0].size})
    tokens = nn.Linear(KWARGS["embed_dim"], len(SCENE_CLASSES) + 1)
    log = []
    for number, stage in enumerate(STAGES):
        if number > 0:
            model.set_input_size(img_size=(stage.size, stage.size))
        loss = partial(scene_losses, model, teacher, tokens)
        options |= {"helpers": (tokens,)}
        log += run_stage(model, stage.scaled(scale), loss, (seed, number), **options)
    return model.eval(), log


def polish(
    model: nn.Module, teacher: nn.Module | None, number: int, seed: int, scale: float, **options
) -> list[dict[str, float]]:
    """Train on for one stage, without token labels and with more objects; return the log."""
    loss = partial(scene_losses, model, teacher, None)
    stage = POLISH[number - len(STAGES)].scaled(scale)
    log = run_stage(model, stage, loss, (seed, number), POLISH_MIX, **options)
    model.eval()
    return log


def describe(name: str, trained_by: str, seed: int, teacher: float | None, log: list) -> dict:
    """Return a model's card before it is measured."""
    card = {
        "class": CLASSES[name].__name__,
        "kwargs": KWARGS,
        "class_names": list(SCENE_CLASSES),
        "input": {"size": [SCENE_SIZE] * 2, "mean": [MEAN] * 3, "std": [STD] * 3},
        "trained_by": trained_by,
        "seed": seed,
        "training_minutes": minutes(log),
    }
    if teacher is not None:
        card["teacher"] = {"class": "ConvNet, six 3x3 layers", "held_out": teacher}
    return card


def main(
    model: Annotated[str, typer.Option(help="vit-scenes, deit-scenes or all")] = "all",
    out: storing.Out = WEIGHTS,
    logs: storing.Logs = LOGS,
    seed: int = 0,
    scale: storing.Scale = 1.0,
    precision: storing.Precision = "bfloat16",
    threads: int = 2,
    n: Annotated[int, typer.Option(help="scenes of each kind to measure on")] = 2000,
    resume: Annotated[int, typer.Option(help="stages already in the stored weights: 2 or 3")] = 0,
):
    """Train scene models and store weights (float16), cards and logs."""
    every_stage = len(STAGES) + len(POLISH)
    if resume not in (0, *range(len(STAGES), every_stage)):
        raise typer.BadParameter(f"--resume {resume}: give 0, or 2 or 3 stages already trained.")
    options = {"scale": scale, "precision": storing.on_threads(threads, precision)}
    for name in storing.names_of(CLASSES, model):
        teacher, grade = None, None
        if name == "deit-scenes":
            print("teacher", flush=True)
            teacher, log = train_teacher(seed, **options)
            write_log("teacher-scenes", log, logs)
            grade = log[-1]["held_out"]
        print(name, flush=True)
        command = f"data_scripts/train_scenes.py --model {name} --seed {seed} --threads {threads}"
        command += f" --resume {resume}" if resume else ""
        card = partial(describe, name, command, seed, grade)
        if resume:
            network, log = CLASSES[name](**KWARGS), storing.first_stages(name, resume, logs)
            network.load_state_dict(read_weights(name, out))
        else:
            network, log = train(name, teacher, seed, **options)
            write_log(name, log, logs)
            store(network, name, card(log), out)
        rest = range(max(resume, len(STAGES)), every_stage)
        polished = partial(polish, network, teacher, seed=seed, **options)
        storing.train_stages(name, network, log, rest, polished, card, out, logs)
        predict = predictor(network, read_card(name, out))
        measures = measure_scenes(predict, n, storing.MEASURED)
        storing.measure_stored(
            name, out, measures, prove_scene_evidence(predict, n // 2, storing.PROVEN)
        )


if __name__ == "__main__":
    typer.run(main)
