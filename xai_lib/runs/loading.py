"""Samples to batches: read, images squashed and stacked, in worker processes if there are any."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from xai_lib.datasets.base import Dataset, Sample, TextSample
from xai_lib.errors import InputError, XAIError
from xai_lib.evaluators import Batch, TextBatch
from xai_lib.models.processor import Processor
from xai_lib.models.text_processor import TextProcessor

# Processes die of a broken file or for want of memory; only the first repeats itself.
PATIENCE = 2


@dataclass(frozen=True)
class Decoded:
    """One sample, an image at the model's size, or the reason why it could not be read."""

    index: int
    key: str
    image: Tensor | None = None
    label: int | None = None
    mask: Tensor | None = None
    error: str | None = None
    texts: tuple[str, ...] | None = None
    rationale: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True)
class Loaded:
    """A batch of what could be read (None if nothing could), and what could not."""

    batch: Batch | TextBatch | None
    failed: list[Decoded] = field(default_factory=list)


class _Decoding(TorchDataset):
    def __init__(
        self,
        dataset: Dataset,
        processor: Processor | TextProcessor,
        needs: frozenset[str],
        classes: tuple[int, ...] | None,
    ):
        self.dataset, self.processor, self.needs = dataset, processor, needs
        self.classes = classes

    def __getitem__(self, index: int) -> Decoded:
        try:
            sample = self.dataset[index]
            content = self._text(sample) if hasattr(sample, "text") else self._image(sample)
            label = None if sample.label is None else operator.index(sample.label)
        except Exception as error:  # decoders raise whatever a damaged file leads them to
            reason = str(error) if isinstance(error, XAIError | OSError) else repr(error)
            return Decoded(index, str(index), error=" ".join(reason.split()))
        lacks = [n for n in sorted(self.needs) if getattr(sample, n.removesuffix("s")) is None]
        if lacks:
            reason = f"The data set has no {' and no '.join(lacks)} for this sample"
            return Decoded(index, str(sample.key), error=reason)
        if label is not None and self.classes is not None:
            if not 0 <= label < len(self.classes):
                reason = f"Its label is {label}, but the data set has {len(self.classes)} classes"
                return Decoded(index, str(sample.key), error=reason)
            label = self.classes[label]
        return Decoded(index, str(sample.key), label=label, **content)

    def _image(self, sample: Sample) -> dict[str, Tensor | None]:
        image = self.processor.squash(sample.image)
        return {"image": image, "mask": None if sample.mask is None else self._mask(sample)}

    @staticmethod
    def _text(sample: TextSample) -> dict[str, tuple | None]:
        wrong = next((t for t in sample.texts if not isinstance(t, str)), None)
        if wrong is not None:
            raise InputError(f"Its text is {type(wrong).__name__}; expected a str.")
        spans = sample.rationale
        if spans is None:
            return {"texts": sample.texts}
        spans = tuple((operator.index(start), operator.index(end)) for start, end in spans)
        for start, end in spans:
            if not 0 <= start < end <= len(sample.text):
                raise InputError(
                    f"Its rationale has the span ({start}, {end}), its text {len(sample.text)} "
                    "characters: expected 0 <= start < end <= that."
                )
        return {"texts": sample.texts, "rationale": spans}

    def _mask(self, sample: Sample) -> Tensor:
        image = sample.image
        size = image.shape[-2:] if isinstance(image, Tensor) else (image.height, image.width)
        if tuple(sample.mask.shape) != tuple(size):
            raise InputError(
                f"Its mask is {tuple(sample.mask.shape)}, its image {tuple(size)} (height, width): "
                "expected equal sizes."
            )
        return self.processor.squash_mask(sample.mask)


def load_batches(
    dataset: Dataset,
    processor: Processor | TextProcessor,
    batches: Sequence[Sequence[int]],
    device: torch.device,
    workers: int = 0,
    needs: frozenset[str] = frozenset(),
    classes: tuple[int, ...] | None = None,
) -> Iterator[Loaded]:
    """Yield the batches of `batches` (lists of sample places) in order.

    needs: what every sample must have, of "labels", "masks" and "rationales". classes: the model's
    class of each label, None where they are the same. A sample that lacks something or cannot be
    read is reported in its batch, also one that kills its process; the other samples of a process
    that died are read again.
    """
    decoding = _Decoding(dataset, processor, needs, classes)
    done = 0
    while done < len(batches):
        try:
            for loaded in _reader(decoding, batches[done:], workers, _stack):
                yield _moved(loaded, device)
                done += 1
        except RuntimeError as error:
            if not _is_death(error):
                raise
            # Readers work ahead: which sample it was shows when this batch is read by itself.
            yield _moved(_stack(_one_by_one(decoding, batches[done])), device)
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


def _stack(samples: list[Decoded]) -> Loaded:
    """Return samples as a batch: stacked where they were read, as every tensor that goes from one
    process to another takes an open file."""
    good = [sample for sample in samples if sample.error is None]
    failed = [sample for sample in samples if sample.error is not None]
    if not good:
        return Loaded(None, failed)

    def stacked(name: str) -> Tensor | None:
        values = [getattr(sample, name) for sample in good]
        if any(value is None for value in values):
            return None
        return torch.stack([torch.as_tensor(value) for value in values])

    places = tuple(sample.index for sample in good), tuple(sample.key for sample in good)
    if good[0].texts is None:
        columns = (stacked(name) for name in ("image", "label", "mask"))
        return Loaded(Batch(*places, *columns), failed)
    spans = tuple(sample.rationale for sample in good)
    rationales = None if None in spans else spans
    texts = tuple(sample.texts for sample in good)
    return Loaded(TextBatch(*places, texts, stacked("label"), rationales), failed)


def _moved(loaded: Loaded, device: torch.device) -> Loaded:
    if loaded.batch is None:
        return loaded
    tensors = {
        name: None if value is None else value.to(device)
        for name in ("images", "labels", "masks")
        if hasattr(loaded.batch, name)
        for value in [getattr(loaded.batch, name)]
    }
    return Loaded(dataclasses.replace(loaded.batch, **tensors), loaded.failed)
