"""Computing a shard: model, data set and evaluator of a run, and the rows that they give."""

from __future__ import annotations

import dataclasses
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import torch
from torch import nn

from xai_lib.datasets import open_dataset
from xai_lib.datasets.base import Dataset
from xai_lib.errors import InputError, OptionError, TargetError
from xai_lib.evaluators import AnyBatch, Evaluator, MethodSpec, Subject
from xai_lib.evaluators.explained import rows_of
from xai_lib.evaluators.packing import RowEdits, packed
from xai_lib.models import load
from xai_lib.runs.classes import are_names, class_places
from xai_lib.runs.config import RunConfig, Shard, as_json, cut
from xai_lib.runs.fingerprints import model_fingerprint
from xai_lib.runs.loading import Loaded, load_batches
from xai_lib.runs.shard_files import Stored, as_parquet, as_safetensors
from xai_lib.runs.subjects import (
    AnyProcessor,
    check_modality,
    classifier,
    processor_identity,
)

TRIALS = 8


@dataclass(frozen=True)
class Computed:
    """A finished shard as the bytes of its files, and how it went."""

    number: int
    records: bytes
    maps: bytes | None
    samples: int
    failed: int
    seconds: float
    rss_mb: float
    process: str


@dataclass
class Work:
    """A run's parts, ready to compute any of its shards."""

    config: RunConfig
    evaluator: Evaluator
    methods: list[MethodSpec]
    subject: Subject
    dataset: Dataset
    # The model's class of each label; None where labels are classes.
    classes: tuple[int, ...] | None = None

    @classmethod
    def open(
        cls,
        config: RunConfig,
        device: torch.device,
        data: str | None = None,
        model: tuple[nn.Module, AnyProcessor] | None = None,
        dataset: Dataset | None = None,
    ) -> Work:
        """Load what `config` names (or take what is given) after checking that it fits together."""
        evaluator, methods = config.build()
        if dataset is None:
            dataset = open_dataset(config.dataset, path=data, revision=config.dataset_revision)
        wanted = evaluator.modalities()
        check_modality(wanted, f"The data set {config.dataset!r}", dataset.modality)
        for need in sorted(evaluator.needs):
            if not getattr(dataset, "has_labels" if need == "answers" else f"has_{need}"):
                raise OptionError(
                    f"The evaluator {config.evaluator!r} needs {need}, which the data set "
                    f"{config.dataset!r} does not have. `xai datasets` shows which has."
                )
        network, processor = model or load(config.model, revision=config.model_revision)
        check_modality((dataset.modality,), f"The model {config.model!r}", processor.modality)
        # Prompts that are the data set's own names have its order.
        named = processor.classes_are_texts and bool(dataset.class_names)
        network, processor = classifier(network, processor, dataset)
        if model is None:
            network = network.to(device, getattr(torch, config.dtype))
        if hasattr(processor, "resample"):
            processor = dataclasses.replace(processor, resample=config.resample)
        subject = Subject(network, processor, batch_size=config.batch_size)
        work = cls(config, evaluator, methods, subject, dataset)
        if work.uses_labels and not named:
            work.classes = class_places(
                dataset.class_names, processor.class_names, f"the model {config.model!r}"
            )
        return work

    @property
    def uses_labels(self) -> bool:
        needed = {"labels", "answers"} & self.evaluator.needs
        return bool(needed) or getattr(self.evaluator, "explain", "") == "label"

    @property
    def answers(self) -> dict[str, int]:
        """The model's class of each answer to a question."""
        names = self.subject.processor.class_names
        names = names if names and are_names(names) else self.dataset.class_names or ()
        return {name: place for place, name in enumerate(names)}

    def identity(self) -> dict[str, dict]:
        """Return the fingerprints of the model, with what it is given, and of the data set."""
        seen = processor_identity(self.subject.model, self.subject.processor)
        if self.classes is not None:
            seen["class_of_label"] = list(self.classes)
        return {
            "model": model_fingerprint(self.subject.model) | seen,
            "dataset": as_json(self.dataset.fingerprint(), "The data set's fingerprint"),
        }

    def batches(self, shards: list[Shard], workers: int = 0) -> Iterator[Loaded]:
        """Yield the loaded batches of several shards, one shard after the other."""
        size = self.config.batch_size
        return self._load([batch for shard in shards for batch in shard.batches(size)], workers)

    def _load(self, places: list[tuple[int, ...]], workers: int = 0) -> Iterator[Loaded]:
        subject = self.subject
        return load_batches(
            self.dataset,
            subject.processor,
            places,
            subject.device,
            workers,
            self.evaluator.needs,
            self.classes,
            self.answers,
        )

    def prepare(self) -> None:
        """Let the evaluator see the samples that it asks for before any is scored."""
        count, config = len(self.dataset), self.config
        evaluated = [index for shard in cut(config, count) for index in shard.indices]
        first = self.evaluator.first_samples(count, evaluated)
        if not first or self.subject.prepared is not None:
            return
        batches = Shard(0, first).batches(config.batch_size)
        loaded = (part.batch for part in self._load(batches) if part.batch is not None)
        self.subject.prepared = self.evaluator.prepare(self.subject, loaded, self.methods)

    def compute(self, shard: Shard, loaded: Iterator[Loaded]) -> Computed:
        """Return the finished shard, taking its batches from `loaded`."""
        self.prepare()
        clock, rows = time.perf_counter(), []
        stored: Stored = {}
        if self.config.keep_maps:
            # The first map counts: later ones are of other classes or of changed images.
            self.subject.keep = lambda method, index, patches: stored.setdefault(
                method, {}
            ).setdefault(index, patches.detach().float().cpu())
        try:
            for _ in shard.batches(self.config.batch_size):
                part = next(loaded)
                rows += self._failures(part)
                if part.batch is not None:
                    self._check_labels(part)
                    rows += self.evaluator.rows(self.subject, part.batch, self.methods)
        finally:
            self.subject.keep = None
        rows.sort(key=lambda row: row["index"])
        return Computed(
            shard.number,
            as_parquet(self._in_order(rows), self.config.digest(), shard.number),
            as_safetensors(stored) if self.config.keep_maps else None,
            len(shard.indices),
            len({row["index"] for row in rows if row["error"] is not None}),
            time.perf_counter() - clock,
            psutil.Process().memory_info().rss / 2**20,
            f"{platform.node()}:{os.getpid()}",
        )

    def try_out(self, workers: int = 0) -> None:
        """Run everything on one sample, so that what cannot work fails before any work starts."""
        self.prepare()
        reasons: list[str] = []
        scored = 0
        for index in range(len(self.dataset)):
            loaded = next(self._load([(index,)], min(workers, 1)))
            if loaded.batch is None:
                reasons.append(loaded.failed[0].error)
                continue
            self._check_labels(loaded)
            self._check_classes(loaded.batch)
            rows = list(self.evaluator.rows(self.subject, loaded.batch, self.methods))
            if any(row["error"] is None for row in rows):
                return
            # One sample may be odd; what fails for all methods of several is no matter of samples.
            reasons.append(rows[0]["error"])
            scored += 1
            if scored == TRIALS:
                break
        raise InputError(
            f"The samples tried of the data set {self.config.dataset!r} could not be read or "
            f"scored ({len(reasons)} of {len(self.dataset)}); the first: {reasons[0]}"
        )

    def _check_classes(self, batch: AnyBatch) -> None:
        """Raise a TargetError where nothing has told that the labels are the model's classes."""
        names = self.dataset.class_names
        if not names or are_names(self.subject.processor.class_names) or not self.uses_labels:
            return
        if all(name.isdecimal() for name in names):
            return
        found = self._classes_of_model(batch)
        if found not in (None, len(names)):
            raise TargetError(
                f"{self.config.model!r} has {found} classes without names, the data set "
                f"{self.config.dataset!r} has {len(names)}, such as {names[0]!r}: nothing says "
                "which is which. Give a processor with class_names, or name class folders by the "
                "model's class numbers."
            )

    def _classes_of_model(self, batch: AnyBatch) -> int | None:
        """Return how many classes a pass shows; None where the model takes none of the samples."""
        rows = [row for row in rows_of(self.subject, batch) if not isinstance(row, str)]
        edits = [RowEdits([row], [place]) for place, row in enumerate(rows[:1])]
        return next((logits.shape[-1] for logits in packed(self.subject, edits)), None)

    def _check_labels(self, loaded: Loaded) -> None:
        classes = len(self.subject.processor.class_names)
        labels = loaded.batch.labels
        if not self.uses_labels or not classes or labels is None:
            return
        for key, label in zip(loaded.batch.key, labels.tolist(), strict=True):
            if not 0 <= label < classes:
                raise TargetError(
                    f"Sample {key!r} has the label {label}, but {self.config.model!r} has "
                    f"{classes} classes, from 0 on. Model and data set do not belong together, or "
                    "the labels count otherwise."
                )

    def _failures(self, loaded: Loaded) -> list[dict]:
        return [
            {"index": sample.index, "key": sample.key, "method": m.label, "error": sample.error}
            for sample in loaded.failed
            for m in self.methods
        ]

    def _in_order(self, rows: list[dict]) -> list[dict]:
        """Return rows with equal columns in one order, since the first row decides the file's."""
        first = ["index", "key", *self.evaluator.groups]
        others = {name: None for row in rows for name in row if name not in (*first, "error")}
        names = [*first, *others, "error"]
        return [{name: row.get(name) for name in names} for row in rows]
