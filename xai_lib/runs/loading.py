"""Samples to batches: read, squashed and stacked, in worker processes where there are any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from xai_lib.datasets.base import ImageDataset
from xai_lib.errors import RunError, XAIError
from xai_lib.evaluators import Batch
from xai_lib.models.processor import Processor, squash_mask

# A decoder that dies takes its process with it; twice may be bad luck, three times is a file.
PATIENCE = 3


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
    def __init__(self, dataset: ImageDataset, processor: Processor):
        self.dataset, self.processor = dataset, processor

    def __getitem__(self, index: int) -> Decoded:
        try:
            sample = self.dataset[index]
            image = self.processor.squash(sample.image)
            mask = None if sample.mask is None else squash_mask(sample.mask, self.processor.size)
        except (XAIError, OSError) as error:
            return Decoded(index, str(index), error=" ".join(str(error).split()))
        return Decoded(index, sample.key, image, sample.label, mask)


def load_batches(
    dataset: ImageDataset,
    processor: Processor,
    batches: Sequence[Sequence[int]],
    device: torch.device,
    workers: int = 0,
) -> Iterator[Loaded]:
    """Yield the batches of `batches` (lists of sample places) in order.

    A sample that cannot be read is reported in its batch. A worker process that dies is replaced
    and its batch read again; RunError if that keeps happening.
    """
    done, failures = 0, 0
    while done < len(batches):
        loader = DataLoader(
            _Decoding(dataset, processor),
            batch_sampler=[list(batch) for batch in batches[done:]],
            num_workers=workers,
            collate_fn=list,
        )
        try:
            for samples in loader:
                yield _stack(samples, device)
                done, failures = done + 1, 0
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            failures += 1
            if failures == PATIENCE:
                raise RunError(
                    f"Processes that decode images died {PATIENCE} times near the samples "
                    f"{list(batches[done])} ({error}). Finished shards are kept. Look at those "
                    "files and at the memory, then run the same command with --workers 0."
                ) from error


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
