"""How good an explanation is: evaluators from a model, a data set and methods to one row a sample.

Which one measures what, with formulas and sources: docs/evaluation.md.
"""

from xai_lib.evaluators.base import Evaluator, Subject
from xai_lib.evaluators.batches import AnyBatch, Batch, QuestionBatch, TextBatch
from xai_lib.evaluators.registry import (
    all_evaluators,
    create,
    evaluator_class,
    parse_methods_of,
)
from xai_lib.evaluators.specs import MethodSpec, parse_methods
from xai_lib.statistics.metric import Metric

__all__ = [
    "AnyBatch",
    "Batch",
    "Evaluator",
    "MethodSpec",
    "Metric",
    "QuestionBatch",
    "Subject",
    "TextBatch",
    "all_evaluators",
    "create",
    "evaluator_class",
    "parse_methods",
    "parse_methods_of",
]
