"""Gradient checkpointing that was left on changes no explanation, and is left on."""

import threading

import pytest
import timm
import torch
import torch.utils.checkpoint
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig
from transformers import LlamaForSequenceClassification as Llama

import xai_lib as xai

METHODS = ("gradient_x_input", "generic_attention", "transformer_attribution", "rollout", "attnlrp")


def vit():
    torch.manual_seed(0)
    options = {"img_size": 32, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 5}
    return timm.create_model("vit_tiny_patch16_224", **options).eval()


@pytest.fixture
def pixels():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


class Checkpointed(nn.Module):
    """Every block of a model checkpointed by hand, as a training loop does."""

    def __init__(self, kind):
        super().__init__()
        self.net, self.kind = vit(), kind

    def forward(self, x):
        net = self.net
        x = net.norm_pre(net.patch_drop(net._pos_embed(net.patch_embed(x))))
        if self.kind == "sequential":
            x = checkpoint_sequential(net.blocks, 2, x, use_reentrant=False)
        else:
            for block in net.blocks:
                x = checkpoint(block, x, use_reentrant=self.kind == "reentrant")
        return net.forward_head(net.norm(x))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["reentrant", "saved", "sequential"])
def test_by_hand(kind, method, pixels):
    ours = xai.explain(Checkpointed(kind), pixels, method, target=1)
    plain = xai.explain(vit(), pixels, method, target=1)
    torch.testing.assert_close(ours.relevance, plain.relevance, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_timm(method, pixels):
    model = vit()
    model.set_grad_checkpointing(True)
    ours = xai.explain(model, pixels, method, target=1)
    plain = xai.explain(vit(), pixels, method, target=1)
    torch.testing.assert_close(ours.relevance, plain.relevance, rtol=1e-4, atol=1e-7)
    assert model.grad_checkpointing


def text_models():
    options = {"num_labels": 3, "vocab_size": 50, "pad_token_id": 0, "num_hidden_layers": 2}
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
    torch.manual_seed(0)
    yield BertForSequenceClassification(BertConfig(**options, **sizes)).eval()
    yield Llama(LlamaConfig(**options, **sizes, use_cache=False)).eval()


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_transformers(reentrant, training):
    inputs = {"input_ids": torch.arange(5, 14)[None]}
    for model in text_models():
        plain = [xai.explain(model, inputs, method, target=1).relevance for method in METHODS]
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model.enable_input_require_grads()
        model.train(training)
        for method, expected in zip(METHODS, plain, strict=True):
            ours = xai.explain(model, inputs, method, target=1).relevance
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-7, msg=method)
        assert model.is_gradient_checkpointing and model.training is training


def test_traces_reach_the_maps(pixels):
    model = Checkpointed("reentrant")
    with xai.trace(model) as seen:
        logits = model(pixels)
    (grad,) = torch.autograd.grad(logits[:, 1].sum(), seen.sites[0].probs)
    assert grad.abs().sum() > 0


def test_the_function_is_given_back_and_other_threads_keep_theirs(pixels):
    before = torch.utils.checkpoint.CheckpointFunction
    counts: list[int] = []

    class Watching(Checkpointed):
        def forward(self, x):
            thread = threading.Thread(target=train)
            thread.start()
            thread.join()
            return super().forward(x)

    def train():
        runs = []
        leaf = torch.ones(3, requires_grad=True)
        checkpoint(lambda x: runs.append(1) or x * x, leaf, use_reentrant=True).sum().backward()
        checkpoint(lambda x: runs.append(1) or x.exp(), leaf, use_reentrant=False).sum().backward()
        counts.append(len(runs))

    xai.explain(Watching("reentrant"), pixels, "gradient_x_input")
    assert counts and set(counts) == {4}
    assert torch.utils.checkpoint.CheckpointFunction is before
