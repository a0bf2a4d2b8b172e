"""Edited copies of what a model takes, of any modality, in full batches without a gradient."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from xai_lib.errors import InputError, XAIError
from xai_lib.evaluators.base import Subject
from xai_lib.heads import prune_heads
from xai_lib.heads.ranking import ScoredSite
from xai_lib.passes.loan import borrowed
from xai_lib.streams.outputs import logits_of
from xai_lib.tracing import Chains, HeadMask, Trace

# What a model takes of one sample: (tokens,), (regions,), (regions, numbers), or (3, H, W).
ModelRow = dict[str, Shaped[Tensor, "..."]]
PIXELS, REGION_MASK = "pixel_values", "visual_attention_mask"


def stream_of(name: str) -> str:
    """Return the stream that an input of a question belongs to, "image" or "text"."""
    return "image" if name.startswith("visual_") else "text"


@dataclass(frozen=True, eq=False)
class RowEdits:
    """Edited copies of one sample, a row each.

    keys: equal where copies are, of whatever edits: those run once. kept: by copy, which attention
    heads stay, of all `sites` (with the number of their heads) in order; None prunes nothing.
    """

    rows: Sequence[ModelRow]
    keys: Sequence[Hashable]
    kept: Bool[Tensor, "n heads"] | None = None
    sites: Sequence[tuple[ScoredSite, int]] = ()

    def size_of(self, copy: int) -> tuple[int, ...]:
        return size_of(self.rows[copy])


@dataclass(frozen=True, eq=False)
class PixelEdits:
    """Copies of an image, a copy per count, in which the first `count` pixels are replaced.

    image: as the model takes it. ranks: each pixel's place in the order of replacement, from 0.
    counts: pixels replaced. fill: what they become, of size 1 where it is the same along a
    dimension. keys: as of `RowEdits`. All tensors are on one device; nothing is edited before a
    batch needs it.
    """

    image: Float[Tensor, "3 h w"]
    ranks: Int[Tensor, "#h #w"]
    counts: Int[Tensor, " n"]
    fill: Float[Tensor, "3 #h #w"]
    keys: Sequence[Hashable]

    @classmethod
    def none(cls, image: Float[Tensor, "3 h w"], key: Hashable) -> PixelEdits:
        """Return an image once, as it is."""
        nothing = torch.zeros(1, dtype=torch.int32, device=image.device)
        return cls(image, nothing[None], nothing, image, [key])

    def size_of(self, copy: int) -> tuple[int, ...]:
        return tuple(self.image.shape)

    def write(self, start: int, out: Float[Tensor, "n 3 h w"]) -> None:
        """Write the copies start to start + n into `out`."""
        # Slices, no index tensors: nothing here makes the device wait for the host.
        counts = self.counts[start : start + len(out), None, None]
        torch.where((self.ranks < counts)[:, None], self.fill, self.image, out=out)


Edits = RowEdits | PixelEdits


def size_of(row: ModelRow) -> tuple[int, ...]:
    """Return the number of tokens and of regions; of an image its shape."""
    if PIXELS in row:
        return tuple(row[PIXELS].shape)
    return tuple(len(row[name]) if name in row else 0 for name in ("input_ids", REGION_MASK))


def padded(subject: Subject, rows: Sequence[ModelRow]) -> Float[Tensor, "n 3 h w"] | ModelRow:
    """Return rows as one batch on the model's device: what `xai.explain` and the model take.

    Texts are padded at the right with the tokenizer's id and mask 0, regions with zeros and mask 0.
    """
    if PIXELS in rows[0]:
        return torch.stack([row[PIXELS] for row in rows])
    fill = {"input_ids": subject.processor.tokenizer.pad_token_id or 0}
    return {
        name: torch.nn.utils.rnn.pad_sequence(
            [row[name] for row in rows], batch_first=True, padding_value=fill.get(name, 0)
        ).to(subject.device)
        for name in rows[0]
    }


def packed(
    subject: Subject, edits: Iterable[Edits], size: int | None = None
) -> list[Float[Tensor, "n classes"]]:
    """Return the logits of the copies of each edits, in float64 on the CPU.

    Copies of one size, of whatever edits, share a pass as soon as there are `size` of them (the
    subject's batch size); what is left at the end goes in order of size, texts and regions padded.
    So each pass takes `size` copies, save the last of those that cannot be mixed. Copies with equal
    keys run once. `edits` may be a generator that explains on its way: only copies that wait for
    their batch are held. The model runs in eval mode without a gradient and comes back as it was.
    """
    packing = _Packing(subject, size or subject.batch_size)
    with borrowed(subject.model):
        for each in edits:
            packing.add(each)
        return packing.finish()


class _Copy(NamedTuple):
    """Copy `place` of some edits; `number` is the place of its logits."""

    edits: Edits
    place: int
    number: int


class _Packing:
    """Copies that wait for a batch, by size, and the logits of those that have passed."""

    def __init__(self, subject: Subject, size: int):
        self.subject, self.size = subject, size
        self.waiting: dict[tuple[int, ...], list[_Copy]] = {}
        self.numbers: dict[Hashable, int] = {}
        # The number of every copy that came, and those of every batch that passed.
        self.came: list[list[int]] = []
        self.passed: list[int] = []
        self.logits: list[Tensor] = []
        self.buffer: Tensor | None = None
        self.crossing: list[int] | None = None

    @torch.inference_mode()
    def add(self, edits: Edits) -> None:
        for place, key in enumerate(edits.keys):
            if key in self.numbers:
                continue
            number = self.numbers[key] = len(self.numbers)
            size = edits.size_of(place)
            batch = self.waiting.setdefault(size, [])
            batch.append(_Copy(edits, place, number))
            if len(batch) == self.size:
                self._run(self.waiting.pop(size))
        self.came.append([self.numbers[key] for key in edits.keys])

    def finish(self) -> list[Tensor]:
        with torch.inference_mode():
            for batch in self._rest():
                self._run(batch)
        if not self.logits:
            return []
        logits = torch.cat(self.logits).double().cpu()[torch.tensor(self.passed).argsort()]
        return [logits[numbers] for numbers in self.came]

    def _rest(self) -> Iterator[list[_Copy]]:
        """Yield what is left, the longest first, so that what is padded differs little."""
        batch: list[_Copy] = []
        before: tuple[int, ...] = ()
        # Images of no region by themselves, since they run in a way of their own.
        for size in sorted(self.waiting, key=lambda size: (bool(size[-1]), size), reverse=True):
            for copy in self.waiting[size]:
                if batch and (len(batch) == self.size or not self._mixes(before, size)):
                    yield batch
                    batch = []
                batch.append(copy)
                before = size
        if batch:
            yield batch

    def _mixes(self, one: tuple[int, ...], other: tuple[int, ...]) -> bool:
        """Whether copies of two sizes can share a batch, the shorter ones padded."""
        if one == other or len(one) == 3 or len(other) == 3:
            return one == other
        alike = bool(one[1]) == bool(other[1])
        return alike and self.subject.processor.tokenizer.pad_token_id is not None

    def _run(self, batch: list[_Copy]) -> None:
        self.passed += [copy.number for copy in batch]
        # Copies that share a pass are of one size, and so of one kind.
        images = [(copy.edits, copy.place) for copy in batch if isinstance(copy.edits, PixelEdits)]
        if images:
            self.logits.append(self._call(self._written(images)))
            return
        texts = [(copy.edits, copy.place) for copy in batch if isinstance(copy.edits, RowEdits)]
        rows = [edits.rows[place] for edits, place in texts]
        kept = [edits.kept[place] for edits, place in texts if edits.kept is not None]
        if any(REGION_MASK in row and not len(row[REGION_MASK]) for row in rows):
            self.logits.append(self._without_regions(rows))
        elif not kept:
            self.logits.append(self._call(padded(self.subject, rows)))
        else:
            sites = texts[0][0].sites
            masks = torch.stack(kept).to(self.subject.device, self.subject.dtype)
            parts = masks.split([heads for _, heads in sites], 1)
            by_call = {site.call: part for (site, _), part in zip(sites, parts, strict=True)}
            with prune_heads(self.subject.model, HeadMask(by_call)):
                self.logits.append(self._call(padded(self.subject, rows)))

    def _written(self, copies: list[tuple[PixelEdits, int]]) -> Float[Tensor, "n 3 h w"]:
        """Return edited images, neighbouring copies of one image written at once."""
        image = copies[0][0].image
        if self.buffer is None or self.buffer.shape[1:] != image.shape:
            self.buffer = image.new_empty(self.size, *image.shape)
        done = 0
        numbered = [(edits, place, n) for n, (edits, place) in enumerate(copies)]
        for (edits, _), group in groupby(numbered, lambda one: (one[0], one[1] - one[2])):
            places = [place for _, place, _ in group]
            edits.write(places[0], self.buffer[done : done + len(places)])
            done += len(places)
        return self.buffer[:done]

    def _without_regions(self, rows: Sequence[ModelRow]) -> Tensor:
        """Return the logits of questions on an image of no region.

        A softmax over no key gives no context, which transformers' models cannot compute. So there
        is one region of zeros that is masked; where the question looks at regions by
        cross-attention, whose softmax would then be even, its heads are multiplied by 0, which is
        the same.
        """
        blank = [
            {n: v.new_zeros(1, *v.shape[1:]) if stream_of(n) == "image" else v
             for n, v in row.items()}
            for row in rows
        ]  # fmt: skip
        inputs = padded(self.subject, blank)
        if self.crossing is None:
            self.crossing = self._cross_attentions(inputs)
        if not self.crossing:
            return self._call(inputs)
        with prune_heads(self.subject.model, dict.fromkeys(self.crossing, "all")):
            return self._call(inputs)

    def _cross_attentions(self, inputs: Tensor | ModelRow) -> list[int]:
        found: list[int] = []

        def note(site) -> None:
            if site.kind == "cross":
                found.append(site.index)

        with Trace(self.subject.model, chains=Chains(), keep=False, on_site=note):
            self._call(inputs)
        return found

    def _call(self, inputs: Tensor | ModelRow) -> Tensor:
        model = self.subject.model
        if not isinstance(inputs, Tensor):
            return logits_of(model(**inputs))
        try:
            return logits_of(model(inputs))
        except (AssertionError, ValueError) as error:
            if isinstance(error, XAIError):
                raise
            raise InputError(
                f"The model refused images of shape {tuple(inputs.shape)}: {error} Its processor's "
                "size is another than that which it was built for."
            ) from error
