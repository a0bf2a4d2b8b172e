"""Models without their pruned heads: they compute what the masked ones do, and load anywhere."""

import pytest
import torch
from golden_questions import answers, golden_inputs, golden_model
from small_berts import TEXTS, small_bert
from small_vits import random_pixels, random_vit
from transformers import AutoModelForImageClassification, ViTConfig, ViTForImageClassification

import xai_lib as xai
from xai_lib.errors import InputError, MethodNotApplicableError
from xai_lib.heads import smaller

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def vit():
    """A transformers ViT of three layers of four heads, and a batch."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=32,
        image_size=16,
        patch_size=8,
        num_labels=5,
    )
    model = ViTForImageClassification(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    return model, {"pixel_values": torch.randn(3, 3, 16, 16, dtype=torch.float64)}


def bert():
    model, processor = small_bert()
    inputs = dict(processor(list(TEXTS)))
    inputs.pop("special_tokens_mask", None)
    return model, inputs


def logits(model, inputs):
    with torch.no_grad():
        return answers(model(**inputs))


def masked(model, inputs, mask):
    with xai.prune_heads(model, mask):
        return logits(model, inputs)


@pytest.mark.parametrize("fraction", [0.25, 0.5, 0.8])
def test_a_vit_of_fewer_heads_is_smaller_and_loads(vit, fraction, tmp_path):
    model, inputs = vit
    scores = xai.head_scores(model, inputs, "taylor")
    mask = scores.mask(fraction, "negative", tied=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = smaller(model, mask, scores.sites)
    assert torch.allclose(logits(found.model, inputs), masked(model, inputs, mask), rtol=1e-9)
    most = max(int(keep.sum()) for keep in mask.keep.values())
    assert found.model.config.num_attention_heads == most
    gone = sum(map(len, (*found.removed.values(), *found.zeroed.values())))
    assert gone == int(fraction * 12)
    assert all(len(heads) == 4 - most for heads in found.removed.values())
    # Four maps of (4 - most) heads of 4 rows or columns of 16, and three biases, in three layers.
    removed = 3 * (4 - most) * (4 * 4 * 16 + 3 * 4)
    assert found.parameters[0] - found.parameters[1] == removed
    found.model.save_pretrained(tmp_path)
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path, dtype=torch.float64).eval()
    assert torch.equal(logits(loaded, inputs), logits(found.model, inputs))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.config.num_attention_heads == 4


def test_equally_many_heads_of_every_layer_leave_no_zeros(vit):
    model, inputs = vit
    scores = xai.head_scores(model, inputs)
    mask = {site.name: [site.layer] for site in scores.sites}
    keep = torch.ones(3, 4)
    keep[range(3), range(3)] = 0
    found = smaller(model, xai_mask(keep), scores.sites)
    assert found.zeroed == {} and found.removed == mask
    assert torch.allclose(logits(found.model, inputs), masked(model, inputs, mask), rtol=1e-9)


def xai_mask(keep):
    from xai_lib.tracing import HeadMask

    return HeadMask(dict(enumerate(keep)))


def test_a_bert_cannot_hold_fewer_heads_and_has_zeros_instead(tmp_path):
    model, inputs = bert()
    scores = xai.head_scores(model, inputs)
    mask = scores.mask(0.5, tied=True)
    found = smaller(model, mask, scores.sites)
    assert found.removed == {} and sum(map(len, found.zeroed.values())) == 2
    assert found.parameters[0] == found.parameters[1]
    expected = masked(model, inputs, mask)
    assert torch.allclose(logits(found.model, inputs), expected, rtol=1e-9)
    found.model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, dtype=torch.float64).eval()
    assert torch.allclose(logits(loaded, inputs), expected, rtol=1e-9)


@pytest.mark.parametrize("name", ["lxmert", "visualbert_hfqa"])
def test_models_of_two_streams(name):
    """LXMERT calls one module for both directions, which share their weights and so their fate."""
    model, inputs = golden_model(name), golden_inputs(name, 0)
    scores = xai.head_scores(model, inputs)
    mask = scores.mask(0.5, tied=True)
    found = smaller(model, mask, scores.sites)
    reached = len({(site.name, head) for site in scores.sites if site.reached for head in range(4)})
    assert sum(map(len, found.zeroed.values())) == reached // 2
    assert torch.allclose(logits(found.model, inputs), masked(model, inputs, mask), rtol=1e-9)
    if name == "lxmert":
        with pytest.raises(InputError, match="tied=True"):
            smaller(model, scores.mask(0.5), scores.sites)


def test_timm_models_have_one_map_for_queries_keys_and_values():
    model = random_vit()
    pixels = random_pixels(model)
    scores = xai.head_scores(model, pixels)
    mask = scores.mask(0.5, tied=True)
    found = smaller(model, mask, scores.sites)
    with xai.prune_heads(model, mask):
        expected = model(pixels)
    assert torch.allclose(found.model(pixels), expected, rtol=1e-9)
    assert not torch.allclose(model(pixels), expected)


def test_what_cannot_be_made_permanent(vit):
    model, inputs = vit
    scores = xai.head_scores(model, inputs)
    with pytest.raises(InputError, match="tied=True"):
        smaller(model, scores.mask(0.5, per_sample=True), scores.sites)
    with pytest.raises(InputError, match="tied=True"):
        smaller(model, xai_mask(torch.full((3, 4), 0.5)), scores.sites)
    module = model.get_submodule(scores.sites[0].name)
    module.v = module.v_proj
    del module.v_proj
    with pytest.raises(MethodNotApplicableError, match=r"xai\.prune_heads"):
        smaller(model, scores.mask(0.5, tied=True), scores.sites)
