"""Names of classes: the name of a score is the one of its number, or there is none."""

from types import SimpleNamespace

import pytest
import torch
from small_vits import random_pixels, random_vit
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification

import xai_lib as xai
from xai_lib.errors import TargetError
from xai_lib.streams.labels import class_names

DEFAULT = {0: "LABEL_0", 1: "LABEL_1"}
ABC = ("a", "b", "c")
# id2label, label2id, and the names of a head of three classes.
LABELS = {
    "plain": ({0: "a", 1: "b", 2: "c"}, None, ABC),
    "text keys": ({"0": "a", "1": "b", "2": "c"}, None, ABC),
    "other order": ({2: "c", 0: "a", 1: "b"}, None, ABC),
    "text order": ({str(i): str(i) for i in (10, 2, 1, 0)}, None, None),
    "from 1": ({1: "a", 2: "b", 3: "c"}, None, None),
    "background first": ({1: "b", 2: "c"}, None, ("class 0", "b", "c")),
    "gap": ({0: "a", 2: "c"}, None, ("a", "class 1", "c")),
    "gap past the head": ({0: "a", 2: "b", 5: "c"}, None, None),
    "no object last": ({0: "a", 1: "b"}, None, ("a", "b", "class 2")),
    "more than the head": ({i: f"n{i}" for i in range(4)}, None, None),
    "far fewer": ({0: "a"}, None, None),
    "negative": ({-1: "a", 0: "b", 1: "c"}, None, None),
    "inverted": ({"a": 0, "b": 1, "c": 2}, None, ABC),
    "inverted in both": ({"a": 0, "b": 1, "c": 2}, {0: "a", 1: "b", 2: "c"}, ABC),
    "inverted text": ({"a": "0", "b": "1", "c": "2"}, None, ABC),
    "inverted from 1": ({"a": 1, "b": 2, "c": 3}, None, None),
    "label2id alone": (None, {"c": 2, "a": 0, "b": 1}, ABC),
    "label2id beside a default": (DEFAULT, {"a": 0, "b": 1, "c": 2}, ABC),
    "label2id is a default": ({0: "a", 1: "b", 2: "c"}, {"LABEL_0": 0, "LABEL_1": 1}, ABC),
    "contradiction": ({0: "a", 1: "b", 2: "c"}, {"a": 2, "b": 1, "c": 0}, None),
    "one name twice": ({0: "a", 1: "a", 2: "c"}, {"a": 1, "c": 2}, ("a", "a", "c")),
    "default of another head": (DEFAULT, {"LABEL_0": 0, "LABEL_1": 1}, None),
    "list": (["a", "b", "c"], None, ABC),
    "nothing": ({}, {}, None),
    "no numbers": ({"a": "b"}, None, None),
    "one number twice": ({"a": 0, "b": 0, "c": 1}, None, None),
}


@pytest.mark.parametrize("kind", LABELS)
def test_a_name_belongs_to_its_number(kind):
    id2label, label2id, expected = LABELS[kind]
    model = random_vit(dtype=torch.float32, num_classes=3)
    model.config = SimpleNamespace(id2label=id2label, label2id=label2id)
    pixels = random_pixels(model)
    found = xai.explain(model, pixels, "rollout", 2)
    assert found.class_names == expected
    assert found.class_name(2) == (expected[2] if expected else "class 2")
    if expected is None:
        for name in ("a", "b", "c"):
            with pytest.raises(TargetError):
                xai.explain(model, pixels, "rollout", name)
    elif expected[2] == "c":
        assert xai.explain(model, pixels, "rollout", "c").target.tolist() == [2, 2]


@pytest.mark.parametrize("names", (["a", "b"], [f"n{i}" for i in range(1000)]))
def test_timm_names_of_a_head_that_was_replaced(names):
    model = random_vit(dtype=torch.float32, num_classes=5)
    model.pretrained_cfg = {"label_names": names}
    assert xai.explain(model, random_pixels(model), "rollout").class_names is None


def test_a_vocabulary_has_no_labels():
    torch.manual_seed(0)
    widths = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(**widths, intermediate_size=16, vocab_size=30)
    model = BertForMaskedLM(config).eval()
    found = xai.explain(model, {"input_ids": torch.tensor([[3, 4, 5]])}, "rollout", 0, position=1)
    assert found.class_names is None and found.class_name(0) == "class 0"


def test_an_explorers_names_are_its_heads():
    model = random_vit(dtype=torch.float32, num_classes=3)
    model.pretrained_cfg = {"label_names": ["a", "b", "c", "d"]}
    assert class_names(model) == ("a", "b", "c", "d") and class_names(model, 3) is None


def test_a_saved_model_with_labels_from_1(tmp_path):
    """transformers counts two labels, 1 and 2, and gives the head two scores, 0 and 1."""
    from small_berts import small_tokenizer

    widths = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokenizer = small_tokenizer()
    config = BertConfig(
        **widths, intermediate_size=16, vocab_size=len(tokenizer), id2label={1: "no", 2: "yes"}
    )
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model, processor = xai.load(tmp_path)
    assert processor.class_names == ()
    assert xai.explain(model, processor("a film"), "rollout").class_names is None
