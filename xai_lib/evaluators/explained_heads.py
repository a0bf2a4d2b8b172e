"""What is scored of attention heads, or layers: head scores of every sample alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from xai_lib.evaluators.base import Subject
from xai_lib.evaluators.explained import Classes, all_or_each
from xai_lib.evaluators.packing import ModelRow, padded, size_of
from xai_lib.evaluators.specs import MethodSpec
from xai_lib.heads import HeadScores, head_scores

NOT_FINITE = "The head scores of {method!r} hold NaN or Inf for this sample, so they rank nothing"


def explained_heads(
    subject: Subject,
    rows: Sequence[ModelRow | str],
    methods: Sequence[MethodSpec],
    level: str,
    target: Classes | None,
    seeds: Sequence[int],
) -> list[dict[str, HeadScores] | str]:
    """Return the scores of every sample by method, or why it has none; a reason in `rows` stays.

    Samples of unlike length never share a pass: a score is a mean over pairs of tokens, and padding
    would count among them. seeds: of the random scores, one a sample.
    """
    together: dict[tuple, list[MethodSpec]] = {}
    for spec in methods:
        together.setdefault(tuple(sorted(spec.options.items())), []).append(spec)

    good = {i: row for i, row in enumerate(rows) if not isinstance(row, str)}

    def entries(places: list[int]) -> list[dict[str, HeadScores] | str]:
        inputs = padded(subject, [good[i] for i in places])
        chosen = None if target is None else [int(target[i]) for i in places]
        scores: dict[str, HeadScores] = {}
        for options, specs in together.items():
            each = head_scores(
                subject.model,
                inputs,
                target=chosen,
                methods=[spec.name for spec in specs],
                level=level,
                seed=[seeds[i] for i in places],
                **dict(options),
            )
            assert isinstance(each, dict), "several scores were asked for"
            scores |= {spec.label: each[spec.name] for spec in specs}
        labels = [spec.label for spec in methods]
        return [
            _finite({label: _alone(scores[label], place) for label in labels})
            for place in range(len(places))
        ]

    found: dict[int, dict[str, HeadScores] | str] = {
        i: row for i, row in enumerate(rows) if isinstance(row, str)
    }
    sizes: dict[tuple[int, ...], list[int]] = {}
    for i, row in good.items():
        sizes.setdefault(size_of(row), []).append(i)
    for places in sizes.values():
        found |= zip(places, all_or_each(places, entries), strict=True)
    return [found[i] for i in range(len(rows))]


def _alone(scores: HeadScores, place: int) -> HeadScores:
    """Return the scores of one sample."""
    mine = slice(place, place + 1)
    values, target, logits = scores.values[mine], scores.target[mine], scores.logits[mine]
    return replace(scores, values=values, target=target, logits=logits)


def _finite(scores: dict[str, HeadScores]) -> dict[str, HeadScores] | str:
    """Return the scores of a sample, or why they rank nothing."""
    for label, one in scores.items():
        if not one.values.isfinite().all():
            return NOT_FINITE.format(method=label)
    return scores
