"""Edited images as one stream through the model: full batches, one buffer, no gradient."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xai_lib.errors import InputError, XAIError
from xai_lib.evaluators.base import Subject
from xai_lib.passes.loan import borrowed
from xai_lib.streams.targets import logits_of


@dataclass(frozen=True)
class Edits:
    """Copies of images, a copy per count, in which the first `count` pixels are replaced.

    images: as the model takes them. ranks: each pixel's place in the order of replacement, from 0.
    counts: pixels replaced. fill: what they become, with dimensions of size 1 where it is the same
    along them. All tensors are on one device; nothing is edited before a batch needs it.
    """

    images: Float[Tensor, "b 3 h w"]
    ranks: Int[Tensor, "b h w"]
    counts: Sequence[int]
    fill: Float[Tensor, "#b 3 #h #w"]

    @classmethod
    def none(cls, images: Float[Tensor, "b 3 h w"]) -> Edits:
        """Return every image once, as it is."""
        ranks = torch.zeros(1, 1, 1, dtype=torch.int32, device=images.device)
        return cls(images, ranks.expand(len(images), 1, 1), (0,), images[:1])

    def __len__(self) -> int:
        return len(self.counts) * len(self.images)

    def write(self, start: int, out: Float[Tensor, "n 3 h w"]) -> None:
        """Write the copies start to start + n into `out`; all images at a count, then the next."""
        done = 0
        while done < len(out):
            count, first = divmod(start + done, len(self.images))
            part = slice(first, min(first + len(out) - done, len(self.images)))
            # Slices and numbers, no index tensors: nothing here makes the device wait for the host.
            replaced = self.ranks[part] < self.counts[count]
            fill = self.fill if len(self.fill) == 1 else self.fill[part]
            images = self.images[part]
            torch.where(replaced[:, None], fill, images, out=out[done : done + len(images)])
            done += len(images)


def stream(subject: Subject, edits: Iterable[Edits]) -> list[Float[Tensor, "counts b classes"]]:
    """Return the logits of all copies, per element of `edits`, in the order of its counts.

    Copies of different elements share a batch: each pass of the model takes exactly
    `subject.batch_size` images, only the last one may take fewer. `edits` may be a generator that
    explains on its way; one element at a time is held. The model runs in eval mode without a
    gradient and comes back as it was.
    """
    packer = _Packer(subject)
    with borrowed(subject.model):
        for each in edits:
            packer.add(each)
        return packer.finish()


class _Packer:
    """The buffer that copies gather in, and the logits of those that have passed."""

    def __init__(self, subject: Subject):
        self.subject = subject
        self.buffer: Tensor | None = None
        self.filled = 0
        self.shapes: list[tuple[int, int]] = []
        self.logits: list[Tensor] = []

    @torch.inference_mode()
    def add(self, edits: Edits) -> None:
        self.shapes.append((len(edits.counts), len(edits.images)))
        if self.buffer is None:
            shape = (self.subject.batch_size, *edits.images.shape[1:])
            self.buffer = edits.images.new_empty(shape)
        done = 0
        while done < len(edits):
            taken = min(len(edits) - done, len(self.buffer) - self.filled)
            edits.write(done, self.buffer[self.filled : self.filled + taken])
            done, self.filled = done + taken, self.filled + taken
            if self.filled == len(self.buffer):
                self._run()

    @torch.inference_mode()
    def _run(self) -> None:
        images = self.buffer[: self.filled]
        try:
            self.logits.append(logits_of(self.subject.model(images)))
        except (AssertionError, ValueError) as error:
            if isinstance(error, XAIError):
                raise
            raise InputError(
                f"The model refused images of shape {tuple(images.shape)}: {error} Its processor's "
                "size is another than that which it was built for."
            ) from error
        self.filled = 0

    def finish(self) -> list[Tensor]:
        if self.filled:
            self._run()
        if not self.logits:
            return []
        sizes = [counts * images for counts, images in self.shapes]
        parts = torch.cat(self.logits).split(sizes)
        return [part.unflatten(0, shape) for part, shape in zip(parts, self.shapes, strict=True)]
