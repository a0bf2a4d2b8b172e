"""What a full table costs, projected from a few batches measured on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from xai_lib.errors import CheckpointError, OptionError
from xai_lib.evaluators import Subject
from xai_lib.models import load, zero_shot
from xai_lib.models.loaders.timm import architecture
from xai_lib.runs.config import Place, RunConfig
from xai_lib.runs.noise import noise
from xai_lib.runs.subjects import check_modality

if TYPE_CHECKING:
    from pandas import DataFrame

FEWEST = 5
# Scored together, not one by one.
TOGETHER = ("agreement",)


@dataclass(frozen=True)
class Plan:
    """Seconds per image or text by method, the projected hours, and what they rest on."""

    table: DataFrame
    note: str


def plan(
    evaluator: str,
    model: str,
    methods: str | Iterable[str],
    *,
    options: dict[str, object] | None = None,
    samples: int = 50_000,
    nodes: int = 1,
    batch_size: int = 8,
    device: str = "auto",
    dtype: str = "float32",
    repeats: int = 1,
    tokens: int = 128,
) -> Plan:
    """Time `repeats` batches of noise per method and project them to `samples` images or texts.

    Neither data nor published weights are needed, since time does not depend on them. Reading and
    decoding samples is not part of the projection. hours: on `nodes` devices like this one.
    tokens: the length of a text, special tokens included.
    """
    from pandas import DataFrame

    for name, value in (("samples", samples), ("nodes", nodes), ("repeats", repeats)):
        if value < 1:
            raise OptionError(f"{name} is {value}; expected a positive number.")
    listed = methods.split(",") if isinstance(methods, str) else methods
    config = RunConfig(
        evaluator, model, "noise", tuple(listed), dict(options or {}),
        batch_size=batch_size, dtype=dtype,
    )  # fmt: skip
    measured, specs = config.build()
    where = Place(device).torch_device()
    network, processor, weights = _model(model)
    if processor.classes_are_texts:
        network, processor = zero_shot(network, processor)
    kind = processor.modality
    check_modality(measured.modalities(), f"The model {model!r}", kind)
    subject = Subject(network.to(where, getattr(torch, dtype)), processor, batch_size)
    # Some labels are to be wrong, and of fewer images none or all would be.
    count = batch_size * -(-FEWEST // batch_size)
    drawn = noise(subject, kind, count, tokens)
    batches = [drawn[i : i + batch_size] for i in range(0, count, batch_size)]
    if measured.first_samples(count, ()):
        # Ranking for the whole data set is done once, whatever its size: it is not projected.
        subject.prepared = measured.prepare(subject, batches[:1], specs)
    groups = [specs] if evaluator in TOGETHER else [[spec] for spec in specs]
    rows = []
    for group in groups:
        # The first time costs what later ones do not: imports, buffers, the choice of kernels.
        list(measured.rows(subject, drawn[:1], group))
        clock = time.perf_counter()
        for _ in range(repeats):
            for batch in batches:
                list(measured.rows(subject, batch, group))
        if where.type == "cuda":
            torch.cuda.synchronize()
        seconds = (time.perf_counter() - clock) / (repeats * count)
        rows.append((", ".join(spec.label for spec in group), seconds))
    rows.append(("all", sum(seconds for _, seconds in rows)))
    table = DataFrame(
        {
            "method": method,
            f"seconds per {kind}": seconds,
            f"{kind}s per second": 1 / seconds,
            "hours": seconds * samples / nodes / 3600,
        }
        for method, seconds in rows
    )
    threads = f", {torch.get_num_threads()} threads" if where.type == "cpu" else ""
    length = "" if kind == "image" else f" of {tokens} tokens"
    note = (
        f"{evaluator} of {samples:,} {kind}s{length} with {model} "
        f"({weights}) on {nodes} x {_name(where)}"
        f"{threads}, {dtype}, batches of {batch_size}; {repeats * len(batches)} measured per "
        "method, decoding not counted."
    )
    return Plan(table, note)


def _model(name: str):
    try:
        return *load(name), "its weights"
    except CheckpointError:
        if not name.startswith("timm:"):
            raise
        return *architecture(name.removeprefix("timm:")), "random weights: time is the same"


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "this processor"
