"""The training itself: Hugging Face's Trainer, buckets by length, checkpoints that resume."""

from __future__ import annotations

import json
import math
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from xai_lib.checkpoints.finetuning.config import FinetuneConfig
from xai_lib.checkpoints.finetuning.folder import WHOLE_FILE, FinetuneFolder
from xai_lib.checkpoints.finetuning.texts import Buckets, Encoded
from xai_lib.files.writing import write_text
from xai_lib.models.loaders.images import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments

ACCURACY = "eval_accuracy"


def make_trainer(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    train: Encoded,
    validation: Encoded,
    config: FinetuneConfig,
    folder: FinetuneFolder,
    progress: bool,
    device: str,
) -> Trainer:
    """Return a Trainer that checks `config.checks` times an epoch and saves after each check."""
    from transformers import DataCollatorWithPadding, PrinterCallback, Trainer

    class BucketTrainer(Trainer):
        def _get_train_sampler(self, train_dataset=None):
            return Buckets(
                train.lengths,
                config.batch_size,
                config.seed,
                # Steps are counted exactly, also after a resumption in the middle of an epoch.
                lambda: self.state.global_step // steps_of(train, config),
            )

    trainer = BucketTrainer(
        model=model,
        args=_arguments(train, config, folder, progress, device),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=_accuracy,
        callbacks=[_marking(folder)],
    )
    # Without a progress bar every log line would be printed instead; the metrics hold them all.
    trainer.remove_callback(PrinterCallback)
    return trainer


def steps_of(train: Encoded, config: FinetuneConfig) -> int:
    """Return the optimizer steps of one epoch."""
    return math.ceil(len(train) / config.batch_size)


def _arguments(
    train: Encoded, config: FinetuneConfig, folder: FinetuneFolder, progress: bool, device: str
) -> TrainingArguments:
    from transformers import TrainingArguments

    steps = steps_of(train, config)
    every = math.ceil(steps / config.checks)
    with quiet():
        arguments = TrainingArguments(
            output_dir=str(folder.checkpoints),
            num_train_epochs=config.epochs,
            learning_rate=config.lr,
            per_device_train_batch_size=config.batch_size,
            per_device_eval_batch_size=max(32, config.batch_size),
            lr_scheduler_type="linear",
            warmup_steps=round(config.warmup * steps * config.epochs),
            weight_decay=config.weight_decay,
            seed=config.seed,
            data_seed=config.seed,
            bf16=config.precision == "bfloat16",
            use_cpu=device == "cpu"
            or not (torch.cuda.is_available() or torch.backends.mps.is_available()),
            dataloader_pin_memory=torch.cuda.is_available(),
            eval_strategy="steps",
            eval_steps=every,
            save_strategy="steps",
            save_steps=every,
            save_total_limit=2,
            metric_for_best_model=ACCURACY,
            greater_is_better=True,
            logging_steps=every,
            report_to="none",
            disable_tqdm=not progress,
            remove_unused_columns=False,
        )
    # One device: several would multiply the batch, and with it what the seed stands for.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _accuracy(predicted) -> dict[str, float]:
    logits = predicted.predictions
    logits = logits[0] if isinstance(logits, tuple) else logits
    return {"accuracy": float((np.argmax(logits, -1) == predicted.label_ids).mean())}


def _marking(folder: FinetuneFolder):
    """Return the callback that says of a checkpoint that it is whole, and checks the last step."""
    from transformers import TrainerCallback

    class Marking(TrainerCallback):
        def __init__(self):
            self.started, self.before = time.monotonic(), 0.0

        def on_train_begin(self, args, state, control, **rest):
            last = folder.last_checkpoint()
            self.started = time.monotonic()
            self.before = json.loads((last / WHOLE_FILE).read_text())["seconds"] if last else 0.0

        def on_step_end(self, args, state, control, **rest):
            if state.global_step >= state.max_steps:
                control.should_evaluate = control.should_save = True
            return control

        def on_save(self, args, state, control, **rest):
            seconds = self.before + time.monotonic() - self.started
            place = folder.checkpoints / f"checkpoint-{state.global_step}" / WHOLE_FILE
            write_text(place, json.dumps({"seconds": round(seconds, 1)}))

    return Marking()


def train_and_choose(trainer: Trainer, folder: FinetuneFolder) -> dict:
    """Train, or go on from the last whole checkpoint, and put the best one's weights in the model.

    Best is the highest validation accuracy, of equals the first. Returns the facts for the metrics.
    """
    from safetensors.torch import load_file

    last = folder.last_checkpoint()
    silence = nullcontext() if not trainer.args.disable_tqdm else quiet()
    with folder.writing(), silence:
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
    state = trainer.state
    best = folder.checkpoints / f"checkpoint-{state.best_global_step}"
    weights: Path = best / "model.safetensors"
    trainer.model.load_state_dict(load_file(weights), strict=True)
    curve, losses = [], {row["step"]: row["loss"] for row in state.log_history if "loss" in row}
    for row in state.log_history:
        if ACCURACY in row:
            curve.append(
                {
                    "step": row["step"],
                    "epoch": round(row["epoch"], 3),
                    "training_loss": losses.get(row["step"]),
                    "validation_loss": round(row["eval_loss"], 6),
                    "validation_accuracy": row[ACCURACY],
                }
            )
    seconds = json.loads((folder.last_checkpoint() / WHOLE_FILE).read_text())["seconds"]
    return {
        "best_step": state.best_global_step,
        "steps": state.global_step,
        "seconds": seconds,
        "curve": curve,
    }


def accuracy_of(trainer: Trainer, encoded: Encoded) -> dict[str, float | int | list[float]]:
    """Return the model's accuracy on a set, with its 95 % interval (Wilson) and its size."""
    from scipy.stats import binomtest

    accuracy = trainer.evaluate(encoded)[ACCURACY]
    interval = binomtest(round(accuracy * len(encoded)), len(encoded)).proportion_ci(
        method="wilson"
    )
    return {
        "accuracy": accuracy,
        "interval": [round(float(bound), 6) for bound in (interval.low, interval.high)],
        "n": len(encoded),
    }
