"""CLIP-type models: pairs are their samples, texts apart, padding, contrasts, and conservation."""

from functools import cache

import pytest
import torch
from small_clips import LENGTH, TEXTS, random_clip, tokenizer

import xai_lib as xai
from xai_lib.explainers.registry import all_methods

pytestmark = pytest.mark.usefixtures("one_thread")

FEW = {
    "integrated_gradients": {"steps": 3},
    "smoothgrad": {"samples": 2},
    "bi_head": {"steps": 3},
    "bi_token": {"steps": 3},
}
# Neither has a rule for the probe that pools SigLIP's image.
CASES = [
    (kind, method)
    for kind in ("clip", "siglip")
    for method in all_methods()
    if (kind, method) not in (("siglip", "bi_token"), ("siglip", "legrad"))
]


@cache
def model(kind):
    return random_clip(kind).double()


def without_biases(kind="clip"):
    """A model whose embeddings at zero have no score: x / ‖x‖ is 0 / 0."""
    own = random_clip(kind).double()
    with torch.no_grad():
        for name, parameter in own.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    return own


def pixels(count=2):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, 32, 32, generator=generator, dtype=torch.float64)


def texts(kind="clip", count=3, length=None):
    """Return tokens of the first texts; SigLIP takes no mask, so that its padding is read."""
    padded = tokenizer()(
        TEXTS[:count],
        padding="max_length" if length else True,
        max_length=length,
        return_tensors="pt",
    )
    names = ("input_ids",) if kind == "siglip" else ("input_ids", "attention_mask")
    return {name: padded[name] for name in names}


def explain(kind, images, given, method="generic_attention", **options):
    inputs = {"pixel_values": images} | given
    return xai.explain(model(kind), inputs, method, **FEW.get(method, {}), **options)


def near(found, expected, tolerance=1e-6):
    scale = expected.abs().amax(-1, keepdim=True).clamp(min=1e-12)
    assert ((found - expected).abs() / scale).max() <= tolerance


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "method"), CASES)
def test_images_and_texts_together_are_each_pair_alone(kind, method):
    given = texts(kind)
    both = explain(kind, pixels(), given, method, targets=[2, 0])
    assert both.relevance.any()
    # The rule of one sign divides by sums that can be as small as their rounding.
    bound = 1e-4 if method == "lrp_alpha_beta" else 1e-6
    for place, (image, text) in enumerate([(0, 2), (1, 0)]):
        one = {name: x[text : text + 1] for name, x in given.items()}
        alone = explain(kind, pixels()[image : image + 1], one, method, target=0)
        assert set(alone.streams) == set(both.streams) == {"text", "image"}
        for stream, relevance in alone.streams.items():
            near(both.streams[stream][place, image], relevance[0], bound)


@pytest.mark.parametrize("method", ["generic_attention", "lrp", "integrated_gradients", "bi_head"])
def test_padding_of_texts_changes_nothing_and_gets_nothing(method):
    short = explain("clip", pixels(1), texts(), method, target=1)
    long = explain("clip", pixels(1), texts(length=LENGTH), method, target=1)
    tokens = int(texts()["attention_mask"][1].sum())
    near(long.streams["image"], short.streams["image"])
    near(long.streams["text"][:, :tokens], short.streams["text"][:, :tokens])
    assert not long.streams["text"][:, tokens:].any()


@pytest.mark.parametrize("method", ["gradient_x_input", "integrated_gradients"])
def test_a_contrast_is_the_difference_for_the_image_and_has_both_texts(method):
    given = texts()
    one, other = (explain("clip", pixels(), given, method, target=j) for j in (0, 2))
    att = explain("clip", pixels(), given, method, target=(0, 2))
    near(att.streams["image"], one.streams["image"] - other.streams["image"])
    near(att.streams["text"], one.streams["text"])
    near(att.streams["against"], -other.streams["text"])


@pytest.mark.parametrize("kind", ["clip", "siglip", "altclip"])
def test_all_relevance_of_a_score_reaches_the_tokens_of_either_stream(kind):
    """x / ‖x‖ passes it on, and the other stream's vector is a weight."""
    att = explain(kind, pixels(), texts(kind), "lrp", targets=[0, 1, 2])
    for relevance in att.streams.values():
        total = relevance.sum(-1)
        torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-3)


@pytest.mark.parametrize("method", ["bi_head", "bi_token"])
def test_a_point_of_the_path_without_a_score_has_no_gradient(method):
    """Of the two points of the path, α = 0 and 1, the first counts nothing."""
    inputs, own = {"pixel_values": pixels(1)} | texts(), without_biases()
    options = {"target": 0, "start_layer": 0}
    halved = xai.explain(own, inputs, method, steps=2, **options).streams["text"]
    plain = xai.explain(own, inputs, method, feedback="gradient", **options).streams["text"]
    near(halved, plain / 2)


def test_integrated_gradients_start_where_there_is_no_score():
    """The trapezoid's first point is the baseline, Gauss and Legendre's is not."""
    inputs, own = {"pixel_values": pixels(1)} | texts(), without_biases()
    found = xai.explain(
        own, inputs, "integrated_gradients", target=0, steps=2, quadrature="trapezoid"
    )
    plain = xai.explain(own, inputs, "gradient_x_input", target=0)
    near(found.streams["text"], plain.streams["text"] / 2)
    assert found.streams["image"].isfinite().all()


def test_a_negative_start_counts_from_the_end_of_each_stream():
    given = texts()
    last = explain("clip", pixels(), given, target=0, start_layer=-1)
    near(last.relevance, explain("clip", pixels(), given, target=0, start_layer=1).relevance)
    with pytest.raises(xai.errors.OptionError, match="start_layer is -3"):
        explain("clip", pixels(), given, target=0, start_layer=-3)
