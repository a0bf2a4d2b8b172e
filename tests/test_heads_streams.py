"""Heads of models of several streams: batches, half precision, other architectures, bad inputs."""

import copy

import pytest
import torch
from golden_questions import answers, golden_inputs, golden_model
from small_streams import BATCH, random_inputs, random_model, sample

import xai_lib as xai
from xai_lib.datasets import GeneratedQuestions
from xai_lib.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("lxmert", "visualbert_mmfhead")
METHODS = ["grad_x_attention", "lrp", "taylor"]


def pair_of_questions(name):
    """Return a batch of two: one golden input, and it with words and regions in another order."""
    inputs = golden_inputs(name, 1)
    turned = dict(inputs)
    for key, value in inputs.items():
        if value.is_floating_point():
            turned[key] = value.flip(1)
    turned["input_ids"] = inputs["input_ids"].clone()
    turned["input_ids"][:, 1:-1] = inputs["input_ids"][:, 1:-1].flip(1)
    return {key: torch.cat([inputs[key], turned[key]]) for key in inputs}


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_its_samples(name):
    model, inputs = golden_model(name), pair_of_questions(name)
    batch = xai.head_scores(model, inputs, methods=METHODS)
    for i in range(2):
        alone = xai.head_scores(model, sample(inputs, i), methods=METHODS)
        for method in METHODS:
            expected = alone[method].values[0]
            scale = expected.abs().max()
            assert torch.allclose(batch[method].values[i], expected, atol=1e-9 * scale, rtol=0)
    mask = batch["taylor"].mask([0, 0.5], per_sample=True)
    twice = {key: torch.cat([value, value]) for key, value in inputs.items()}
    with xai.prune_heads(model, mask):
        pruned = answers(model(**twice))
    assert torch.allclose(pruned[:2], answers(model(**inputs)), rtol=1e-9)
    for i in range(2):
        one = xai.head_scores(model, sample(inputs, i), "taylor").mask(0.5)
        with xai.prune_heads(model, one):
            assert torch.allclose(pruned[2 + i], answers(model(**sample(inputs, i)))[0], rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_explanations_see_the_pruned_model(name):
    model, inputs = golden_model(name), golden_inputs(name, 0)
    mask = xai.head_scores(model, inputs).mask(0.5)
    for method in ("generic_attention", "transformer_attribution", "rollout"):
        whole = xai.explain(model, inputs, method)
        with xai.prune_heads(model, mask):
            att = xai.explain(model, inputs, method, target=whole.target.tolist())
            expected = answers(model(**inputs))
        assert torch.allclose(att.logits, expected, rtol=1e-9)
        assert not torch.allclose(att.relevance, whole.relevance, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_close_to_the_same_weights_in_float64(name, dtype):
    half = copy.deepcopy(golden_model(name)).to(dtype)
    inputs = pair_of_questions(name)
    cast = {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}
    wide = copy.deepcopy(half).double()
    exact = {k: v.double() if v.is_floating_point() else v for k, v in cast.items()}
    for method in METHODS:
        found = xai.head_scores(half, cast, method, target=1).values
        expected = xai.head_scores(wide, exact, method, target=1).values
        assert found.dtype == torch.float32
        assert (found - expected).abs().max() < 0.15 * expected.abs().max()


def test_streams_that_do_not_pair():
    inputs = pair_of_questions("lxmert")
    inputs["visual_feats"], inputs["visual_pos"] = (
        torch.cat([inputs[key], inputs[key][:1]]) for key in ("visual_feats", "visual_pos")
    )
    with pytest.raises(InputError, match="2 of text and 3 of image"):
        xai.head_scores(golden_model("lxmert"), inputs)


def test_masks_by_the_call_of_a_module():
    """LXMERT's cross-attention is one module, called for each direction."""
    model, inputs = golden_model("lxmert"), golden_inputs("lxmert", 0)
    name = "lxmert.encoder.x_layers.0.visual_attention.att"
    table = xai.head_scores(model, inputs).table
    calls = table[table.site == name].drop_duplicates("call")
    assert list(calls.stream) == ["text", "image"] and list(calls.kind) == ["cross", "cross"]
    results = []
    for mask in ({(name, 0): "all"}, {(name, 1): "all"}, {name: "all"}):
        with xai.prune_heads(model, mask), xai.trace(model) as trace:
            model(**inputs)
        alive = [bool(site.probs.any()) for site in trace.sites if site.name == name]
        results.append(alive)
    assert results == [[False, True], [True, False], [False, False]]


FAMILIES = {
    "vilt": ["joint"],
    "blip": ["image", "text"],
    "bart": ["text", "decoder"],
    "t5": ["text", "decoder"],
    "detr": ["image", "queries"],
}


@pytest.mark.parametrize("name", FAMILIES)
def test_other_families(name):
    model, inputs = random_model(name), random_inputs(name)
    options = {"target": 1, "position": {"t5": -1, "detr": 2}.get(name)}
    batch = xai.head_scores(model, inputs, methods=METHODS, **options)
    assert list(batch["lrp"].table.stream.unique()) == FAMILIES[name]
    for method in METHODS:
        for i in range(BATCH):
            alone = xai.head_scores(model, sample(inputs, i), method, **options).values[0]
            difference = (batch[method].values[i] - alone).abs().max()
            # Relevance is divided by what nearly cancels, which amplifies rounding.
            assert difference < 1e-5 * batch[method].values.abs().max()
    mask = batch["taylor"].mask(0.5, per_sample=True)
    with xai.prune_heads(model, mask):
        pruned = xai.head_scores(model, inputs, "taylor", **options)
    gone = torch.cat([mask.keep[site.call] for site in pruned.sites], 1) == 0
    assert gone.any() and (pruned.values[gone] == 0).all()
    assert not torch.allclose(pruned.logits, batch["taylor"].logits)


def test_two_texts_and_two_images_of_a_model_that_reads_them_together():
    """Their scores are (2, 2) as those of all pairs would be; BLIP's columns are classes."""
    model = random_model("blip")
    inputs = random_inputs("blip", batch=2)
    batch = xai.head_scores(model, inputs, target=1)
    for i in range(2):
        alone = xai.head_scores(model, sample(inputs, i), target=1)
        scale = alone.values.abs().max()
        assert (batch.values[i] - alone.values[0]).abs().max() < 1e-9 * scale


@pytest.mark.parametrize("name", ["lxmert-questions", "visualbert-questions"])
def test_padding_of_words_and_regions_leaves_scores_and_ranking_alone(name):
    model, processor = xai.load(name)
    model.double()
    data = GeneratedQuestions(4, 3, images=False)

    def scored(samples):
        inputs = processor.of(samples)
        wide = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
        return xai.head_scores(model, wide, methods=METHODS)

    samples = [data[i] for i in range(4)]
    assert len({len(s.features) for s in samples}) > 1, "nothing is padded"
    together, alone = scored(samples), [scored([s]) for s in samples]
    for method in METHODS:
        expected = torch.cat([one[method].values for one in alone])
        torch.testing.assert_close(
            together[method].values, expected, rtol=0, atol=1e-9 * expected.abs().max().item()
        )
        kept = together[method].kept(0.4, "negative", per_sample=True)
        each = [one[method].kept(0.4, "negative", per_sample=True) for one in alone]
        assert torch.equal(kept, torch.cat(each))
