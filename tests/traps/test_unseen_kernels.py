"""Flex attention, which runs outside torch's operations, is explained as torch's own attention."""

import pytest
import torch
from transformers import LlamaConfig
from transformers import LlamaForSequenceClassification as Llama

import xai_lib as xai

SIZES = {"num_labels": 3, "vocab_size": 50, "num_hidden_layers": 2, "pad_token_id": 0}
SIZES |= {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 32}
METHODS = ("gradient_x_input", "integrated_gradients", "generic_attention", "attnlrp", "rollout")


def llama(attention):
    torch.manual_seed(0)
    return Llama._from_config(LlamaConfig(**SIZES), attn_implementation=attention).eval()


@pytest.mark.parametrize("method", METHODS)
def test_flex_attention(method):
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 8, 9], [5, 6, 7, 0, 0]])}
    inputs["attention_mask"] = (inputs["input_ids"] > 0).long()
    model, plain = llama("flex_attention"), llama("sdpa")
    ours, theirs = (xai.explain(m, inputs, method, target=1) for m in (model, plain))
    torch.testing.assert_close(ours.relevance, theirs.relevance, rtol=1e-4, atol=1e-6)
    assert model.config._attn_implementation == "flex_attention"
