"""Agreement: do two methods rank the patches of an image alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xai_lib.errors import OptionError
from xai_lib.evaluators.base import Evaluator, Row, Subject
from xai_lib.evaluators.batches import Batch
from xai_lib.evaluators.maps import Maps, explained
from xai_lib.evaluators.registry import evaluator
from xai_lib.evaluators.similarity import errors_with_constant, spearman
from xai_lib.evaluators.specs import MethodSpec
from xai_lib.statistics.metric import Metric

CONSTANT = "The relevance of {method!r} is the same for every patch, so it ranks nothing"


@evaluator("agreement")
@dataclass(frozen=True)
class Agreement(Evaluator):
    """Spearman's rank correlation of the relevance of the patches, for every pair of methods.

    Compared is the relevance per patch, before any enlargement: the one resolution that all methods
    have. The predicted class is explained. Every ordered pair has its row, so that records hold the
    whole symmetric matrix. A map that is constant or holds NaN ranks nothing: its pairs are error
    rows. A method does not agree with itself by merit: there is no row for that.
    """

    groups = ("method", "other")
    metrics = (Metric("rank_correlation", ("rank_correlation",), better=None),)

    def rows(self, subject: Subject, batch: Batch, methods: Sequence[MethodSpec]) -> Iterator[Row]:
        if len(methods) < 2:
            raise OptionError("Agreement compares methods: name at least two, or 'all'.")
        found = {spec.label: explained(subject, batch, spec, maps="patches") for spec in methods}
        errors = {label: _errors(maps, label) for label, maps in found.items()}
        for method, maps in found.items():
            for other, others in found.items():
                if method == other:
                    continue
                # Where a method has no map of any sample, not even the grid is known.
                known = maps.scored and others.scored
                values = spearman(maps.patches, others.patches).tolist() if known else []
                for i, (index, key) in enumerate(zip(batch.index, batch.key, strict=True)):
                    error = errors[method][i] or errors[other][i]
                    yield {
                        "index": index,
                        "key": key,
                        "method": method,
                        "other": other,
                        "rank_correlation": None if error else values[i],
                        "error": error,
                    }


def _errors(maps: Maps, label: str) -> list[str | None]:
    if not maps.scored:
        return list(maps.errors)
    return errors_with_constant(maps.errors, maps.patches, CONSTANT.format(method=label))
