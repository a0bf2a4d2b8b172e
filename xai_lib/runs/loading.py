"""Samples to batches: read, squashed and stacked, in worker processes where there are any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from xai_lib.datasets.base import ImageDataset
from xai_lib.errors import XAIError
from xai_lib.evaluators import Batch
from xai_lib.models.processor import Processor

# Processes die of a broken file or for want of memory; only the first repeats itself.
PATIENCE = 2


@dataclass(frozen=True)
class Decoded:
    """One sample at the model's size, or the reason why it could not be read."""

    index: int
    key: str
    image: Tensor | None = None
    label: int | None = None
    mask: Tensor | None = None
    error: str | None = None


@dataclass(frozen=True)
class Loaded:
    """A batch of what could be read (None if nothing could), and what could not."""

    batch: Batch | None
    failed: list[Decoded] = field(default_factory=list)


class _Decoding(TorchDataset):
    def __init__(self, dataset: ImageDataset, processor: Processor, needs: frozenset[str]):
        self.dataset, self.processor, self.needs = dataset, processor, needs

    def __getitem__(self, index: int) -> Decoded:
        try:
            sample = self.dataset[index]
            image = self.processor.squash(sample.image)
            mask = None if sample.mask is None else self.processor.squash_mask(sample.mask)
        except (XAIError, OSError) as error:
            return Decoded(index, str(index), error=" ".join(str(error).split()))
        lacks = [n for n in sorted(self.needs) if getattr(sample, n.removesuffix("s")) is None]
        if lacks:
            reason = f"The data set has no {' and no '.join(lacks)} for this sample"
            return Decoded(index, sample.key, error=reason)
        return Decoded(index, sample.key, image, sample.label, mask)


def load_batches(
    dataset: ImageDataset,
    processor: Processor,
    batches: Sequence[Sequence[int]],
    device: torch.device,
    workers: int = 0,
    needs: frozenset[str] = frozenset(),
) -> Iterator[Loaded]:
    """Yield the batches of `batches` (lists of sample places) in order.

    needs: what every sample must have, of "labels" and "masks". A sample that lacks it or cannot
    be read is reported in its batch, also one that kills its process; the other samples of a
    process that died are read again.
    """
    decoding = _Decoding(dataset, processor, needs)
    done = 0
    while done < len(batches):
        try:
            for samples in _reader(decoding, batches[done:], workers):
                yield _stack(samples, device)
                done += 1
        except RuntimeError as error:
            if not _is_death(error):
                raise
            # Readers work ahead: which sample it was shows when this batch is read by itself.
            yield _stack(_one_by_one(decoding, batches[done]), device)
            done += 1


def _reader(decoding: _Decoding, batches: Sequence[Sequence[int]], workers: int) -> DataLoader:
    places = [list(batch) for batch in batches]
    return DataLoader(decoding, batch_sampler=places, num_workers=workers, collate_fn=list)


def _one_by_one(decoding: _Decoding, batch: Sequence[int]) -> list[Decoded]:
    """Read samples in processes of their own; one that always kills its process is unreadable."""
    found = []
    for index in batch:
        for _ in range(PATIENCE):
            try:
                found += next(iter(_reader(decoding, [[index]], 1)))
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


def _stack(samples: list[Decoded], device: torch.device) -> Loaded:
    good = [sample for sample in samples if sample.error is None]
    failed = [sample for sample in samples if sample.error is not None]
    if not good:
        return Loaded(None, failed)

    def stacked(name: str) -> Tensor | None:
        values = [getattr(sample, name) for sample in good]
        if any(value is None for value in values):
            return None
        return torch.stack([torch.as_tensor(value) for value in values]).to(device)

    batch = Batch(
        tuple(sample.index for sample in good),
        tuple(sample.key for sample in good),
        *(stacked(name) for name in ("image", "label", "mask")),
    )
    return Loaded(batch, failed)
