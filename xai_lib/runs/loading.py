"""Samples to batches: read, images squashed and stacked, in worker processes if there are any."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from xai_lib.datasets.base import Dataset, QuestionSample, Sample, TextSample
from xai_lib.errors import InputError, XAIError
from xai_lib.evaluators import AnyBatch, Batch, QuestionBatch, TextBatch
from xai_lib.models.processors.image import Processor
from xai_lib.models.processors.question import QuestionProcessor
from xai_lib.models.processors.text import TextProcessor

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
    question: QuestionSample | None = None
    answers: dict[int, float] | None = None


@dataclass(frozen=True)
class Loaded:
    """A batch of what could be read (None if nothing could), and what could not."""

    batch: AnyBatch | None
    failed: list[Decoded] = field(default_factory=list)


class _Decoding(TorchDataset):
    def __init__(
        self,
        dataset: Dataset,
        processor: Processor | TextProcessor | QuestionProcessor,
        needs: frozenset[str],
        classes: tuple[int, ...] | None,
        answers: Mapping[str, int] | None = None,
    ):
        self.dataset, self.processor, self.needs = dataset, processor, needs
        self.classes, self.answers = classes, answers or {}

    def __getitem__(self, index: int) -> Decoded:
        try:
            sample = self.dataset[index]
            content = self._content(sample)
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
        if isinstance(sample, QuestionSample):
            content["answers"] = self._answers(sample, label)
        return Decoded(index, str(sample.key), label=label, **content)

    def _content(self, sample: Sample | TextSample | QuestionSample) -> dict[str, object]:
        if isinstance(sample, QuestionSample):
            return self._question(sample)
        return self._text(sample) if hasattr(sample, "text") else self._image(sample)

    def _image(self, sample: Sample) -> dict[str, Tensor | None]:
        image = self.processor.squash(sample.image)
        return {"image": image, "mask": None if sample.mask is None else self._mask(sample)}

    @staticmethod
    def _text(sample: TextSample) -> dict[str, tuple | None]:
        wrong = next((t for t in sample.texts if not isinstance(t, str)), None)
        if wrong is not None:
            raise InputError(f"Its text is {type(wrong).__name__}; expected a str.")
        return {"texts": sample.texts, "rationale": _spans(sample.rationale, sample.text)}

    @staticmethod
    def _question(sample: QuestionSample) -> dict[str, object]:
        """Return the sample without its image, its tensors as arrays: see `_stack`."""
        if sample.features is None or sample.boxes is None:
            raise InputError(
                "It has no regions: open its data set with features and boxes of a detector."
            )
        regions, count = sample.regions, len(sample.features)
        if regions is not None and tuple(regions.shape) != (count,):
            raise InputError(
                f"It says which of {tuple(regions.shape)} regions decide, but has {count}."
            )
        arrays = {
            name: None if value is None else torch.as_tensor(value).numpy()
            for name in ("features", "boxes", "regions")
            for value in [getattr(sample, name)]
        }
        rationale = _spans(sample.rationale, sample.question)
        sample = dataclasses.replace(sample, **arrays, rationale=rationale, image=None)
        return {"question": sample}

    def _answers(self, sample: QuestionSample, label: int | None) -> dict[int, float] | None:
        """Return the scores of the answers that are classes; 1 for the label where none is known.

        A question of which no right answer is a class cannot be answered: nothing scores.
        """
        if (sample.answers is not None and label is None) or (sample.answers and self.answers):
            known = {self.answers.get(text): score for text, score in sample.answers.items()}
            return {place: float(score) for place, score in known.items() if place is not None}
        return None if label is None else {label: 1.0}

    def _mask(self, sample: Sample) -> Tensor:
        image = sample.image
        size = image.shape[-2:] if isinstance(image, Tensor) else (image.height, image.width)
        if tuple(sample.mask.shape) != tuple(size):
            raise InputError(
                f"Its mask is {tuple(sample.mask.shape)}, its image {tuple(size)} (height, width): "
                "expected equal sizes."
            )
        return self.processor.squash_mask(sample.mask)


def _lacks(sample: Sample | TextSample | QuestionSample, need: str) -> bool:
    if need == "evidence":
        return sample.regions is None and sample.rationale is None
    if need == "answers":
        return sample.label is None and getattr(sample, "answers", None) is None
    return getattr(sample, need.removesuffix("s")) is None


def _spans(spans, text: str) -> tuple[tuple[int, int], ...] | None:
    """Return the character spans of a text's rationale, checked."""
    if spans is None:
        return None
    spans = tuple((operator.index(start), operator.index(end)) for start, end in spans)
    for start, end in spans:
        if not 0 <= start < end <= len(text):
            raise InputError(
                f"Its rationale has the span ({start}, {end}), its text {len(text)} characters: "
                "expected 0 <= start < end <= that."
            )
    return spans


def load_batches(
    dataset: Dataset,
    processor: Processor | TextProcessor | QuestionProcessor,
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
    decoding = _Decoding(dataset, processor, needs, classes, answers)
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
    process to another takes an open file. Regions differ in number, so those of questions come as
    arrays, which take none."""
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
    if good[0].question is not None:
        questions = tuple(sample.question for sample in good)
        answers = tuple(sample.answers for sample in good)
        return Loaded(QuestionBatch(*places, questions, answers, stacked("label")), failed)
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
    if isinstance(loaded.batch, QuestionBatch):
        tensors["samples"] = tuple(map(_with_tensors, loaded.batch.samples))
    return Loaded(dataclasses.replace(loaded.batch, **tensors), loaded.failed)


def _with_tensors(sample: QuestionSample) -> QuestionSample:
    """Return a question whose arrays are tensors again, still on the CPU."""
    arrays = {name: getattr(sample, name) for name in ("features", "boxes", "regions")}
    tensors = {n: None if a is None else torch.from_numpy(a) for n, a in arrays.items()}
    return dataclasses.replace(sample, **tensors)
