"""The golden BERT models of tests/goldens/bert, as unmodified transformers classifiers."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification

FOLDER = Path(__file__).parent / "goldens" / "bert"
FILES = ("bert_a_seed0", "bert_b_seed0")


@cache
def golden(name):
    """Return all arrays of a file."""
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return dict(arrays)


@cache
def golden_bert(name, attention="eager"):
    """Return the model of a file in float64."""
    arrays = golden(name)
    config = json.loads(str(arrays["meta/config"]))
    model = BertForSequenceClassification(BertConfig(**config, attn_implementation=attention))
    state = {
        key.removeprefix("state/"): torch.from_numpy(value)
        for key, value in arrays.items()
        if key.startswith("state/")
    }
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not [k for k in missing if not k.endswith("position_ids")] and not unexpected
    return model.double().eval()


def golden_inputs(name, number):
    """Return one golden input, a batch of one text."""
    arrays = golden(name)
    return {
        key: torch.from_numpy(arrays[f"{key}/{number}"]).reshape(1, -1).long()
        for key in ("input_ids", "attention_mask")
    }


def relative_error(found, expected):
    """Return the largest difference over the largest magnitude; NaN must stand where NaN stands."""
    found, expected = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    assert found.shape == expected.shape
    assert (np.isnan(found) == np.isnan(expected)).all()
    finite = ~np.isnan(expected)
    if not finite.any():
        return 0.0
    return np.abs(found - expected)[finite].max() / max(np.abs(expected[finite]).max(), 1e-300)
