"""Labelled texts for training: read, cut into training and validation, encoded, put in buckets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from xai_lib.datasets.base import TextDataset
from xai_lib.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_HELD_OUT = 2000
# Batches whose texts are sorted by length together: enough to pad little, few enough to mix.
POOL = 50


@dataclass(frozen=True)
class Labelled:
    """Texts (one or two a sample) and their class indices."""

    texts: tuple[tuple[str, ...], ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Sequence[int]) -> Labelled:
        return Labelled(tuple(self.texts[i] for i in rows), tuple(self.labels[i] for i in rows))


def read_labelled(
    dataset: TextDataset, class_names: Sequence[str] | None = None, limit: int | None = None
) -> Labelled:
    """Return a data set's texts and labels; with a limit every k-th, since sets are sorted.

    class_names: of the training set, which every other set must have too. Raises InputError for
    samples without label or with one outside the classes.
    """
    if not isinstance(dataset, TextDataset) or not dataset.has_labels:
        what = "has no labels" if isinstance(dataset, TextDataset) else "is no set of texts"
        raise InputError(f"The data set {dataset.name!r} {what}: nothing can be learnt from it.")
    names = dataset.class_names
    if class_names is not None and names is not None and tuple(names) != tuple(class_names):
        raise InputError(
            f"The data set {dataset.name!r} has the classes {', '.join(names[:8])}, the training "
            f"set {', '.join(class_names[:8])}: expected the same in the same order."
        )
    count = min(limit or len(dataset), len(dataset))
    texts, labels = [], []
    for i in range(count):
        sample = dataset[i * len(dataset) // count]
        label = sample.label
        known = class_names if class_names is not None else names
        if label is None or label < 0 or (known is not None and label >= len(known)):
            raise InputError(
                f"Sample {sample.key!r} of {dataset.name!r} has the label {label!r}; expected "
                f"0 to {len(known) - 1 if known is not None else 'the number of classes - 1'}."
            )
        texts.append(sample.texts)
        labels.append(int(label))
        if len(texts[-1]) != len(texts[0]):
            raise InputError(
                f"Sample {sample.key!r} of {dataset.name!r} has {len(texts[-1])} texts, the first "
                f"one {len(texts[0])}: a model reads single texts or pairs, not both."
            )
    return Labelled(tuple(texts), tuple(labels))


def held_out(samples: Labelled, share: float, seed: int) -> tuple[Labelled, Labelled]:
    """Return (training, validation): about `share` of each class, whatever the samples' order.

    Which samples are held out depends on their text and the seed alone, so equal texts of a class
    are never on both sides. Raises InputError where nothing is left for one of them.
    """
    share = min(share, MOST_HELD_OUT / max(1, len(samples)))

    def rank(i: int) -> str:
        return hashlib.sha256(f"{seed}\0{chr(0).join(samples.texts[i])}".encode()).hexdigest()

    chosen: set[int] = set()
    for label in sorted(set(samples.labels)):
        ranked = sorted((rank(i), i) for i, own in enumerate(samples.labels) if own == label)
        last = ranked[max(1, round(share * len(ranked))) - 1][0]
        chosen |= {i for value, i in ranked if value <= last}
    rest = [i for i in range(len(samples)) if i not in chosen]
    if set(samples[rest].labels) != set(samples.labels):
        raise InputError(
            f"{len(samples)} training samples of {len(set(samples.labels))} classes are too few to "
            "hold any out: name a validation set."
        )
    return samples[rest], samples[sorted(chosen)]


class Encoded(TorchDataset):
    """Samples as the model takes them: input_ids, attention_mask, ..., labels.

    lengths: tokens of each; longest: of them all before any was cut; cut: how many were longer than
    `max_length`. by_length: the shortest first, for sets whose order does not matter.
    """

    def __init__(
        self,
        samples: Labelled,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int | None,
        by_length: bool = False,
    ):
        pairs = any(len(texts) == 2 for texts in samples.texts)
        first = [texts[0] for texts in samples.texts]
        second = [texts[1] for texts in samples.texts] if pairs else None
        # Longer than the model is what is asked about here, so transformers need not warn of it.
        whole = tokenizer(first, second, verbose=False)
        self.lengths = [len(ids) for ids in whole["input_ids"]]
        self.longest = max(self.lengths)
        self.cut = 0 if max_length is None else sum(n > max_length for n in self.lengths)
        if self.cut:
            whole = tokenizer(first, second, truncation=True, max_length=max_length)
            self.lengths = [len(ids) for ids in whole["input_ids"]]
        self.rows = [
            {name: values[i] for name, values in whole.items()} | {"labels": label}
            for i, label in enumerate(samples.labels)
        ]
        if by_length:
            order = sorted(range(len(self.rows)), key=self.lengths.__getitem__)
            self.rows = [self.rows[i] for i in order]
            self.lengths = [self.lengths[i] for i in order]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, object]:
        return self.rows[index]


class Buckets(Sampler[int]):
    """An epoch's order of samples: batches of similar length, in random order.

    The order of an epoch follows from the seed and its number, which `epoch()` tells when it
    starts, so that a resumed epoch is the interrupted one.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, seed: int, epoch: Callable[[], int]
    ):
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 10_007 + self.epoch())
        order = torch.randperm(len(self), generator=generator).tolist()
        size, pool = self.batch_size, self.batch_size * POOL
        batches = []
        for start in range(0, len(order), pool):
            chosen = sorted(order[start : start + pool], key=self.lengths.__getitem__)
            batches += [chosen[i : i + size] for i in range(0, len(chosen), size)]
        # Only the last batch of the last pool can be short, and a short one must come last.
        short = [batches.pop()] if len(batches[-1]) < size else []
        mixed = torch.randperm(len(batches), generator=generator).tolist()
        for batch in [*(batches[i] for i in mixed), *short]:
            yield from batch
