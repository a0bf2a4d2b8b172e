"""Sample pictures and texts for models that compare them."""

import pytest
import torch

from xai_lib.datasets import sample_pairs
from xai_lib.errors import InputError


def test_scenes_come_with_their_own_texts_and_pixels():
    pairs = sample_pairs("clip-scenes", count=2)
    assert pairs.names == ["scene 1", "scene 2"] and len(set(pairs.texts)) == len(pairs.texts)
    again = sample_pairs("clip-scenes", count=2)
    for name in pairs.names:
        assert torch.equal(pairs.pictures[name], again.pictures[name])
        assert len(pairs.own[name]) == len(pairs.evidence[name]) == 2
        assert pairs.evidence[name].any((1, 2)).all()


def test_your_own_and_photographs():
    mine = sample_pairs("clip-scenes", torch.zeros(3, 8, 8), ["a cat", "a dog"])
    assert mine.names == ["yours"] and mine.texts == ("a cat", "a dog") and mine.own is None
    photographs = sample_pairs("hf:some/clip")
    assert photographs.names == ["flower", "china"] and photographs.evidence is None
    assert sample_pairs("clip-scenes", texts=["a red star"]).texts == ("a red star",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        ({"count": 0}, "give 1 or more"),
        ({"texts": "a cat"}, "a list of at least one text"),
        ({"texts": []}, "a list of at least one text"),
        ({"image": torch.zeros(3, 8, 8)}, "needs texts"),
    ),
)
def test_refusals(arguments, message):
    with pytest.raises(InputError, match=message):
        sample_pairs("clip-scenes", **arguments)
