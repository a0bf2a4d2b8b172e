"""What a run studies: the kind of a model, and CLIP-type models as classifiers of images."""

from __future__ import annotations

import hashlib

from torch import nn

from xai_lib.datasets import class_prompts, imagenet_names
from xai_lib.datasets.base import Dataset
from xai_lib.datasets.images.imagenet_labels import class_index, class_names
from xai_lib.errors import OptionError
from xai_lib.evaluators import all_evaluators
from xai_lib.models import (
    PairProcessor,
    Processor,
    QuestionProcessor,
    TextProcessor,
    ZeroShotClassifier,
    zero_shot,
)
from xai_lib.runs.fingerprints import tokenizer_fingerprint

AnyProcessor = Processor | TextProcessor | QuestionProcessor | PairProcessor


def check_modality(wanted: tuple[str, ...], what: str, found: str) -> None:
    """Raise an OptionError where an evaluator of images meets texts, or the other way round."""
    if found not in wanted:
        fitting = [name for name, kind in all_evaluators().items() if found in kind.modalities()]
        raise OptionError(
            f"{what} is of {found}s, the evaluator takes {'s or '.join(wanted)}s. For {found}s: "
            f"{', '.join(fitting)}."
        )


def classifier(
    model: nn.Module, processor: AnyProcessor, dataset: Dataset
) -> tuple[nn.Module, AnyProcessor]:
    """Return model and processor, a CLIP-type model as a classifier of the data set's names.

    The prompts are `class_prompts` of the class names, ImageNet's of `imagenet_names`; of a data
    set without names, the model's own. Raises InputError where neither has any.
    """
    if not processor.classes_are_texts:
        return model, processor
    names = dataset.class_names
    if names and (tuple(names) == class_names() or set(names) == set(class_index())):
        names = imagenet_names()
    return zero_shot(model, processor, names)


def processor_identity(model: nn.Module, processor: AnyProcessor) -> dict[str, object]:
    """Return what tells the model's inputs from those of another run."""
    seen: dict[str, object] = {}
    for name in processor.identity:
        value = getattr(processor, name)
        if name == "tokenizer":
            value = tokenizer_fingerprint(value)
        seen[name] = list(value) if isinstance(value, tuple) else value
    if isinstance(model, ZeroShotClassifier):
        told = "\n".join(class_prompts(processor.class_names))
        seen |= {"prompts": hashlib.sha256(told.encode()).hexdigest()}
    return seen
