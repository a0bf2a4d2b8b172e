"""LeGrad against its formula by hand: the head written out, autograd on the untouched model."""

import pytest
import torch
from small_berts import TEXTS, small_bert
from small_clips import TEXTS as CAPTIONS
from small_clips import pair_processor, random_clip
from small_vits import random_pixels, random_vit, relative_error
from torch.nn import functional as F

import xai_lib as xai
from xai_lib.errors import MethodNotApplicableError

pytestmark = pytest.mark.usefixtures("one_thread")


def by_hand(attentions, logits, present=None, start=0):
    """mean over layers, heads and queries of (∂s_l/∂A_l)⁺; logits: s_l (batch,) of each layer."""
    total = 0
    for A, score in list(zip(attentions, logits, strict=True))[start:]:
        (grad,) = torch.autograd.grad(score.sum(), A, retain_graph=True)
        rows = grad.clamp(min=0).mean(1)
        if present is None:
            total = total + rows.mean(1)
        else:
            total = total + (rows * present[:, :, None]).sum(1) / present.sum(1, keepdim=True)
    return total / (len(attentions) - start)


def vit_layers(model, pixels):
    """Return timm's attention maps and the tokens after each block, by a forward pass by hand."""
    x = model._pos_embed(model.patch_embed(pixels))
    attentions, states = [], []
    for block in model.blocks:
        attention, y = block.attn, block.norm1(x)
        shape = (*y.shape[:2], 3, attention.num_heads, -1)
        q, k, v = attention.qkv(y).reshape(shape).permute(2, 0, 3, 1, 4)
        A = (q * attention.scale @ k.transpose(-2, -1)).softmax(-1)
        x = x + attention.proj((A @ v).transpose(1, 2).flatten(2))
        x = x + block.mlp(block.norm2(x))
        attentions.append(A)
        states.append(x)
    return attentions, states


@pytest.mark.parametrize("start", (0, 1))
@pytest.mark.parametrize("pool", ("token", "avg"))
def test_vit(pool, start):
    model = random_vit(seed=5, global_pool=pool)
    pixels = random_pixels(model)
    attentions, states = vit_layers(model, pixels)
    scores = [model.forward_head(model.norm(x))[:, 2] for x in states]
    expected = by_hand(attentions, scores, start=start)
    found = xai.explain(model, pixels, "legrad", target=2, start_layer=start)
    assert relative_error(found.relevance, expected).max() < 1e-9


def test_bert_in_a_padded_batch():
    model, processor = small_bert(layers=3)
    inputs = processor(list(TEXTS))
    given = {k: v for k, v in inputs.items() if k != "special_tokens_mask"}
    output = model(**given, output_attentions=True, output_hidden_states=True)
    scores = [model.classifier(model.bert.pooler(x))[:, 1] for x in output.hidden_states[1:]]
    expected = by_hand(output.attentions, scores, inputs["attention_mask"])
    expected = expected * inputs["attention_mask"]
    found = xai.explain(model, inputs, "legrad", target=1).relevance
    assert relative_error(found, expected).max() < 1e-9
    alone = xai.explain(model, processor(TEXTS[1]), "legrad", target=1).relevance
    assert relative_error(found[1:2, : alone.shape[1]], alone).max() < 1e-9


def test_clip_image_and_text():
    model = random_clip().double()
    model.set_attn_implementation("eager")
    inputs = pair_processor()(torch.rand(1, 3, 32, 32), CAPTIONS)
    inputs["pixel_values"] = inputs["pixel_values"].double()
    wanted = {"output_attentions": True, "output_hidden_states": True}
    seen = model.vision_model(inputs["pixel_values"], **wanted)
    read = model.text_model(inputs["input_ids"], inputs["attention_mask"], **wanted)
    end = (inputs["input_ids"] == model.text_model.eos_token_id).int().argmax(-1)

    def image(x):
        return F.normalize(model.visual_projection(model.vision_model.post_layernorm(x[:, 0])))

    def text(x):
        x = model.text_model.final_layer_norm(x)
        return F.normalize(model.text_projection(x[torch.arange(len(x)), end]))

    images = [image(x) for x in seen.hidden_states[1:]]
    texts = [text(x) for x in read.hidden_states[1:]]
    scale = model.logit_scale.exp()
    number = 1
    att = xai.explain(model, inputs, "legrad", target=number)
    torch.testing.assert_close(att.logits, scale * images[-1] @ texts[-1].T)
    expected = by_hand(seen.attentions, [scale * x @ texts[-1][number] for x in images])
    assert relative_error(att.streams["image"], expected).max() < 1e-9
    present = inputs["attention_mask"]
    expected = by_hand(read.attentions, [scale * images[-1][0] @ x.T for x in texts], present)
    expected = (expected * present)[number : number + 1]
    assert relative_error(att.streams["text"], expected).max() < 1e-9


def test_a_probe_that_pools_is_refused_with_a_way_out():
    model = random_clip("siglip").double()
    inputs = pair_processor(pad_to=24)(torch.rand(1, 3, 32, 32), CAPTIONS)
    inputs["pixel_values"] = inputs["pixel_values"].double()
    with pytest.raises(MethodNotApplicableError, match="'generic_attention'"):
        xai.explain(model, inputs, "legrad")
    assert torch.isfinite(xai.explain(model, inputs, "generic_attention").relevance).all()
