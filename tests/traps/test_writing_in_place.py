"""A model that writes into its own tensors is explained as one that makes new ones.

In float32: there a faster kernel makes the linear maps.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import xai_lib as xai

METHODS = ("gradient_x_input", "integrated_gradients", "generic_attention", "rollout", "attnlrp")


class Block(nn.Module):
    def __init__(self, writes, dim=16):
        super().__init__()
        self.writes = writes
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.grow = nn.Linear(dim, dim)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        y = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        mask = torch.ones(*x.shape[:2], 1)
        mask[:, 0] = 0.5
        z = self.grow(x)
        if not self.writes:
            y = (x + y) * mask
            z = (z * mask).neg() + 1
            return y + torch.cat([z[:, :1] * 0, z[:, 1:]], 1)
        y += x
        y *= mask
        z *= mask
        z.neg_()
        z += 1
        z[:, 0] = 0
        y += z
        return y


class Net(nn.Module):
    def __init__(self, writes):
        super().__init__()
        torch.manual_seed(0)
        self.patch = nn.Conv2d(3, 16, 8, 8)
        self.blocks = nn.Sequential(Block(writes), Block(writes))
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = self.blocks(x)
        return self.head(x.mean(1))


@pytest.mark.parametrize("method", METHODS)
def test_writes_change_nothing(method):
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    ours = xai.explain(Net(True).eval(), pixels, method, target=1)
    plain = xai.explain(Net(False).eval(), pixels, method, target=1)
    torch.testing.assert_close(ours.relevance, plain.relevance, rtol=1e-4, atol=1e-6)


def test_the_gradient_is_autograds():
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    model = Net(True).eval()
    leaf = pixels.clone().requires_grad_()
    (grad,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
    ours = xai.explain(model, pixels, "gradient_x_input", target=1).pixels
    torch.testing.assert_close(ours, (grad * pixels).sum(1), rtol=1e-4, atol=1e-6)


class Written(nn.Module):
    """A ViT that writes where its result has another name already: after the head, into a mask."""

    def __init__(self, writes):
        super().__init__()
        torch.manual_seed(0)
        self.patch, self.qkv = nn.Conv2d(3, 16, 8, 8), nn.Linear(16, 48)
        self.head = nn.Linear(16, 4)
        self.writes = writes

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        mask = torch.zeros(16, 16)
        scores = q @ k.transpose(-1, -2) * 0.5
        logits = 0
        if self.writes:
            mask.masked_fill_(torch.eye(16).bool(), -2.0)
            scores.masked_fill_(torch.eye(16).bool(), -1.0)
        else:
            mask = mask.masked_fill(torch.eye(16).bool(), -2.0)
            scores = scores.masked_fill(torch.eye(16).bool(), -1.0)
        x = x + (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        q = q + x.unflatten(-1, (2, -1)).transpose(1, 2)
        x = x + F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        logits = self.head(x.mean(1))
        if self.writes:
            logits.mul_(3.0)
            logits[:, 0] = 0
            return logits
        return torch.cat([logits[:, :1] * 0, logits[:, 1:] * 3.0], 1)


@pytest.mark.parametrize("method", [*METHODS, "lrp", "transformer_attribution"])
def test_what_is_returned_and_what_is_handed_over_by_name(method):
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    ours = xai.explain(Written(True).eval(), pixels, method, target=1)
    plain = xai.explain(Written(False).eval(), pixels, method, target=1)
    torch.testing.assert_close(ours.logits, plain.logits)
    torch.testing.assert_close(ours.relevance, plain.relevance, rtol=1e-3, atol=1e-5)
