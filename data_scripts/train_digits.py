"""Train `vit-digits` from nothing on scikit-learn's handwritten digits.

    python data_scripts/train_digits.py

Training on warped copies of the 1,437 training digits, more strongly warped as it goes on. Every
patch token with ink on it learns the digit as well, through a linear head that is dropped
afterwards. The 360 held-out digits are read only to be measured.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import storing
import torch
import torch.nn.functional as F
import typer
from proofs.scenes import accuracy, prove_digit_evidence
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from training import (
    LOGS,
    WEIGHTS,
    Stage,
    fit,
    minutes,
    predictor,
    store,
    write_log,
)

from xai_lib.datasets.worlds.digits import (
    DIGIT_CLASSES,
    DIGIT_SIZE,
    DigitBatch,
    handwritten_digits,
    warped_digits,
)

BATCH = 64
MEAN, STD = 0.25, 0.4
KWARGS = {
    "img_size": DIGIT_SIZE,
    "patch_size": 4,
    "num_classes": len(DIGIT_CLASSES),
    "global_pool": "token",
    "embed_dim": 96,
    "depth": 6,
    "num_heads": 4,
    "mlp_ratio": 2.0,
}
STAGE = Stage(steps=1200, size=DIGIT_SIZE, zoom=1.0, rate=1.5e-3, final=1e-5)


def ink_token_loss(logits: Tensor, batch: DigitBatch) -> Tensor:
    """Return the cross-entropy of patch logits (n, patches, digits), weighted by ink per patch."""
    ink = F.avg_pool2d(batch.strokes.float(), KWARGS["patch_size"]).flatten(1)
    wanted = batch.labels[:, None].expand_as(ink)
    loss = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none")
    return (loss * ink.flatten()).sum() / ink.sum()


def train(seed: int, steps: int, precision: torch.dtype = torch.float32, every: int = 100):
    """Train the digit model for `steps` batches; return it with its log."""
    torch.manual_seed(seed)
    model, tokens = VisionTransformer(**KWARGS), nn.Linear(KWARGS["embed_dim"], len(DIGIT_CLASSES))
    held = handwritten_digits("test")

    def predict(images: Tensor) -> Tensor:
        return model((images - MEAN) / STD)

    def losses(step: int) -> dict[str, Tensor]:
        strength = min(1.0, 0.3 + 1.4 * step / steps)
        batch = warped_digits(BATCH, (seed, step), strength)
        features = model.forward_features((batch.image - MEAN) / STD)
        logits = model.forward_head(features)
        whole = F.cross_entropy(logits, batch.labels, label_smoothing=0.05)
        return {"class": whole, "tokens": ink_token_loss(tokens(features[:, 1:]), batch)}

    def check() -> dict[str, float]:
        return {"held_out": accuracy(predict, held.image, held.labels)}

    stage = replace(STAGE, steps=steps)
    log = fit([model, tokens], stage, losses, check, every, precision)
    return model.eval(), log


def main(
    out: storing.Out = WEIGHTS,
    logs: storing.Logs = LOGS,
    seed: int = 0,
    steps: int = STAGE.steps,
    precision: Annotated[str, typer.Option(help="bfloat16 or float32")] = "float32",
    threads: int = 2,
):
    """Train the digit model and store weights (float16), card and log."""
    model, log = train(seed, steps, storing.on_threads(threads, precision))
    write_log("vit-digits", log, logs)
    card = {
        "class": "VisionTransformer",
        "kwargs": KWARGS,
        "class_names": list(DIGIT_CLASSES),
        "input": {"size": [DIGIT_SIZE] * 2, "mean": [MEAN] * 3, "std": [STD] * 3},
        "trained_by": f"data_scripts/train_digits.py --seed {seed} --threads {threads}",
        "seed": seed,
        "training_minutes": minutes(log),
    }
    store(model, "vit-digits", card, out)
    predict, held = predictor(model, card), handwritten_digits("test")
    right = accuracy(predict, held.image, held.labels)
    measures = {"held_out_accuracy": right, "n": len(held)}
    storing.measure_stored("vit-digits", out, measures, prove_digit_evidence(predict))


if __name__ == "__main__":
    typer.run(main)
