"""Evaluators on maps that a test chooses, in place of those of a method."""

from __future__ import annotations

from importlib import import_module

import torch

from xai_lib.evaluators import Batch, MethodSpec, Subject
from xai_lib.evaluators.maps import Maps
from xai_lib.models import Processor
from xai_lib.streams.outputs import logits_of

SPEC = MethodSpec("chosen", "transformer_attribution")


def subject_of(model, size, batch_size=8, mean=0.5, std=0.5):
    """Return a model as an evaluator takes it, for images of one normalisation in all channels."""
    return Subject(model, Processor(tuple(size), (mean,) * 3, (std,) * 3), batch_size)


def batch_of(images, labels=None, masks=None):
    """Return images as a batch whose samples are numbered from 0."""
    numbers = tuple(range(len(images)))
    return Batch(numbers, tuple(f"image {i}" for i in numbers), images, labels, masks)


def choose_maps(monkeypatch, evaluator, values, errors=None, predicted=None):
    """Let the module `evaluator` see `values` (n, H, W), by sample index, whatever is explained."""

    def explained(subject, batch, spec, target=None, **options):
        index = list(batch.index)
        if predicted is None:
            logits = logits_of(subject.model(subject.normalize(batch.images))).detach()
        else:
            logits = torch.eye(int(predicted.max()) + 1)[predicted[index]]
        classes = logits.argmax(1)
        reasons = tuple(errors[i] if errors else None for i in index)
        of = classes if target is None else torch.as_tensor(target)
        patches = torch.zeros(len(index), 1, 1)
        return Maps(values[index].double(), patches, of, classes, logits, reasons)

    monkeypatch.setattr(import_module(f"xai_lib.evaluators.{evaluator}"), "explained", explained)
