"""Train the scene models from nothing: a small ConvNet teacher, `vit-scenes` and `deit-scenes`.

    python data_scripts/train_scenes.py              # all three, about 50 minutes on two cores
    python data_scripts/train_scenes.py --model vit-scenes

A curriculum of two stages: large objects in 64x64 images, then 96x96 images with the positions
resampled. Next to the image's label every patch token learns which class covers it (token labels,
Jiang et al. 2021) through a linear head that is dropped afterwards. The distilled model's second
token learns the teacher's hard decision (DeiT, Touvron et al. 2021, section 4).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
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
    store,
    write_card,
    write_log,
)

from xai_lib.datasets.evidence import accuracy, both_lead, measure_scenes, prove_scene_evidence
from xai_lib.datasets.scenes import SCENE_CLASSES, SCENE_SIZE, SceneBatch, Scenes

PATCH, BATCH, HELD = 8, 128, 256
MIX = (0, 1, 1, 1, 1, 2, 2, 2, 3)
MEAN, STD = 0.5, 0.25
TOKEN_WEIGHT = 2.0
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
TEACHER_STAGES = (
    Stage(steps=200, size=64, zoom=1.3, rate=3e-3, final=1e-3),
    Stage(steps=150, size=SCENE_SIZE, zoom=1.0, rate=2e-3, final=1e-5),
)


class Teacher(nn.Sequential):
    """A ConvNet of six 3x3 layers with batch norm, for images of any size."""

    def __init__(self, classes: int = len(SCENE_CLASSES)):
        widths = [(3, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
        layers = []
        for before, after, stride in widths:
            layers += [
                nn.Conv2d(before, after, 3, stride, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, classes))


def image_targets(batch: SceneBatch) -> Tensor:
    """Return the label distribution (n, classes): equal shares of the objects, uniform if none."""
    present = batch.labels >= 0
    shares = F.one_hot(batch.labels.clamp_min(0), len(SCENE_CLASSES)) * present[..., None]
    shares = shares.sum(1) + (~present.any(1))[:, None]
    return shares / shares.sum(1, keepdim=True)


def token_targets(batch: SceneBatch) -> Tensor:
    """Return what covers each patch (n, patches, classes + 1): area shares, background last."""
    cover = F.avg_pool2d(batch.masks.float(), PATCH).flatten(2)
    classes = F.one_hot(batch.labels.clamp_min(0), len(SCENE_CLASSES)).float()
    share = torch.einsum("nkp,nkc->npc", cover, classes)
    return torch.cat((share, 1 - share.sum(-1, keepdim=True)), -1)


def normalise(images: Tensor) -> Tensor:
    """Return images in [0, 1] as the models read them."""
    return (images - MEAN) / STD


def scene_losses(model: nn.Module, tokens: nn.Module, batch: SceneBatch, teacher) -> dict:
    """Return the loss terms of one batch: class token, patch tokens, distillation token."""
    features = model.forward_features(normalise(batch.image))
    logits = model.forward_head(features)
    wanted = image_targets(batch)
    patches = tokens(features[:, model.num_prefix_tokens :])
    covered = F.cross_entropy(patches.flatten(0, 1), token_targets(batch).flatten(0, 1))
    terms = {"tokens": TOKEN_WEIGHT * covered}
    if teacher is None:
        return {"class": F.cross_entropy(logits, wanted)} | terms
    with torch.no_grad():
        decided = F.one_hot(teacher(normalise(batch.image)).argmax(1), len(SCENE_CLASSES)).float()
    # An empty scene has no decision to copy: both heads learn the uniform distribution.
    decided = torch.where((batch.labels >= 0).any(1)[:, None], decided, wanted)
    half = [
        0.5 * F.cross_entropy(out, goal)
        for out, goal in zip(logits, (wanted, decided), strict=True)
    ]
    return {"class": half[0], "distilled": half[1]} | terms


def train(name: str, teacher, seed: int, scale: float, precision: torch.dtype, every: int = 100):
    """Train the teacher or one transformer through its stages; return the model and its log."""
    torch.manual_seed(seed)
    stages = TEACHER_STAGES if name == "teacher" else STAGES
    model = Teacher() if name == "teacher" else CLASSES[name](**KWARGS | {"img_size": 64})
    tokens = nn.Linear(KWARGS["embed_dim"], len(SCENE_CLASSES) + 1)
    if name == "deit-scenes":
        model.set_distilled_training(True)
    log = []

    def predict(images: Tensor) -> Tensor:
        return model(normalise(images))

    for number, stage in enumerate(stages):
        stage = Stage(max(2, round(stage.steps * scale)), *list(vars(stage).values())[1:])
        if name != "teacher" and number > 0:
            model.set_input_size(img_size=(stage.size, stage.size))
        held, pairs = (
            Scenes(HELD, (seed, 99, number, k), k, stage.size, stage.zoom)[:] for k in (1, 2)
        )

        def losses(step: int, stage=stage, number=number) -> dict[str, Tensor]:
            batch = Scenes(BATCH, (seed, 1, number, step), MIX, stage.size, stage.zoom)[:]
            if name == "teacher":
                return {
                    "class": F.cross_entropy(model(normalise(batch.image)), image_targets(batch))
                }
            return scene_losses(model, tokens, batch, teacher)

        def check(held=held, pairs=pairs) -> dict[str, float]:
            return {
                "held_out": accuracy(predict, held.image, held.labels[:, 0]),
                "two_lead": both_lead(predict, pairs.image, pairs.labels),
            }

        modules = [model] if name == "teacher" else [model, tokens]
        log += fit(modules, stage, losses, check, every, precision)
    return model.eval(), log


def main(
    model: Annotated[str, typer.Option(help="vit-scenes, deit-scenes or all")] = "all",
    out: Annotated[Path, typer.Option(help="folder for weights and cards")] = WEIGHTS,
    logs: Annotated[Path, typer.Option(help="folder for the training logs")] = LOGS,
    seed: int = 0,
    scale: Annotated[float, typer.Option(help="multiplies the number of steps")] = 1.0,
    precision: Annotated[str, typer.Option(help="bfloat16 or float32")] = "bfloat16",
    threads: int = 2,
    n: Annotated[int, typer.Option(help="scenes of each kind to measure on")] = 2000,
):
    """Train scene models and store weights (float16), cards and logs."""
    torch.set_num_threads(threads)
    dtype = getattr(torch, precision)
    for name in [m for m in CLASSES if model in ("all", m)]:
        guide = None
        if name == "deit-scenes":
            print("teacher", flush=True)
            guide, log = train("teacher", None, seed, scale, dtype)
            write_log("teacher-scenes", log, logs)
            teacher_accuracy = log[-1]["held_out"]
        print(name, flush=True)
        network, log = train(name, guide, seed, scale, dtype)
        write_log(name, log, logs)
        card = {
            "class": CLASSES[name].__name__,
            "kwargs": KWARGS,
            "class_names": list(SCENE_CLASSES),
            "input": {"size": [SCENE_SIZE] * 2, "mean": [MEAN] * 3, "std": [STD] * 3},
            "trained_by": f"data_scripts/train_scenes.py --model {name} --seed {seed}"
            f" --threads {threads}",
            "seed": seed,
            "training_minutes": minutes(log),
        }
        if guide is not None:
            card["teacher"] = {"class": "Teacher (ConvNet)", "held_out": teacher_accuracy}
        store(network, name, card, out)
        card = read_card(name, out)
        predict = predictor(network, card)
        card["metrics"] = measure_scenes(predict, n, seed=1_000_001)
        card["evidence"] = prove_scene_evidence(predict, n // 2, seed=1_000_002)
        write_card(name, card, out)
        print(card["metrics"], card["evidence"], flush=True)


if __name__ == "__main__":
    typer.run(main)
