"""What a model takes of one sample, of whatever kind: edited, padded to batches, and run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from xai_lib.errors import InputError
from xai_lib.evaluators.base import AnyBatch, Batch, QuestionBatch, Subject
from xai_lib.evaluators.texts import Reader, reason_of
from xai_lib.evaluators.token_stream import distinct
from xai_lib.heads import prune_heads
from xai_lib.passes.loan import borrowed
from xai_lib.streams.prepare import takes_keyword
from xai_lib.streams.targets import logits_of
from xai_lib.tracing import Chains, Trace

# Tensors of one sample by name: (tokens,), (regions,), (regions, numbers), or (3, H, W).
ModelRow = dict[str, Tensor]
PIXELS, REGION_MASK = "pixel_values", "visual_attention_mask"


def rows_of(subject: Subject, batch: AnyBatch) -> list[ModelRow | str]:
    """Return what the model takes of each sample, without padding, on the CPU; or why nothing.

    Images are the exception: they stay where they are, normalised.
    """
    if isinstance(batch, Batch):
        return [{PIXELS: image} for image in subject.normalize(batch.images)]
    questions = isinstance(batch, QuestionBatch)
    read = subject.processor.of if questions else Reader(subject, None)
    found: list[ModelRow | str] = []
    for sample in batch.samples if questions else batch.texts:
        reason = None if questions else read.problem(sample)
        try:
            inputs = None if reason else read([sample])
        except InputError as error:
            reason = reason_of(error)
        found.append(reason or _row(subject, inputs))
    return found


def _row(subject: Subject, inputs) -> ModelRow:
    names = [n for n in inputs if n == "input_ids" or takes_keyword(subject.model, n)]
    row = {name: inputs[name][0].cpu() for name in names}
    return {n: v.to(subject.dtype) if v.is_floating_point() else v for n, v in row.items()}


def shape_of(row: ModelRow) -> tuple[int, int]:
    """Return the number of tokens and of regions."""
    return _length(row, "input_ids"), _length(row, REGION_MASK)


def _length(row: ModelRow, name: str) -> int:
    return len(row[name]) if name in row else 0


def padded(subject: Subject, rows: Sequence[ModelRow]) -> Tensor | ModelRow:
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


def call(subject: Subject, inputs: Tensor | ModelRow) -> Float[Tensor, "n classes"]:
    """Return the logits of a batch in float64, on the CPU."""
    model = subject.model
    output = model(inputs) if isinstance(inputs, Tensor) else model(**inputs)
    return logits_of(output).double().cpu()


def stream_rows(subject: Subject, rows: Sequence[ModelRow]) -> Float[Tensor, "n classes"]:
    """Return the logits of every row in float64, in the order given; (0, 0) for no rows.

    Equal rows run once. The others are sorted by length and run `subject.batch_size` at a time, in
    eval mode without a gradient. Rows of no region go by themselves (`without_regions`).
    """
    if not rows:
        return torch.empty(0, 0, dtype=torch.float64)
    kept, order = distinct(rows, _digest)
    logits: list[Tensor | None] = [None] * len(kept)
    blind = [i for i, row in enumerate(kept) if REGION_MASK in row and not len(row[REGION_MASK])]
    seeing = sorted(set(range(len(kept))) - set(blind), key=lambda i: shape_of(kept[i]))
    with borrowed(subject.model), torch.no_grad():
        for places in _cut(seeing, subject.batch_size):
            found = call(subject, padded(subject, [kept[i] for i in places]))
            logits = _filled(logits, places, found)
        for places in _cut(sorted(blind, key=lambda i: shape_of(kept[i])), subject.batch_size):
            found = without_regions(subject, [kept[i] for i in places])
            logits = _filled(logits, places, found)
    return torch.stack(logits)[order]


def without_regions(subject: Subject, rows: Sequence[ModelRow]) -> Float[Tensor, "n classes"]:
    """Return the logits of questions on an image of no region.

    A softmax over no key gives no context, which transformers' models cannot compute. So there is
    one region of zeros that is masked; where the question looks at regions by cross-attention,
    whose softmax would then be even, its heads are multiplied by 0, which is the same.
    """
    blank = [
        {n: v.new_zeros(1, *v.shape[1:]) if n.startswith("visual_") else v for n, v in row.items()}
        for row in rows
    ]
    inputs = padded(subject, blank)
    crossed: list[int] = []
    with Trace(
        subject.model,
        chains=Chains(),
        keep=False,
        on_site=lambda site: crossed.append(site.index) if site.kind == "cross" else None,
    ):
        found = call(subject, inputs)
    if not crossed:
        return found
    with prune_heads(subject.model, dict.fromkeys(crossed, "all")):
        return call(subject, inputs)


def _cut(places: list[int], size: int) -> list[list[int]]:
    return [places[i : i + size] for i in range(0, len(places), size)]


def _filled(logits: list, places: list[int], found: Tensor) -> list:
    for place, line in zip(places, found, strict=True):
        logits[place] = line
    return logits


def _digest(row: ModelRow) -> bytes:
    # Not the bytes themselves: a hundred regions of an image are more than a megabyte.
    digest = hashlib.sha256()
    for name, values in row.items():
        # In float64, since NumPy knows no bfloat16; every number keeps its value there.
        digest.update(f"{name}{tuple(values.shape)}".encode())
        digest.update(values.double().cpu().numpy().tobytes())
    return digest.digest()
