"""Samples to batches: read, images squashed and stacked, in worker processes if there are any."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from xai_lib.datasets.base import Dataset, QuestionSample, Sample, TextSample
from xai_lib.errors import XAIError
from xai_lib.evaluators.batches import BATCHES, AnyBatch, stacked
from xai_lib.runs.subjects import AnyProcessor

# Processes die of a broken file or for want of memory; only the first repeats itself.
PATIENCE = 2


@dataclass(frozen=True)
class Decoded:
    """One sample as the columns of its batch, or the reason why it could not be read."""

    index: int
    key: str
    columns: dict[str, object] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class Loaded:
    """A batch of what could be read (None if nothing could), and what could not."""

    batch: AnyBatch | None
    failed: list[Decoded] = field(default_factory=list)


class _Decoding(TorchDataset):
    def __init__(
        self,
        dataset: Dataset,
        processor: AnyProcessor,
        needs: frozenset[str],
        classes: tuple[int, ...] | None,
        answers: Mapping[str, int],
    ):
        self.dataset, self.processor, self.needs = dataset, processor, needs
        self.classes, self.answers = classes, answers

    def __getitem__(self, index: int) -> Decoded:
        kind = BATCHES[self.dataset.modality]
        try:
            sample = self.dataset[index]
            columns = kind.read(sample, self.processor)
            label = None if sample.label is None else operator.index(sample.label)
        except Exception as error:  # decoders raise whatever a damaged file leads them to
            reason = str(error) if isinstance(error, XAIError | OSError) else repr(error)
            return Decoded(index, str(index), error=" ".join(reason.split()))
        lacks = [need for need in sorted(self.needs) if _lacks(sample, need)]
        if lacks:
            reason = f"The data set has no {' and no '.join(lacks)} for this sample"
            return Decoded(index, str(sample.key), error=reason)
        if label is not None and self.classes is not None:
            if not 0 <= label < len(self.classes):
                reason = f"Its label is {label}, but the data set has {len(self.classes)} classes"
                return Decoded(index, str(sample.key), error=reason)
            label = self.classes[label]
        columns["labels"] = label
        if hasattr(sample, "answers"):
            columns["answers"] = self._scores(sample.answers, label)
        return Decoded(index, str(sample.key), columns)

    def _scores(
        self, answers: Mapping[str, float] | None, label: int | None
    ) -> dict[int, float] | None:
        """Return the scores of the answers that are classes; 1 for the label where none is known.

        A question of which no right answer is a class cannot be answered: nothing scores.
        """
        if answers is None or (label is not None and not (answers and self.answers)):
            return None if label is None else {label: 1.0}
        known = {self.answers.get(text): score for text, score in answers.items()}
        return {place: float(score) for place, score in known.items() if place is not None}


def _lacks(sample: Sample | TextSample | QuestionSample, need: str) -> bool:
    if need == "evidence":
        return sample.regions is None and sample.rationale is None
    if need == "answers":
        return sample.label is None and getattr(sample, "answers", None) is None
    return getattr(sample, need.removesuffix("s")) is None


def load_batches(
    dataset: Dataset,
    processor: AnyProcessor,
    batches: Sequence[Sequence[int]],
    device: torch.device,
    workers: int = 0,
    needs: frozenset[str] = frozenset(),
    classes: tuple[int, ...] | None = None,
    answers: Mapping[str, int] | None = None,
) -> Iterator[Loaded]:
    """Yield the batches of `batches` (lists of sample places) in order.

    needs: what every sample must have, see `Evaluator`. classes: the model's class of each label,
    None where they are the same; answers: its class of each answer to a question. A sample that
    lacks something or cannot be read is reported in its batch, also one that kills its process; the
    other samples of a process that died are read again.
    """
    decoding = _Decoding(dataset, processor, needs, classes, answers or {})
    stack = partial(_stack, dataset.modality)
    done = 0
    while done < len(batches):
        try:
            for loaded in _reader(decoding, batches[done:], workers, stack):
                yield _moved(loaded, device)
                done += 1
        except RuntimeError as error:
            if not _is_death(error):
                raise
            # Readers work ahead: which sample it was shows when this batch is read by itself.
            yield _moved(stack(_one_by_one(decoding, batches[done])), device)
            done += 1


def _reader(
    decoding: _Decoding, batches: Sequence[Sequence[int]], workers: int, collate: Callable
) -> DataLoader:
    places = [list(batch) for batch in batches]
    return DataLoader(decoding, batch_sampler=places, num_workers=workers, collate_fn=collate)


def _one_by_one(decoding: _Decoding, batch: Sequence[int]) -> list[Decoded]:
    """Read samples in processes of their own; one that always kills its process is unreadable."""
    found = []
    for index in batch:
        for _ in range(PATIENCE):
            try:
                found += next(iter(_reader(decoding, [[index]], 1, list)))
                break
            except RuntimeError as error:
                if not _is_death(error):
                    raise
                reason = f"Reading it killed the process {PATIENCE} times: {error}"
        else:
            found.append(Decoded(index, str(index), error=" ".join(reason.split())))
    return found


def _is_death(error: RuntimeError) -> bool:
    text = str(error)
    ways = ("exited unexpectedly", "killed by signal")
    return "DataLoader worker" in text and any(way in text for way in ways)


def _stack(modality: str, samples: list[Decoded]) -> Loaded:
    """Return samples as a batch, stacked where they were read: every tensor that goes from one
    process to another takes an open file."""
    good = [sample for sample in samples if sample.error is None]
    failed = [sample for sample in samples if sample.error is not None]
    if not good:
        return Loaded(None, failed)
    columns = {name: [sample.columns[name] for sample in good] for name in good[0].columns}
    index, key = [sample.index for sample in good], [sample.key for sample in good]
    return Loaded(stacked(modality, index, key, columns), failed)


def _moved(loaded: Loaded, device: torch.device) -> Loaded:
    return replace(loaded, batch=None if loaded.batch is None else loaded.batch.arrived(device))
