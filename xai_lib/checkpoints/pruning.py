"""A pruned checkpoint from a ranking of heads on a data set, measured before and after."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from xai_lib.datasets import open_dataset
from xai_lib.datasets.base import Dataset
from xai_lib.errors import (
    InputError,
    MethodNotApplicableError,
    OptionError,
    TargetError,
    unknown_name,
)
from xai_lib.files.writing import write_text
from xai_lib.heads import HeadScores, Smaller, head_scores, smaller, without_blocks
from xai_lib.models import load
from xai_lib.models.loaders.images import quiet
from xai_lib.runs.classes import are_names, class_places
from xai_lib.streams.prepare import prepare
from xai_lib.streams.scales import scale_of

REPORT = "pruning.json"
LEVELS = ("head", "block")
REPEATS = 3


def prune_checkpoint(
    model: str | os.PathLike,
    dataset: str,
    out: str | os.PathLike,
    fraction: float = 0.4,
    *,
    method: str = "taylor",
    order: str = "negative",
    level: str = "head",
    per_layer: bool = False,
    samples: int = 200,
    test: int = 200,
    batch_size: int = 16,
    seed: int = 0,
    data: str | os.PathLike | None = None,
) -> dict:
    """Prune the transformers model `model` by its heads' mean scores on a data set; write a folder.

    fraction, order: see `HeadScores.mask`; scores of a module that is called twice are ranked
    together, since its weights are one (tied). level: "head" removes heads where the configuration
    can hold fewer and zeroes them elsewhere (`heads.smaller`); "block" drops whole layers with
    their feed-forward part (`heads.without_blocks`). per_layer: prune the same share of every
    layer's heads, since a configuration has one number of heads for all. `samples` rank, `test`
    other ones measure accuracy (VQA's soft accuracy where answers have scores) and speed. The
    folder loads with from_pretrained and `xai.load`; pruning.json in it is what is returned: what
    was removed and zeroed, a statement in words, accuracy, ms_per_sample and parameters before and
    after.
    Raises OptionError, InputError, MethodNotApplicableError for a model that is not transformers',
    and what `xai.load` and `open_dataset` raise. Nothing half written stays.
    """
    out = Path(out)
    if level not in LEVELS:
        raise unknown_name("level", level, LEVELS)
    for name, number in (("samples", samples), ("test", test), ("batch-size", batch_size)):
        if number < 1:
            raise OptionError(f"--{name} is {number}; expected at least 1.")
    if out.exists():
        raise OptionError(f"--out {out} exists; name a new folder.")
    network, processor = load(model)
    if not hasattr(network, "save_pretrained"):
        raise MethodNotApplicableError(
            f"{model!r} is a {type(network).__name__}, no model of transformers, so no checkpoint "
            "that from_pretrained loads can be written. xai_lib.heads.smaller prunes it in memory."
        )
    source = _Source.of(open_dataset(dataset, path=data), processor, samples, test, seed)
    scores = _ranking(network, source, method, batch_size, seed)
    source.check_classes(scores.logits.shape[-1], str(model))
    if level == "block":
        found = without_blocks(network, scores, fraction, order)
    else:
        mask = scores.mask(fraction, order, tied=True, per_layer=per_layer)
        found = smaller(network, mask, scores.sites)
    measured = _before_and_after(network, found.model, source, batch_size)
    report = {
        "model": str(model),
        "dataset": dataset,
        "method": method,
        "order": order,
        "level": level,
        "per_layer": per_layer,
        "fraction": fraction,
        "samples": len(source.ranking),
        "seed": seed,
        "removed": found.removed,
        "zeroed": found.zeroed,
        "statement": _statement(found),
        **measured,
        "parameters": dict(zip(("before", "after"), found.parameters, strict=True)),
    }
    _write(out, found.model, processor, report)
    return report


@dataclass(frozen=True)
class _Source:
    """Samples of a data set as inputs, and how right an answer to one is."""

    inputs_of: Callable[[Sequence], dict]
    right: Callable[[object, int], float]
    dataset: Dataset
    ranking: list[int]
    test: list[int]
    # The model's classes by name, or () where nothing names them.
    told: tuple[str, ...] = ()

    @classmethod
    def of(cls, dataset: Dataset, processor, samples: int, test: int, seed: int) -> _Source:
        """Choose samples; those that rank are none of those that test."""
        takes = processor.modality == dataset.modality and hasattr(processor, "inputs_of")
        if not takes:
            raise InputError(
                f"The data set {dataset.name!r} is of {dataset.modality}s, which this model does "
                f"not take: its processor is a {type(processor).__name__}."
            )
        if len(dataset) < 2:
            raise InputError(f"The data set {dataset.name!r} has {len(dataset)} samples.")
        chosen = np.random.default_rng(seed).permutation(len(dataset)).tolist()
        ranking = chosen[: min(samples, len(dataset) // 2)]
        testing = chosen[len(ranking) : len(ranking) + test]
        names = processor.class_names
        places = class_places(dataset.class_names, names)
        # Published LXMERTs do not name their answers: then the data set's list is in their order.
        told = names if names and are_names(names) else dataset.class_names or ()

        def right(sample, answer: int) -> float:
            scores = getattr(sample, "answers", None)
            if scores is not None and (told or not scores):
                return scores.get(told[answer], 0.0) if scores else 0.0
            if sample.label is None:
                raise InputError(f"The sample {sample.key!r} has no label to measure accuracy by.")
            return float(answer == (sample.label if places is None else places[sample.label]))

        return cls(processor.inputs_of, right, dataset, ranking, testing, tuple(told))

    def batches(self, places: list[int], size: int) -> Iterator[list]:
        """Yield lists of samples."""
        for start in range(0, len(places), size):
            yield [self.dataset[place] for place in places[start : start + size]]

    def check_classes(self, found: int, model: str) -> None:
        """Raise a TargetError where the names are not of as many classes as the model has."""
        if self.told and found != len(self.told) and not all(n.isdecimal() for n in self.told):
            raise TargetError(
                f"{model!r} has {found} classes, but {len(self.told)} names, such as "
                f"{self.told[0]!r}: nothing says which is which. Name the model's classes by "
                "id2label in its config.json."
            )

    def alike(self, batch: list) -> list[list]:
        """Return the samples of a batch in lists of one length, which need no padding."""
        found: dict[tuple, list] = {}
        for sample in batch:
            shapes = {k: tuple(v.shape) for k, v in self.inputs_of([sample]).items()}
            found.setdefault(tuple(sorted(shapes.items())), []).append(sample)
        return list(found.values())


def _ranking(model: nn.Module, source: _Source, method: str, size: int, seed: int) -> HeadScores:
    # A score is a mean over pairs of tokens: padding would count among them.
    return HeadScores.joined(
        [
            head_scores(model, source.inputs_of(alike), method, seed=seed)
            for batch in source.batches(source.ranking, size)
            for alike in source.alike(batch)
        ]
    )


def _before_and_after(before: nn.Module, after: nn.Module, source: _Source, size: int) -> dict:
    """Return accuracy and milliseconds a sample of both models, which take turns."""
    models = {"before": before, "after": after}
    rights: dict[str, list[float]] = {name: [] for name in models}
    speeds: dict[str, list[float]] = {name: [] for name in models}
    for batch in source.batches(source.test, size):
        prepared = prepare(before, source.inputs_of(batch))
        best = dict.fromkeys(models, float("inf"))
        scores: dict[str, Tensor] = {}
        # The best of a few: other work of the machine only ever adds to the time.
        for name in list(models) * REPEATS:
            start = time.perf_counter()
            with torch.no_grad():
                scores[name] = prepared.scores(models[name])
            best[name] = min(best[name], time.perf_counter() - start)
        scale = scale_of(before, scores["before"])
        for name in models:
            speeds[name].append(best[name] * 1000 / len(batch))
            said = [row.nonzero().flatten().tolist() for row in scale.right(scores[name])]
            pairs = zip(batch, said, strict=True)
            rights[name] += [_credit(source, sample, answers) for sample, answers in pairs]
    return {
        "accuracy": {name: sum(found) / len(found) for name, found in rights.items()},
        "ms_per_sample": {name: float(np.median(found)) for name, found in speeds.items()},
        "n": len(rights["before"]),
    }


def _credit(source: _Source, sample, answers: list[int]) -> float:
    """Return what the best of a model's answers is worth; several where labels do not exclude."""
    return max((source.right(sample, answer) for answer in answers), default=0.0)


def _statement(found: Smaller) -> str:
    removed, zeroed = (sum(map(len, part.values())) for part in (found.removed, found.zeroed))
    if not zeroed:
        return "The weights are removed, the configuration counts fewer, from_pretrained loads it."
    if not removed:
        return (
            "Pruned heads are zeroed in the weights: from_pretrained loads a model that computes "
            "without them, of the same size and speed. A configuration has one number of heads for "
            "all layers, and most architectures tie the size of a head to it. Smaller: per_layer "
            "for ViT, DeiT, BEiT and DINOv2, level block for any."
        )
    return (
        f"{removed} heads are removed; {zeroed} are zeroed, since a configuration has one number "
        "of heads for all layers (per_layer removes as many everywhere)."
    )


def _write(out: Path, model: nn.Module, processor, report: dict) -> None:
    """Write the folder under another name and rename it once it is whole."""
    partial = out.with_name(f".part-{os.getpid()}-{out.name}")
    try:
        partial.mkdir(parents=True)
        with quiet():
            model.save_pretrained(partial)
            processor.save_pretrained(partial)
        write_text(partial / REPORT, json.dumps(report, indent=1) + "\n")
        os.replace(partial, out)
    except OSError as error:
        raise InputError(f"Cannot write {out}: {error}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
