"""What must not go wrong silently: streams that mingle, users' own towers, masks of parts."""

import copy

import pytest
import torch
from small_clips import SIDE, random_clip
from small_streams import random_inputs, random_model
from torch import nn
from torch.nn import functional as F
from torch.overrides import _get_current_function_mode
from transformers import (
    BertConfig,
    BertForMaskedLM,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForSequenceClassification,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

import xai_lib as xai
from xai_lib.errors import InputError, MethodNotApplicableError, OptionError
from xai_lib.heads.smaller import smaller

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTHS = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


class TwoTowers(nn.Module):
    """A text and regions, each with attention of its own, put together by `mix`."""

    def __init__(self, mix, project="unbind"):
        super().__init__()
        torch.manual_seed(0)
        self.mix, self.project = mix, project
        self.words, self.regions = nn.Embedding(20, 8), nn.Linear(8, 8)
        self.maps = nn.ModuleList(nn.Linear(8, 24) for _ in range(3))
        self.out, self.head = nn.Linear(8, 8), nn.Linear(8, 3)
        self.double().eval()

    def attend(self, number, x, other=None):
        other = x if other is None else other
        parts = self._parts(self.maps[number](x))[:1] + self._parts(self.maps[number](other))[1:]
        return self.out(F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2))

    def _parts(self, x):
        apart = x.unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        if self.project == "unbind":
            return apart.unbind(0)
        return apart[0], apart[1], apart[2]

    def forward(self, input_ids, visual_feats):
        text, image = self.words(input_ids), self.regions(visual_feats)
        text, image = text + self.attend(0, text), image + self.attend(1, image)
        return self.head(self.mix(self, text, image)[:, 0])


def two_inputs(regions=4):
    draw = torch.Generator().manual_seed(1)
    return {
        "input_ids": torch.randint(1, 20, (2, 4), generator=draw),
        "visual_feats": torch.randn(2, regions, 8, generator=draw, dtype=torch.float64),
    }


def after(put):
    """Return a `mix` whose result attends to itself."""

    def mix(model, text, image):
        x = put(text, image)
        return x + model.attend(2, x)

    return mix


def written(text, image):
    text = text.clone()
    text[:, 1:3] = image[:, :2]
    return text


MINGLED = {
    "added": lambda t, v: t + v,
    "gated": lambda t, v: t * v.mean(1, keepdim=True).sigmoid(),
    "written": written,
    "features": lambda t, v: torch.cat([t, v], -1)[..., 4:12],
    "pooled": lambda t, v: torch.cat([t, v.mean(1, keepdim=True)], 1),
    "cut": lambda t, v: torch.cat([t, v[:, 1:]], 1),
}


@pytest.mark.parametrize("how", MINGLED)
def test_streams_that_mingle_have_no_maps_but_gradients(how):
    model, inputs = TwoTowers(after(MINGLED[how])), two_inputs()
    with pytest.raises(MethodNotApplicableError):
        xai.explain(model, inputs, "generic_attention")
    found = xai.explain(model, inputs, "gradient_x_input", target=1)
    features = inputs["visual_feats"].clone().requires_grad_()
    (grad,) = torch.autograd.grad(model(inputs["input_ids"], features)[:, 1].sum(), features)
    assert torch.allclose(found.streams["image"], (grad * features).sum(-1).detach())


def test_an_image_in_the_places_of_a_text_is_refused():
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**WIDTHS, image_size=16, patch_size=8),
        text_config=LlamaConfig(**WIDTHS, vocab_size=40, pad_token_id=0),
        image_token_index=39,
        image_seq_length=4,
        vision_feature_layer=-1,
    )
    model = LlavaForConditionalGeneration(config).eval()
    ids = torch.randint(3, 38, (2, 7))
    ids[:, 1:5] = 39
    inputs = {"input_ids": ids, "pixel_values": torch.randn(2, 3, 16, 16)}
    with pytest.raises(MethodNotApplicableError):
        xai.explain(model, inputs, "rollout", position=-1)


def test_pieces_of_a_tensor_stay_in_their_stream():
    def cross(model, text, image):
        return text + model.attend(2, text, image)

    found = [
        xai.explain(TwoTowers(cross, how), two_inputs(5), "generic_attention", target=1)
        for how in ("unbind", "getitem")
    ]
    assert list(found[0].streams) == ["text", "image"]
    assert torch.equal(found[0].relevance, found[1].relevance)


def test_what_is_looked_at_side_by_side_is_not_read_by_the_head():
    """The text looks at text and image together; the image's own rows are nobody's prediction."""

    def cross(model, text, image):
        return text + model.attend(2, text, torch.cat([text, image], 1))

    model, inputs = TwoTowers(cross), two_inputs(5)
    first = xai.explain(model, inputs, "rollout", target=1).streams["image"].sum(-1)
    assert (first < 0.6).all() and (first > 0.1).all()
    everything = xai.explain(model, inputs, "rollout", target=1).relevance.sum(-1)
    assert torch.allclose(everything, torch.ones(2, dtype=torch.float64))


class OwnScores(nn.Module):
    """CLIP whose scores have no name."""

    def __init__(self):
        super().__init__()
        self.clip = random_clip().double()

    def forward(self, input_ids, pixel_values):
        return self.clip(input_ids=input_ids, pixel_values=pixel_values).logits_per_image


def pairs():
    draw = torch.Generator().manual_seed(2)
    model = OwnScores().eval()
    ids = torch.randint(5, 12, (2, 5), generator=draw)
    ids[:, -1] = model.clip.config.text_config.eos_token_id
    pixels = torch.randn(2, 3, SIDE, SIDE, generator=draw, dtype=torch.float64)
    return model, {"input_ids": ids, "pixel_values": pixels}


@pytest.mark.parametrize("images", [1, 2])
def test_scores_of_pairs_are_known_without_their_name(images):
    model, inputs = pairs()
    inputs["pixel_values"] = inputs["pixel_values"][:images]
    for target in ([1, 0][:images], 1):
        own, named = (
            xai.explain(m, inputs, "generic_attention", target=target) for m in (model, model.clip)
        )
        assert torch.equal(own.relevance, named.relevance)
    own, named = (xai.head_scores(m, inputs, target=[1, 0][:images]) for m in (model, model.clip))
    assert torch.equal(own.values, named.values)


def text_site(model):
    return next(n for n, _ in model.named_modules() if n.endswith("text_model.encoder.layers.0"))


@pytest.mark.parametrize("method", ["generic_attention", "integrated_gradients"])
def test_the_mask_of_a_text_goes_with_it(method):
    model, inputs = pairs()
    clip, options = model.clip, {"steps": 3} if method == "integrated_gradients" else {}
    site, keep = f"{text_site(clip)}.self_attn", torch.tensor([[0.0, 1], [1, 1]])
    with xai.prune_heads(clip, {site: keep}):
        both = xai.explain(clip, inputs, method, target=[1, 0], **options)
    for text in (0, 1):
        one = {
            "input_ids": inputs["input_ids"][text : text + 1],
            "pixel_values": inputs["pixel_values"][1 - text : 2 - text],
        }
        with xai.prune_heads(clip, {site: keep[text : text + 1]}):
            alone = xai.explain(clip, one, method, target=0, **options)
        for stream in ("text", "image"):
            found, expected = both.streams[stream][1 - text], alone.streams[stream][0]
            assert torch.allclose(found, expected, atol=1e-9)


def test_rows_of_pairs_that_a_mask_cannot_follow_are_refused():
    model, inputs = pairs()
    scores = xai.head_scores(model.clip, inputs, target=[1, 0])
    with pytest.raises(OptionError, match="per_sample"):
        scores.mask(0.3, per_sample=True)
    paired = xai.head_scores(model.clip, inputs, target=[0, 1])
    assert paired.mask(0.3, per_sample=True).keep[2].shape == (2, 2)


def test_some_of_a_batch_may_be_explained_against_another():
    model, inputs = pairs()
    found = xai.explain(model.clip, inputs, "gradient_x_input", target=[(0, 1), 1]).streams
    both = xai.explain(model.clip, inputs, "gradient_x_input", target=(0, 1)).streams
    assert torch.allclose(found["against"][0], both["against"][0])
    assert (found["against"][1] == 0).all() and found["text"][1].any()


def test_parts_of_a_pruned_model_are_pruned():
    model, inputs = pairs()
    clip, pixels = model.clip, inputs["pixel_values"]
    scores = xai.head_scores(clip, inputs, target=[0, 1])
    mask = scores.mask(0.5)
    with xai.prune_heads(clip, mask):
        together = clip(**inputs).image_embeds
        alone = clip.get_image_features(pixel_values=pixels)
    alone = getattr(alone, "pooler_output", alone)
    whole = clip(**inputs).image_embeds
    assert torch.allclose(F.normalize(alone, dim=-1), together)
    assert not torch.allclose(whole, together)
    with xai.prune_heads(clip, {0: [0]}), pytest.raises(InputError, match="Name modules instead"):
        clip.get_image_features(pixel_values=pixels)
    assert torch.equal(clip(**inputs).image_embeds, whole)


def test_generation_is_pruned_in_encoder_and_decoder():
    model, inputs = random_model("t5"), random_inputs("t5")
    scores = xai.head_scores(model, inputs, position=1)
    given = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    options = {"max_new_tokens": 2, "output_logits": True, "return_dict_in_generate": True}
    with xai.prune_heads(model, scores.mask(0.4)), torch.no_grad():
        found = model.generate(**given, **options).logits[0]
        start = torch.zeros(2, 1, dtype=torch.long)
        expected = model(**given, decoder_input_ids=start).logits[:, 0]
    whole = model(**given, decoder_input_ids=start).logits[:, 0]
    assert torch.allclose(found.double(), expected, atol=1e-5)
    assert not torch.allclose(whole, expected, atol=1e-3)


def test_a_copy_of_a_pruned_model_is_whole():
    model, inputs = pairs()
    with xai.prune_heads(model.clip, {0: [0]}):
        other = copy.deepcopy(model.clip)
        inside = other(**inputs).logits_per_image
    whole = model.clip(**inputs).logits_per_image
    assert torch.equal(inside, whole) and torch.equal(other(**inputs).logits_per_image, whole)


def test_an_interrupt_leaves_nothing_behind():
    model, inputs = pairs()

    def interrupt(*_):
        raise KeyboardInterrupt

    handle = model.clip.vision_model.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt), xai.prune_heads(model.clip, {0: [0]}):
        model.clip(**inputs)
    handle.remove()
    assert _get_current_function_mode() is None
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_heads_that_share_values_are_pruned_for_good():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(**WIDTHS | sizes, vocab_size=40, num_labels=3, pad_token_id=0)
    model = LlamaForSequenceClassification(config).double().eval()
    for parameter in model.parameters():
        parameter.data.mul_(5 if parameter.dim() == 2 else 1)
    inputs = {"input_ids": torch.randint(3, 40, (2, 6))}
    scores = xai.head_scores(model, inputs, target=0)
    mask = scores.mask(0.4, tied=True)
    with xai.prune_heads(model, mask):
        expected = model(**inputs).logits
    assert torch.allclose(smaller(model, mask, scores.sites).model(**inputs).logits, expected)
    assert not torch.allclose(model(**inputs).logits, expected, rtol=1e-2)


def test_padded_pictures_of_vilt_have_no_grid():
    """Its tokens are the patches that are there, moved up, so row and column are unknown."""
    model, inputs = random_model("vilt"), random_inputs("vilt")
    inputs["pixel_mask"] = torch.ones(2, 16, 16, dtype=torch.long)
    assert xai.explain(model, inputs, "raw_attention").patches.shape == (2, 2, 2)
    inputs["pixel_mask"][1, :, 8:] = 0
    att = xai.explain(model, inputs, "raw_attention")
    assert att.streams["image"].shape[0] == 2
    with pytest.raises(MethodNotApplicableError, match="grid"):
        _ = att.patches


def test_the_scores_of_padding_are_not_explained():
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(**WIDTHS, vocab_size=40)).eval()
    ids = torch.randint(3, 40, (2, 6))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    with pytest.raises(OptionError, match="padding"):
        xai.explain(model, inputs, "generic_attention", position=-1)
    assert xai.explain(model, inputs, "generic_attention", position=3).relevance.isfinite().all()


def test_a_loss_has_no_pairs_of_classes():
    with pytest.raises(OptionError):
        xai.head_scores(
            random_model("lxmert"), random_inputs("lxmert"), target=[(0, 1), 2], quantity="loss"
        )
