"""Attention in whatever form it is written makes the maps of the same attention written plainly."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import xai_lib as xai
from xai_lib.errors import MethodNotApplicableError

METHODS = ("generic_attention", "transformer_attribution", "bi_token", "attnlrp")
DIM, HEADS = 16, 2
SIZE = DIM // HEADS


def rows(x):
    """(batch, tokens, heads, dim) to (batch * heads, tokens, dim)."""
    return x.transpose(1, 2).flatten(0, 1)


def back(y, batch):
    return y.unflatten(0, (batch, -1)).transpose(1, 2).flatten(2)


def shares(scores, dim=-1):
    return (scores / SIZE**0.5).softmax(dim)


def plain(q, k, v):
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def einsum(q, k, v):
    a = shares(torch.einsum("bihd,bjhd->bhij", q, k))
    return torch.einsum("bhij,bjhd->bihd", a, v).flatten(2)


def einsum_values_first(q, k, v):
    a = shares(torch.einsum("bihd,bjhd->bhij", q, k))
    return torch.einsum("bjhd,bhij->bihd", v, a).flatten(2)


def einsum_heads_last(q, k, v):
    a = shares(torch.einsum("bihd,bjhd->bijh", q, k), 2)
    return torch.einsum("bijh,bjhd->bihd", a, v).flatten(2)


def einsum_heads_first(q, k, v):
    a = shares(torch.einsum("bihd,bjhd->hbij", q, k))
    return torch.einsum("hbij,bjhd->bihd", a, v).flatten(2)


def from_the_right(q, k, v):
    q, k, v = (x.permute(0, 2, 3, 1) for x in (q, k, v))
    a = shares(q.transpose(-1, -2) @ k)
    return (v @ a.transpose(-1, -2)).permute(0, 3, 1, 2).flatten(2)


def keys_in_rows(q, k, v):
    q, k, v = (x.permute(0, 2, 3, 1) for x in (q, k, v))
    return (v @ shares(k.transpose(-1, -2) @ q, -2)).permute(0, 3, 1, 2).flatten(2)


def folded(q, k, v):
    q, k, v = map(rows, (q, k, v))
    return back(torch.bmm(shares(torch.bmm(q, k.transpose(1, 2))), v), len(q) // HEADS)


def folded_from_the_right(q, k, v):
    q, k, v = map(rows, (q, k, v))
    a = shares(torch.bmm(q, k.transpose(1, 2)))
    y = torch.bmm(v.transpose(1, 2), a.transpose(1, 2))
    return back(y.transpose(1, 2), len(q) // HEADS)


def folded_fused(q, k, v):
    q, k, v = map(rows, (q, k, v))
    return back(F.scaled_dot_product_attention(q, k, v), len(q) // HEADS)


def folded_heads_first(q, k, v):
    q, k, v = (x.permute(2, 0, 1, 3).flatten(0, 1) for x in (q, k, v))
    y = torch.bmm(shares(torch.bmm(q, k.transpose(1, 2))), v)
    return y.unflatten(0, (HEADS, -1)).permute(1, 2, 0, 3).flatten(2)


FORMS = (
    *(einsum, einsum_values_first, einsum_heads_last, einsum_heads_first, from_the_right),
    *(keys_in_rows, folded, folded_from_the_right, folded_fused, folded_heads_first),
)


def one_plain(q, k, v):
    return F.scaled_dot_product_attention(*(x.unsqueeze(1) for x in (q, k, v))).squeeze(1)


def one(q, k, v):
    return (q @ k.transpose(1, 2) / DIM**0.5).softmax(-1) @ v


def one_fused(q, k, v):
    return F.scaled_dot_product_attention(q, k, v)


def one_einsum(q, k, v):
    a = (torch.einsum("bid,bjd->bij", q, k) / DIM**0.5).softmax(-1)
    return torch.einsum("bij,bjd->bid", a, v)


def one_from_the_right(q, k, v):
    a = (q @ k.transpose(1, 2) / DIM**0.5).softmax(-1)
    return (v.transpose(1, 2) @ a.transpose(1, 2)).transpose(1, 2)


def one_in_windows(q, k, v):
    """Windows of four tokens, in one dimension with the samples, as heads often are."""
    q, k, v = (x.unflatten(1, (4, 4)).flatten(0, 1) for x in (q, k, v))
    y = (q @ k.transpose(1, 2) / DIM**0.5).softmax(-1) @ v
    return y.unflatten(0, (-1, 4)).flatten(1, 2)


class Net(nn.Module):
    def __init__(self, form, heads=True):
        super().__init__()
        torch.manual_seed(0)
        self.form, self.heads = form, heads
        self.patch, self.head = nn.Conv2d(3, DIM, 8, 8), nn.Linear(DIM, 4)
        self.layers = nn.ModuleList(nn.Linear(DIM, 3 * DIM) for _ in range(2))
        self.projections = nn.ModuleList(nn.Linear(DIM, DIM) for _ in range(2))
        for layer in self.layers:
            layer.weight.data *= 3

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        for layer, projection in zip(self.layers, self.projections, strict=True):
            q, k, v = layer(x).chunk(3, -1)
            if self.heads:
                q, k, v = (y.unflatten(-1, (HEADS, -1)) for y in (q, k, v))
            x = x + projection(self.form(q, k, v))
        return self.head(x[:, 0])


def compare(ours, theirs, batch, method):
    pixels = torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours(pixels), theirs(pixels), rtol=1e-4, atol=1e-5)
    found, expected = (xai.explain(m.eval(), pixels, method, target=1) for m in (ours, theirs))
    bound = 1e-4 * float(expected.relevance.abs().max())
    torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-3, atol=bound)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("batch", [HEADS, 3])
@pytest.mark.parametrize("form", FORMS)
def test_forms(form, batch, method):
    compare(Net(form), Net(plain), batch, method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", [one, one_fused, one_einsum, one_from_the_right])
def test_one_head(form, method):
    compare(Net(form, heads=False), Net(one_plain, heads=False), 2, method)


@pytest.mark.parametrize("method", ["generic_attention", "rollout", "bi_token"])
def test_windows_are_no_heads(method):
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with pytest.raises(MethodNotApplicableError, match="'gradient_x_input'"):
        xai.explain(Net(one_in_windows, heads=False).eval(), pixels, method)
