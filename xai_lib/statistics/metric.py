"""A number of a table, in the one form that intervals and paired tests treat alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# Of a single row of parts it is a number.
Values = float | np.ndarray


def identity(parts: np.ndarray) -> Values:
    """Return the single column of parts: the value of a metric that is a plain mean."""
    return parts[..., 0]


@dataclass(frozen=True)
class Metric:
    """A number of a table: value(mean over samples of parts).

    A mean has one part per sample and value = identity. A ratio of sums over the data set, such as
    pixel accuracy, has several: parts (correct, labelled), value a/b. That one form lets bootstrap
    and paired tests treat every metric alike. `columns` of the records become the parts, in order;
    `value` maps (..., parts) to (...). better: "high", "low", None where neither is, or, where it
    depends on a group, which of them by its value ({"positive": "low", "negative": "high"}).
    scale: factor for display (100 for per cent).
    """

    name: str
    columns: tuple[str, ...]
    value: Callable[[np.ndarray], Values] = identity
    better: str | dict[str, str] | None = "high"
    scale: float = 1.0
