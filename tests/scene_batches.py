"""The embedded scene model as an evaluator meets it: a subject and a batch with masks."""

from functools import cache

import torch

import xai_lib as xai
from xai_lib.datasets.worlds.scenes import Scenes
from xai_lib.evaluators import Batch, Subject


@cache
def scene_subject():
    """Return the subject of vit-scenes: a model of 96 x 96 pixels and 12 x 12 patches."""
    model, processor = xai.load("vit-scenes")
    return Subject(model, processor)


def scene_batch(n=3, seed=5):
    """Return n scenes of one object each, indexed from 10, with labels and masks."""
    scenes = Scenes(n, seed=seed)[:]
    masks = scenes.evidence.to(torch.int8)
    keys = tuple(f"scene {i}" for i in range(n))
    return Batch(tuple(range(10, 10 + n)), keys, scenes.image, scenes.labels[:, 0], masks)


def state_of(model):
    """Return all that an evaluator must give back unchanged: bits, flags, hooks, gradients."""
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [(p.requires_grad, p.grad is None, p.data_ptr()) for p in model.parameters()]
    modules = [
        (m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()
    ]
    return tensors, flags, modules


def assert_same_state(before, after):
    """Fail unless two results of `state_of` are equal to the bit."""
    assert before[1:] == after[1:] and before[0].keys() == after[0].keys()
    assert all(torch.equal(value, after[0][name]) for name, value in before[0].items())


def assert_a_batch_is_its_samples(evaluator, methods, n=3, tolerance=1e-3, rows=None):
    """Fail unless n scenes at once have the rows of one at a time, and the model is untouched.

    rows: those of the batch, where they are known. Returns them.
    """
    subject, batch = scene_subject(), scene_batch(n)
    before = state_of(subject.model)
    rows = list(evaluator.rows(subject, batch, methods)) if rows is None else rows
    single = [row for i in range(n) for row in evaluator.rows(subject, batch[[i]], methods)]
    columns = (*evaluator.groups, "index")
    found, expected = (
        sorted(some, key=lambda row: [row[column] for column in columns]) for some in (rows, single)
    )
    assert_rows_close(found, expected, tolerance)
    assert_same_state(before, state_of(subject.model))
    return rows


def assert_rows_close(found, expected, tolerance=1e-6):
    """Fail unless two lists of rows hold the same keys and text, and numbers within tolerance."""
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys()
        for name, value in a.items():
            numbers, others = (x if isinstance(x, list) else [x] for x in (value, b[name]))
            for x, y in zip(numbers, others, strict=True):
                same = x == y or (isinstance(x, float) and abs(x - y) <= tolerance)
                assert same, (name, value, b[name])
