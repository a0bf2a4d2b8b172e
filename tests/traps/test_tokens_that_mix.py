"""Tokens that mix or move outside attention: token maps are refused, gradients answer rightly."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokens_that_mix import MIXING, STAYING, Vision, pixels

import xai_lib as xai
from xai_lib.errors import MethodNotApplicableError

MAPS = ("generic_attention", "rollout", "raw_attention", "transformer_attribution", "bi_token")


def named(error):
    """The methods that a refusal says it has tried."""
    return [name for name in xai.methods()["name"] if f"'{name}'" in str(error.value)]


# Before the layers a class token may well be a mean of the patches, as of a pooling ResNet.
CASES = [
    (kind, place)
    for kind in MIXING
    for place in ("before", "between", "after")
    if (kind, place) != ("mean into the class token", "before")
]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("kind", "place"), CASES)
def test_token_maps_are_refused_and_the_advice_works(kind, place, batch):
    model, x = Vision(**{place: MIXING[kind]()}, pool="mean").eval(), pixels(batch)
    with pytest.raises(MethodNotApplicableError) as refused:
        xai.explain(model, x, "generic_attention")
    assert named(refused)
    for name in named(refused):
        xai.explain(model, x, name)


@pytest.mark.parametrize("method", MAPS)
def test_every_map_is_refused(method):
    model = Vision(between=MIXING["roll"]()).eval()
    with pytest.raises(MethodNotApplicableError):
        xai.explain(model, pixels(), method)


@pytest.mark.parametrize("place", ["before", "between", "after"])
@pytest.mark.parametrize("kind", STAYING)
def test_what_acts_on_each_token_alone_is_explained(kind, place):
    model = Vision(**{place: STAYING[kind]()}).eval()
    found = xai.explain(model, pixels(), "generic_attention", target=1)
    unchecked = xai.explain(model, pixels(), "generic_attention", target=1, check=False)
    torch.testing.assert_close(found.relevance, unchecked.relevance, rtol=0, atol=0)
    assert found.checks and max(found.checks.values()) < 1e-5


@pytest.mark.parametrize("kind", MIXING)
def test_the_gradient_is_that_of_plain_autograd(kind):
    model, x = Vision(between=MIXING[kind]()).eval(), pixels()
    found = xai.explain(model, x, "gradient", target=1, reduce="sum").pixels
    leaf = x.clone().requires_grad_()
    model(leaf)[:, 1].sum().backward()
    torch.testing.assert_close(found, leaf.grad.sum(1), rtol=1e-4, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([*MIXING, *STAYING]), min_size=3, max_size=3))
def test_maps_answer_exactly_where_nothing_mixes(kinds):
    """Random models of blocks that mix, shift, shuffle, pool, or do not."""
    made = {**MIXING, **STAYING}
    before, between, after = (made[kind]() for kind in kinds)
    model = Vision(before, between, after, pool="mean", depth=2).eval()
    places = zip(kinds, ("before", "between", "after"), strict=True)
    mixes = any(case in CASES for case in places)
    try:
        xai.explain(model, pixels(), "generic_attention", target=0)
    except MethodNotApplicableError:
        assert mixes, kinds
    else:
        assert not mixes, kinds


def test_without_the_check_nothing_is_measured():
    model = Vision(between=MIXING["roll"]()).eval()
    found = xai.explain(model, pixels(), "generic_attention", check=False)
    assert not found.checks
