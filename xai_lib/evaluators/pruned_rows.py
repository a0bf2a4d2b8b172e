"""Samples through a model of which other heads are pruned for each: full batches of masked rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from xai_lib.errors import InputError
from xai_lib.evaluators.base import Subject
from xai_lib.evaluators.model_rows import ModelRow, call, padded, shape_of
from xai_lib.evaluators.specs import MethodSpec
from xai_lib.evaluators.texts import reason_of
from xai_lib.heads import HeadScores, head_scores, prune_heads
from xai_lib.passes.loan import borrowed
from xai_lib.tracing import HeadMask

NOT_FINITE = "The head scores of {method!r} hold NaN or Inf for this sample, so they rank nothing"


@dataclass(frozen=True)
class Scored:
    """Scores of one sample: row `place` of `scores`, which holds samples of the same shape."""

    scores: dict[str, HeadScores]
    place: int

    def kept(self, label: str, fractions, order: str, counts: str) -> Bool[Tensor, "steps heads"]:
        """Return which heads stay at each fraction, by the sample's own ranking."""
        found = self.scores[label]
        kept = found.kept(fractions, order, counts=counts, per_sample=True)
        return kept.unflatten(0, (len(fractions), -1))[:, self.place].cpu()

    def alone(self, label: str) -> HeadScores:
        """Return the scores of this one sample."""
        found, mine = self.scores[label], slice(self.place, self.place + 1)
        return replace(
            found, values=found.values[mine], target=found.target[mine], logits=found.logits[mine]
        )


def scored_rows(
    subject: Subject,
    rows: Sequence[ModelRow],
    methods: Sequence[MethodSpec],
    level: str,
    target: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[Scored | str]:
    """Return every sample's head scores, or the reason why it has none.

    Samples of unlike length never share a pass: a score is a mean over pairs of tokens, and padding
    would count among them. seeds: of the random scores, one a sample.
    """
    seeds = [0] * len(rows) if seeds is None else seeds
    shapes: dict[tuple[int, int], list[int]] = {}
    for i, row in enumerate(rows):
        shapes.setdefault(shape_of(row), []).append(i)
    found: list[Scored | str] = [""] * len(rows)
    for places in shapes.values():
        entries = _scored(subject, rows, places, methods, level, target, seeds)
        for place, entry in zip(places, entries, strict=True):
            found[place] = entry
    return found


def _scored(subject, rows, places, methods, level, target, seeds) -> list[Scored | str]:
    """Return the scores of samples of one shape, all at once, or else one by one."""
    chosen = None if target is None else [int(target[i]) for i in places]
    groups: dict[tuple, list[MethodSpec]] = {}
    for spec in methods:
        groups.setdefault(tuple(sorted(spec.options.items())), []).append(spec)
    scores: dict[str, HeadScores] = {}
    try:
        inputs = padded(subject, [rows[i] for i in places])
        for options, specs in groups.items():
            each = head_scores(
                subject.model,
                inputs,
                target=chosen,
                methods=[spec.name for spec in specs],
                level=level,
                seed=[seeds[i] for i in places],
                **dict(options),
            )
            scores |= {spec.label: each[spec.name] for spec in specs}
    except InputError as error:
        if len(places) == 1:
            return [reason_of(error)]
        return [
            entry
            for place in places
            for entry in _scored(subject, rows, [place], methods, level, target, seeds)
        ]
    scores = {spec.label: scores[spec.label] for spec in methods}
    entries: list[Scored | str] = [Scored(scores, place) for place in range(len(places))]
    for label, one in scores.items():
        for place, finite in enumerate(one.values.isfinite().all(1).tolist()):
            if not finite and not isinstance(entries[place], str):
                entries[place] = NOT_FINITE.format(method=label)
    return entries


def pruned_logits(
    subject: Subject,
    rows: Sequence[ModelRow],
    wanted: Sequence[tuple[int, Bool[Tensor, " heads"]]],
    scores: HeadScores,
    size: int,
) -> Float[Tensor, "n classes"]:
    """Return the logits of each wanted (place in rows, heads that stay), in float64.

    Rows of different samples and masks share a pass of `size` rows, each with its own mask; what is
    wanted twice runs once. scores: whose sites the heads are of.
    """
    if not wanted:
        return torch.empty(0, 0, dtype=torch.float64)
    distinct: dict[tuple[int, bytes], tuple[int, Tensor]] = {}
    digests = [(place, np.packbits(kept.numpy()).tobytes()) for place, kept in wanted]
    for digest, one in zip(digests, wanted, strict=True):
        distinct.setdefault(digest, one)
    numbers = {digest: number for number, digest in enumerate(distinct)}
    jobs = list(distinct.values())
    parts = []
    with borrowed(subject.model), torch.no_grad():
        for start in range(0, len(jobs), size):
            part = jobs[start : start + size]
            inputs = padded(subject, [rows[place] for place, _ in part])
            masks = torch.stack([kept for _, kept in part]).to(subject.device, subject.dtype)
            split = zip(scores.sites, masks.split(scores.widths, 1), strict=True)
            with prune_heads(subject.model, HeadMask({site.call: keep for site, keep in split})):
                parts.append(call(subject, inputs))
    return torch.cat(parts)[[numbers[digest] for digest in digests]]
