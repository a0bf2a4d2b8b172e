"""A table of places that counts from behind the padding's takes fewer tokens than it has rows."""

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, RobertaConfig
from transformers import RobertaForSequenceClassification as Roberta

import xai_lib as xai
from xai_lib.errors import InputError

SIZES = {"num_labels": 3, "vocab_size": 50, "num_hidden_layers": 1, "max_position_embeddings": 14}
SIZES |= {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
METHODS = ("gradient_x_input", "generic_attention", "lrp")


def text(tokens):
    return {"input_ids": torch.arange(5, 5 + tokens)[None]}


@pytest.mark.parametrize("method", METHODS)
def test_as_many_as_the_model_itself_takes(method):
    torch.manual_seed(0)
    roberta, bert = (
        Roberta(RobertaConfig(**SIZES)),
        BertForSequenceClassification(BertConfig(**SIZES)),
    )
    assert xai.explain(roberta.eval(), text(12), method).relevance.shape == (1, 12)
    assert xai.explain(bert.eval(), text(14), method).relevance.shape == (1, 14)
    for tokens in (13, 14):
        with pytest.raises(InputError, match="takes 12"):
            xai.explain(roberta.eval(), text(tokens), method)
    for model in (roberta, bert):
        with pytest.raises(InputError, match="takes 14"):
            xai.explain(model.eval(), text(15), method)
