"""Agreement with truth: does relevance lie on the units that are known to decide.

A unit is a pixel (`localisation`), a region or a word (`evidence`, and with ERASER's own scores
`rationales`). Rows are samples; of the n units that count, M decide.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from xai_lib.errors import OptionError
from xai_lib.evaluators.batches import AnyBatch
from xai_lib.evaluators.eraser.words import evidence_spans
from xai_lib.streams.words import spaced_words_of

NUMBERS = ("pointing", "mass", "rank", "chance")


def agreement_with(
    deciding: Bool[Tensor, "b n"],
    relevance: Float[Tensor, "b n"],
    counted: Bool[Tensor, "b n"] | None = None,
    near: Bool[Tensor, "b n"] | None = None,
) -> dict[str, Float[Tensor, " b"]]:
    """Return `NUMBERS` of every row, in float64; every row has a unit that decides and counts.

    pointing: the share of the most relevant units that decide, or that are `near` such a unit
    (Zhang et al. 2016, section 4.1). mass: Σ_M R⁺ / Σ R⁺, R⁺ = max(R, 0), NaN without a positive
    R. rank: the share of the |M| most relevant units that decides; units tied at the last place
    count by the share of them in M, the mean over all ways to break the tie (both Arras et al.
    2022). chance: |M| / n, what equal positive relevance scores in all three.
    counted: units that count at all, None for all of them.
    """
    counted = torch.ones_like(deciding) if counted is None else counted
    near = deciding if near is None else near
    relevance = relevance.double()
    ranked = relevance.masked_fill(~counted, -torch.inf)
    top = counted & (ranked == ranked.amax(1, keepdim=True))
    positive = relevance.clamp(min=0) * counted
    return {
        "pointing": _share(top, near),
        "mass": (positive * deciding).sum(1) / positive.sum(1),
        "rank": _rank_accuracy(ranked, deciding, counted),
        "chance": _share(counted, deciding),
    }


def deciding_words(text: str, spans: Iterable[tuple[int, int]]) -> Bool[np.ndarray, " words"]:
    """Return which words of `text.split()` share a character with one of the character spans."""
    found = np.zeros(len(spaced_words_of(text)), bool)
    for start, end in evidence_spans(text, spans):
        found[start:end] = True
    return found


def classes_to_explain(
    batch: AnyBatch, explain: str, evaluator: str, truth: str | None = None
) -> Int[Tensor, " b"] | None:
    """Return the labels for explain="label", None for the classes that the model predicts.

    truth: the field of the batch that says which units decide, if a field does. Raises OptionError
    where the batch lacks what `evaluator` needs.
    """
    by_label = explain == "label"
    needed = [*([] if truth is None else [truth]), *(["labels"] if by_label else [])]
    known = {name: getattr(batch, name) for name in needed}
    missing = [name for name, values in known.items() if values is None]
    if missing:
        instead = ", or explain='predicted'" if by_label else ""
        raise OptionError(
            f"{evaluator} needs {' and '.join(needed)}; there are no {' and no '.join(missing)}. "
            f"Use a data set that has them (`xai datasets`){instead}."
        )
    return known.get("labels")


def _rank_accuracy(
    ranked: Float[Tensor, "b n"], deciding: Bool[Tensor, "b n"], counted: Bool[Tensor, "b n"]
) -> Float[Tensor, " b"]:
    size = deciding.sum(1, keepdim=True)
    last = ranked.sort(1, descending=True).values.gather(1, size - 1)
    above, tied = ranked > last, counted & (ranked == last)
    hits = (above & deciding).sum(1) + (size[:, 0] - above.sum(1)) * _share(tied, deciding)
    return hits / size[:, 0]


def _share(of: Bool[Tensor, "b n"], inside: Bool[Tensor, "b n"]) -> Float[Tensor, " b"]:
    return (of & inside).sum(1).double() / of.sum(1)
