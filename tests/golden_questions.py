"""The golden LXMERT and VisualBERTs of tests/goldens/mm, as unmodified transformers models."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

FOLDER = Path(__file__).parent / "goldens" / "mm"
NAMES = ("lxmert", "visualbert_hfqa", "visualbert_mmfhead")
# The head of MMF: dense, GELU, LayerNorm, linear.
MMF_HEAD = {"classifier.0.dense": "cls.0", "classifier.0.LayerNorm": "cls.2"} | {
    "classifier.1": "cls.3"
}


@cache
def golden(name):
    """Return all arrays of a file."""
    with np.load(FOLDER / f"{name}_seed0.npz") as arrays:
        return dict(arrays)


@cache
def golden_model(name, attention="eager"):
    """Return the model of a file in float64."""
    from transformers import (
        LxmertConfig,
        LxmertForQuestionAnswering,
        VisualBertConfig,
        VisualBertForQuestionAnswering,
    )

    arrays = golden(name)
    options = json.loads(str(arrays["meta/config_json"])) | {"attn_implementation": attention}
    if name == "lxmert":
        model = LxmertForQuestionAnswering(LxmertConfig(**options))
    else:
        model = VisualBertForQuestionAnswering(VisualBertConfig(**options))
    if name == "visualbert_mmfhead":
        width = options["hidden_size"]
        norm = nn.LayerNorm(width, eps=1e-12)
        head = nn.Linear(width, width), nn.GELU(), norm, nn.Linear(width, options["num_labels"])
        model.cls = nn.Sequential(*head)
    state = {}
    for key, value in arrays.items():
        if key.startswith("state/"):
            key = key.removeprefix("state/")
            for theirs, ours in MMF_HEAD.items():
                key = key.replace(theirs, ours)
            state[key] = torch.from_numpy(value)
    model.load_state_dict(state)
    return model.double().eval()


def golden_inputs(name, number):
    """Return one golden input, a batch of one question on one image."""
    start = f"in{number}/"
    found = {k[len(start) :]: torch.from_numpy(v) for k, v in golden(name).items() if start in k}
    found = {k: v for k, v in found.items() if k not in ("logits", "targets") and "/" not in k}
    return {k: v.double() if v.is_floating_point() else v.long() for k, v in found.items()}


def answers(output):
    """Return the scores of the answers."""
    logits = getattr(output, "question_answering_score", None)
    return (output.logits if logits is None else logits).detach()


def relative_error(found, expected):
    """Return the largest difference over the largest magnitude."""
    found, expected = (np.asarray(x, dtype=np.float64) for x in (found, expected))
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-300)
