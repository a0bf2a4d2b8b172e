"""How good an explanation is: evaluators from a model, a data set and methods to one row a sample.

Which one measures what, with formulas and sources: docs/evaluation.md.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable
from dataclasses import fields
from importlib import import_module

from xai_lib.errors import unknown_name
from xai_lib.evaluators.base import AnyBatch, Batch, Evaluator, QuestionBatch, Subject, TextBatch
from xai_lib.evaluators.specs import MethodSpec, parse_methods
from xai_lib.options import check_options
from xai_lib.statistics.metric import Metric

# Name: module and class. Modules load on demand.
EVALUATORS = {
    "segmentation": ("segmentation", "Segmentation"),
    "perturbation": ("perturbation", "Perturbation"),
    "insertion_deletion": ("insertion_deletion", "InsertionDeletion"),
    "localisation": ("localisation", "Localisation"),
    "sanity": ("sanity", "Sanity"),
    "agreement": ("agreement", "Agreement"),
    "stability": ("stability", "Stability"),
    "rationales": ("rationales", "Rationales"),
    "text_perturbation": ("text_perturbation", "TextPerturbation"),
    "word_deletion": ("word_deletion", "WordDeletion"),
    "word_scores": ("word_scores", "WordScores"),
    "question_perturbation": ("question_perturbation", "QuestionPerturbation"),
    "evidence": ("evidence", "Evidence"),
    "pruning": ("pruning", "Pruning"),
}

__all__ = [
    "EVALUATORS",
    "AnyBatch",
    "Batch",
    "Evaluator",
    "MethodSpec",
    "Metric",
    "QuestionBatch",
    "Subject",
    "TextBatch",
    "create",
    "evaluator_class",
    "parse_methods",
    "parse_methods_of",
]


def evaluator_class(name: str) -> type[Evaluator]:
    """Return the class of the evaluator `name`, or raise an OptionError with the nearest names."""
    if name not in EVALUATORS:
        raise unknown_name("evaluator", name, EVALUATORS)
    module, kind = EVALUATORS[name]
    return getattr(import_module(f"{__name__}.{module}"), kind)


def create(name: str, **options) -> Evaluator:
    """Return the evaluator `name` with `options`, each checked against its annotated type."""
    kind = evaluator_class(name)
    known = {f.name: f.default for f in fields(kind)}
    expected = typing.get_type_hints(kind)
    check_options(name, options, known, expected)
    return kind(**options)


def parse_methods_of(name: str, methods: str | Iterable[str]) -> list[MethodSpec]:
    """Return the specs of what the evaluator `name` evaluates, see `parse_methods`."""
    return evaluator_class(name).parse_methods(methods)
