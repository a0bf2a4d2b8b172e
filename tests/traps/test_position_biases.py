"""A bias on attention scores is no token: it takes no relevance that padding could change."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import xai_lib as xai

TOKENS, DIM = 4, 8
METHODS = ("lrp", "lrp_alpha_beta", "transformer_attribution", "lrp_rollout", "attnlrp")


def added(q, k, v, bias, mask):
    scores = q @ k.transpose(-1, -2) / DIM**0.5 + bias
    return (scores + mask).softmax(-1) @ v


def added_with_its_mask(q, k, v, bias, mask):
    return (q @ k.transpose(-1, -2) / DIM**0.5 + (bias + mask)).softmax(-1) @ v


def fused(q, k, v, bias, mask):
    return F.scaled_dot_product_attention(q, k, v, (bias + mask).expand(len(q), 1, -1, -1))


def in_one_product(q, k, v, bias, mask):
    bias = bias.expand(len(q), q.shape[1], -1, -1).flatten(0, 1)
    scores = bias.baddbmm(q.flatten(0, 1), k.flatten(0, 1).mT, alpha=DIM**-0.5).unsqueeze(1)
    return (scores + mask).softmax(-1) @ v


FORMS = {f.__name__: f for f in (added, added_with_its_mask, fused, in_one_product)}


class Alibi(nn.Module):
    """One attention layer with a bias by distance to the last token, padding included (MPT)."""

    def __init__(self, attend):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.qkv = nn.Embedding(9, DIM), nn.Linear(DIM, 3 * DIM)
        self.out, self.head = nn.Linear(DIM, DIM), nn.Linear(DIM, 3)
        self.attend = attend

    def forward(self, input_ids, attention_mask=None):
        x, tokens = self.words(input_ids), input_ids.shape[1]
        bias = 0.7 * (torch.arange(tokens, dtype=x.dtype) - (tokens - 1)).view(1, 1, 1, -1)
        bias = bias.expand(1, 1, tokens, -1)
        kept = attention_mask.view(len(x), 1, 1, -1).to(x.dtype)
        q, k, v = self.qkv(x).unsqueeze(1).chunk(3, -1)
        x = x + self.out(self.attend(q, k, v, bias, (1 - kept) * -1e9).squeeze(1))
        return self.head(x[:, 0])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", FORMS)
def test_padding_changes_nothing(form, method):
    model = Alibi(FORMS[form]).eval()
    found = []
    for padding in (0, 1, 7):
        ids = torch.cat([torch.arange(1, TOKENS + 1), torch.zeros(padding, dtype=torch.long)])[None]
        inputs = {"input_ids": ids, "attention_mask": (ids > 0).long()}
        found.append(xai.explain(model, inputs, method, target=1).relevance[:, :TOKENS])
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_all_relevance_reaches_the_words(form):
    model = Alibi(FORMS[form]).eval()
    ids = torch.arange(1, TOKENS + 1)[None]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    total = xai.explain(model, inputs, "lrp", target=1).relevance.sum()
    torch.testing.assert_close(total, torch.tensor(1.0), rtol=0, atol=1e-3)
