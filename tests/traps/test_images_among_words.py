"""An image's features in the places of a text (LLaVA): they are the image's, and no words."""

import pytest
import torch
from torch import nn
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

import xai_lib as xai
from xai_lib.explainers.gradients import nodes

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTHS = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
IMAGE, PLACES, CLASS = 39, slice(1, 5), 5


@pytest.fixture(scope="module")
def llava():
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**WIDTHS, image_size=16, patch_size=8),
        text_config=LlamaConfig(**WIDTHS, vocab_size=40, pad_token_id=0),
        image_token_index=IMAGE,
        image_seq_length=4,
        vision_feature_layer=-1,
    )
    model = LlavaForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.dim() > 1 else 1)
    ids = torch.randint(3, 38, (2, 7))
    ids[:, PLACES] = IMAGE
    return model, {"input_ids": ids, "pixel_values": torch.randn(2, 3, 16, 16)}


def scores(model, inputs, embedded):
    """Return the last token's score with other word embeddings, the image as it is."""
    table = model.get_input_embeddings()
    handle = table.register_forward_hook(lambda module, args, output: embedded)
    try:
        return model(**inputs).logits[:, -1, CLASS]
    finally:
        handle.remove()


def gradient(model, inputs, embedded):
    embedded = embedded.detach().requires_grad_()
    return torch.autograd.grad(scores(model, inputs, embedded).sum(), embedded)[0]


def explained(llava, method, **options):
    model, inputs = llava
    return xai.explain(model, inputs, method, target=CLASS, position=-1, **options)


def test_gradients_of_the_words_alone(llava):
    model, inputs = llava
    words = model.get_input_embeddings()(inputs["input_ids"]).detach()
    expected = (gradient(model, inputs, words) * words).sum(-1)
    assert (expected[:, PLACES] == 0).all()
    found = explained(llava, "gradient_x_input").streams["text"]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)


def test_the_image_stands_still_while_the_words_move(llava):
    """Σ x ∫ ∂score/∂x along the words' path, at the points of the same rule."""
    model, inputs = llava
    words = model.get_input_embeddings()(inputs["input_ids"]).detach()
    rows = zip(*nodes("gauss_legendre", 20), strict=True)
    mean = sum(float(w) * gradient(model, inputs, float(a) * words) for a, w in rows)
    found = explained(llava, "integrated_gradients").streams["text"]
    torch.testing.assert_close(found, (mean * words).sum(-1), atol=1e-4, rtol=1e-3)


METHODS = ["gradient", "gradient_x_input", "integrated_gradients", "smoothgrad", "lrp", "attnlrp"]


@pytest.mark.parametrize("method", METHODS)
def test_placeholders_are_no_words(llava, method):
    att = explained(llava, method)
    own = att.layouts.slices()["text"]
    assert (att.streams["text"][:, PLACES] == 0).all()
    assert not att.content[:, own][:, PLACES].any() and att.content[:, own][:, 5:].all()
    assert (att.streams["text"][:, 5:] != 0).any() and (att.streams["image"] != 0).any()


class Written(nn.Module):
    """Regions written into the places of a text before its attention, or added to all of them."""

    def __init__(self, write):
        super().__init__()
        torch.manual_seed(0)
        self.write, self.words, self.regions = write, nn.Embedding(20, 8), nn.Linear(8, 8)
        self.own = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
        self.head = nn.Linear(8, 3)

    def forward(self, input_ids, visual_feats):
        image = self.own(self.regions(visual_feats))
        return self.head(self.layer(self.write(self.words(input_ids), image))[:, 0])


def written(text, image):
    text = text.clone()
    text[:, 1:3] = image[:, :2]
    return text


def added(text, image):
    return text + image.mean(1, keepdim=True)


@pytest.mark.parametrize("write", [written, added])
def test_only_places_that_are_overwritten_are_no_words(write):
    inputs = {
        "input_ids": torch.randint(1, 20, (2, 4)),
        "visual_feats": torch.randn(2, 4, 8),
    }
    att = xai.explain(Written(write).eval(), inputs, "gradient", target=1)
    places = (att.streams["text"][0] == 0).nonzero().flatten().tolist()
    assert places == ([1, 2] if write is written else [])
