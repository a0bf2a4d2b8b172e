"""Batches as people bring them: labels left in, a text for inputs, rows of scores of padding."""

import numpy as np
import pytest
import torch
from small_berts import small_tokenizer
from small_vits import random_pixels, random_vit
from torch import nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BartForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    ViTConfig,
    ViTForImageClassification,
)

import xai_lib as xai
from xai_lib.errors import InputError, OptionError, TargetError
from xai_lib.models import TextProcessor

WIDTHS = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
WIDTHS |= {"intermediate_size": 16}


def bert():
    torch.manual_seed(0)
    config = BertConfig(**WIDTHS, vocab_size=len(small_tokenizer()), num_labels=3)
    return BertForSequenceClassification(config).eval()


def gpt():
    torch.manual_seed(0)
    vocabulary = len(small_tokenizer())
    config = GPT2Config(n_embd=16, n_layer=1, n_head=2, n_inner=16, vocab_size=vocabulary)
    return GPT2LMHeadModel(config).eval()


def bart(kind, **config):
    torch.manual_seed(0)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 30}
    sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    sizes |= {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 32}
    return kind(BartConfig(**sizes, **config)).eval()


# -- labels in the batch -------------------------------------------------------------------------

LABELS = {
    "strings": {"labels": ["cat", "dog"]},
    "numbers": {"labels": torch.tensor([0, 2])},
    "numbers too large": {"labels": torch.tensor([7, 99])},
    "floats": {"labels": torch.rand(2, 3)},
    "none": {"labels": None},
    "a data set's": {"label": [0, 1]},
    "of a collator": {"label_ids": torch.tensor([0, 1])},
}


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("method", ("gradient_x_input", "generic_attention"))
def test_labels_change_nothing(kind, method):
    model, inputs = bert(), {"input_ids": torch.randint(5, 30, (2, 5))}
    plain = xai.explain(model, inputs, method)
    given = inputs | LABELS[kind]
    found = xai.explain(model, given, method)
    assert torch.equal(found.logits, plain.logits)
    assert torch.equal(found.relevance, plain.relevance)
    assert given.keys() == (inputs | LABELS[kind]).keys()


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_images_change_nothing(kind):
    torch.manual_seed(0)
    config = ViTConfig(**WIDTHS, image_size=16, patch_size=8, num_labels=3)
    model, pixels = ViTForImageClassification(config).eval(), torch.randn(2, 3, 16, 16)
    plain = xai.explain(model, {"pixel_values": pixels}, "rollout")
    found = xai.explain(model, {"pixel_values": pixels} | LABELS[kind], "rollout")
    assert torch.equal(found.relevance, plain.relevance)


def test_labels_of_a_decoders_classes_change_nothing():
    model = bart(BartForSequenceClassification, num_labels=3)
    ids = torch.randint(3, 30, (2, 5))
    ids[:, -1] = model.config.eos_token_id
    plain = xai.explain(model, {"input_ids": ids}, "gradient_x_input")
    found = xai.explain(
        model, {"input_ids": ids, "labels": torch.tensor([0, 1])}, "gradient_x_input"
    )
    assert torch.equal(found.streams["text"], plain.streams["text"])


def test_labels_that_a_decoder_reads_are_inputs():
    model, ids = bart(BartForConditionalGeneration), torch.randint(3, 30, (2, 5))
    labels = torch.randint(3, 30, (2, 4))
    found = xai.explain(model, {"input_ids": ids, "labels": labels}, "gradient_x_input", position=2)
    expected = model(input_ids=ids, labels=labels).logits[:, 2]
    torch.testing.assert_close(found.logits, expected)


class Margin(nn.Module):
    """A head that moves the label's logit, where labels are given; `needed` says that they are."""

    def __init__(self):
        super().__init__()
        self.vit = random_vit(dtype=torch.float32)

    def forward(self, pixel_values, labels=None):
        scores = self.vit(pixel_values)
        return scores if labels is None else scores - 9 * nn.functional.one_hot(labels, 4)


class Conditioned(Margin):
    def forward(self, pixel_values, labels):
        return super().forward(pixel_values, labels)


def test_a_prediction_does_not_know_its_label():
    model, labels = Margin(), torch.tensor([0, 1])
    pixels = random_pixels(model.vit)
    found = xai.explain(model, {"pixel_values": pixels, "labels": labels}, "gradient_x_input")
    torch.testing.assert_close(found.logits, model.vit(pixels))
    needed = Conditioned()
    found = xai.explain(needed, {"pixel_values": pixels, "labels": labels}, "gradient_x_input")
    torch.testing.assert_close(found.logits, needed(pixels, labels))


# -- a text in the place of inputs ---------------------------------------------------------------


@pytest.mark.parametrize("text", ("a good film", ["a film", "a plot"], ("a",), b"a", [["a", "b"]]))
def test_a_text_is_no_input(text):
    with pytest.raises(InputError, match="tokenizer"):
        xai.explain(bert(), text, "rollout")
    with pytest.raises(InputError, match="tokenizer"):
        xai.explain(bert(), np.array(text), "rollout")


def test_the_advice_for_a_text():
    model, tokenizer = bert(), small_tokenizer()
    one = xai.explain(model, tokenizer("a good film", return_tensors="pt"), "rollout")
    other = xai.explain(model, TextProcessor(tokenizer)("a good film"), "rollout")
    assert torch.equal(one.relevance, other.relevance)


# -- the next word as a target -------------------------------------------------------------------


def test_a_token_is_asked_for_by_itself():
    model, tokenizer = gpt(), small_tokenizer()
    inputs = TextProcessor(tokenizer)("this film was")
    number = tokenizer.convert_tokens_to_ids("good")
    found = xai.explain(model, inputs, "gradient_x_input", "good", position=-1)
    assert found.target.tolist() == [number]
    pair = xai.explain(model, inputs, "gradient_x_input", ("good", "bad"), position=-1)
    assert pair.against.tolist() == [tokenizer.convert_tokens_to_ids("bad")]
    both = xai.explain(model, inputs, "rollout", targets=["good", number, None], position=-1)
    assert both.target[:2, 0].tolist() == [number, number]


@pytest.mark.parametrize("target", ("wonderful acting", "", ["good plot"]))
def test_a_target_of_several_tokens(target):
    inputs = TextProcessor(small_tokenizer())("this film was")
    with pytest.raises(TargetError):
        xai.explain(gpt(), inputs, "rollout", target, position=-1)


def test_a_token_without_a_tokenizer():
    model, tokenizer = gpt(), small_tokenizer()
    inputs = tokenizer("this film was", return_tensors="pt")
    with pytest.raises(TargetError, match="tokenizer"):
        xai.explain(model, inputs, "rollout", "good", position=-1)
    # The advice, tried.
    (number,) = tokenizer("good", add_special_tokens=False).input_ids
    assert xai.explain(model, inputs, "rollout", number, position=-1).target.tolist() == [number]


# -- rows of scores that a model keeps -----------------------------------------------------------


def padded(side):
    ids = torch.randint(5, 30, (2, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, slice(4, None) if side == "right" else slice(2)] = 0
    return {"input_ids": ids, "attention_mask": mask}


KEPT = {"one": 1, "two": 2, "the last place": torch.tensor([5]), "places": torch.tensor([1, 5])}


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("position", (-1, None))
def test_the_row_after_padding_is_no_prediction(kept, position):
    rows = KEPT[kept] if isinstance(KEPT[kept], int) else len(KEPT[kept])
    position = rows - 1 if position is None else position
    inputs = padded("right") | {"logits_to_keep": KEPT[kept]}
    with pytest.raises(OptionError, match="padding"):
        xai.explain(gpt(), inputs, "gradient_x_input", position=position)


@pytest.mark.parametrize("kept", KEPT)
def test_a_row_that_is_kept_is_that_of_its_token(kept):
    inputs = padded("left")
    whole = xai.explain(gpt(), inputs, "gradient_x_input", 7, position=-1)
    found = xai.explain(
        gpt(), inputs | {"logits_to_keep": KEPT[kept]}, "gradient_x_input", 7, position=-1
    )
    torch.testing.assert_close(found.relevance, whole.relevance)


def test_a_kept_row_that_all_texts_have():
    inputs = padded("right") | {"logits_to_keep": torch.tensor([1, 5])}
    found = xai.explain(gpt(), inputs, "gradient_x_input", 7, position=0)
    whole = xai.explain(gpt(), padded("right"), "gradient_x_input", 7, position=1)
    torch.testing.assert_close(found.relevance, whole.relevance)
