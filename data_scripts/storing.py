"""What happens around training, the same for every script: options, storing, measuring."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn
from training import by_stage, minutes, read_card, read_log, store, write_card, write_log
from transformers import PreTrainedTokenizerFast

from xai_lib.files.writing import write_text

# Options of the command lines.
Out = Annotated[Path, typer.Option(help="folder for weights and cards")]
Logs = Annotated[Path, typer.Option(help="folder for the training logs")]
Scale = Annotated[float, typer.Option(help="multiplies the number of steps")]
Precision = Annotated[str, typer.Option(help="bfloat16 or float32")]
Model = Annotated[str, typer.Option(help="one of the models, or all")]
# The cards measure on these seeds, none of which is trained on.
MEASURED, PROVEN = 1_000_001, 1_000_002

Log = list[dict[str, float]]


@dataclass
class Best:
    """A model's weights at its best check so far."""

    held_out: float = -1.0
    state: dict[str, Tensor] = field(default_factory=dict)

    def keep(self, held_out: float, model: nn.Module) -> None:
        """Keep the weights if this check is as good as the best; later ones win."""
        if held_out >= self.held_out:
            self.held_out, self.state = held_out, copy.deepcopy(model.state_dict())


@dataclass(frozen=True)
class Trained:
    """A model after training: what its card says of it, its predictions, the world it knows."""

    network: nn.Module
    log: Log
    card: dict
    predict: Callable
    world: tuple[str, ...] = ()


def names_of(models: Iterable[str], chosen: str) -> list[str]:
    """Return the chosen one of the models, or all; raise BadParameter for another."""
    if chosen != "all" and chosen not in models:
        raise typer.BadParameter(f"--model {chosen}: give all or one of {', '.join(models)}.")
    return [name for name in models if chosen in ("all", name)]


def measure_stored(name: str, out: Path, measures: dict, evidence: dict) -> None:
    """Write what was measured on the stored weights into their card."""
    card = read_card(name, out) | {"metrics": measures, "evidence": evidence}
    write_card(name, card, out)
    print(measures, evidence, flush=True)


def train_language(
    names: Iterable[str],
    tokenizer: tuple[str, PreTrainedTokenizerFast],
    train: Callable[[str], Trained],
    measures: tuple[Callable[..., dict], Callable[..., dict]],
    command: tuple[str, int, int],
    n: int,
    folders: tuple[Path, Path],
) -> None:
    """Train models that share a tokenizer, and store all with their cards and logs.

    tokenizer: its file, and itself before it was used (then it would state its padding too).
    measures: of accuracy on n samples, of evidence on half as many. command: the script, the seed
    and the number of threads, for the cards. folders: of weights, of logs.
    """
    (file, plain), (script, seed, threads), (out, logs) = tokenizer, command, folders
    text = plain.backend_tokenizer.to_str(pretty=True) + "\n"
    write_text(out / file, text)
    for name in names:
        print(name, flush=True)
        done = train(name)
        write_log(name, done.log, logs)
        told = {
            "tokenizer": file,
            "tokenizer_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "trained_by": f"data_scripts/{script} --model {name} --seed {seed} --threads {threads}",
            "seed": seed,
            "training_minutes": minutes(done.log),
            "validation_accuracy": max(row["held_out"] for row in done.log),
        }
        store(done.network, name, {"library": "transformers", **done.card, **told}, out)
        about = (done.predict, *done.world)
        accuracy = measures[0](*about, n, seed=MEASURED)
        measure_stored(name, out, accuracy, measures[1](*about, n // 2, seed=PROVEN))


def first_stages(name: str, stages: int, logs: Path) -> Log:
    """Return the stored log up to a stage, from which a training goes on."""
    found = by_stage(read_log(name, logs))
    if len(found) < stages:
        raise typer.BadParameter(f"--resume {stages}: the log of {name} has {len(found)} stages.")
    return [row for rows in found[:stages] for row in rows]


def train_stages(
    name: str,
    network: nn.Module,
    log: Log,
    stages: range,
    train: Callable[[int], Log],
    describe: Callable[[Log], dict],
    out: Path,
    logs: Path,
) -> None:
    """Train for each of the stages and store weights, card and log after it.

    Rounded to float16 after each stage, an interrupted run goes on exactly with `--resume`.
    """
    for number in stages:
        log += train(number)
        write_log(name, log, logs)
        store(network, name, describe(log), out)
        if number + 1 in stages:
            print(f"stored; to go on from here: --resume {number + 1}", flush=True)


def on_threads(threads: int, precision: str) -> torch.dtype:
    """Set the number of threads, and return the precision to train in."""
    torch.set_num_threads(threads)
    return getattr(torch, precision)
