"""Models that return features of images and texts, such as those of open_clip."""

import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from small_vits import random_vit
from torch import nn
from torch.nn import functional as F

import xai_lib as xai
from xai_lib.errors import InputError, OptionError, UnsupportedModelError
from xai_lib.models import OpenClipProcessor

pytestmark = pytest.mark.usefixtures("one_thread")

LENGTH, END = 10, 2


class Towers(nn.Module):
    """open_clip's form: forward(image, text) -> unit features of both, and their scale."""

    def __init__(self, form="tuple", unit=True):
        super().__init__()
        torch.manual_seed(0)
        self.form, self.unit = form, unit
        self.visual = random_vit(dtype=torch.float32)
        self.words = nn.Embedding(200, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
        self.head = nn.Linear(8, 4)
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        self.logit_bias = nn.Parameter(torch.tensor(-3.0))

    def forward(self, image=None, text=None):
        images = self.visual(image)
        places = torch.arange(len(text)), text.argmax(-1)
        mask = nn.Transformer.generate_square_subsequent_mask(text.shape[1])
        texts = self.head(self.layer(self.words(text), src_mask=mask)[places])
        if self.unit:
            images, texts = F.normalize(images, dim=-1), F.normalize(texts, dim=-1)
        found = images, texts, self.logit_scale.exp(), self.logit_bias
        if self.form == "dict":
            names = "image_features", "text_features", "logit_scale", "logit_bias"
            return dict(zip(names, found, strict=True))
        return found if self.form == "biased" else found[:3]


class Tokenizer:
    """open_clip's byte-pair tokenizer in small: two letters a piece, the end the largest number."""

    sot_token_id, eot_token_id, context_length = 1, 199, LENGTH
    pat = re.compile(r"\w+|[^\s\w]+")

    def __init__(self):
        self.byte_encoder = {byte: chr(0x100 + byte) for byte in range(256)}
        self.encoder = {}

    def clean_fn(self, text):
        return " ".join(text.split()).lower()

    def bpe(self, coded):
        pieces = [coded[i : i + 2] for i in range(0, len(coded), 2)]
        pieces[-1] += "</w>"
        for piece in pieces:
            self.encoder.setdefault(piece, 3 + len(self.encoder))
        return " ".join(pieces)

    def __call__(self, texts):
        rows = torch.zeros(len(texts), LENGTH, dtype=torch.long)
        for row, text in zip(rows, texts, strict=True):
            ids = [self.sot_token_id]
            for word in self.pat.findall(self.clean_fn(text)):
                coded = "".join(self.byte_encoder[byte] for byte in word.encode())
                ids += [self.encoder[piece] for piece in self.bpe(coded).split(" ")]
            ids = [*ids, self.eot_token_id][:LENGTH]
            ids[-1] = self.eot_token_id
            row[: len(ids)] = torch.tensor(ids)
        return rows


def transform(image):
    pixels = torch.from_numpy(np.array(image.resize((16, 16)))).permute(2, 0, 1) / 255
    return (pixels - 0.5) / 0.25


TEXTS = ["A red Star!", "blué heart", "ring"]


@pytest.fixture
def inputs():
    draws = np.random.default_rng(0).integers(0, 256, (2, 20, 24, 3))
    images = list(draws.astype(np.uint8))
    return OpenClipProcessor(transform, Tokenizer())(images, TEXTS)


def scores(model, image, text):
    found = model(image, text)
    images, texts, scale, *bias = found.values() if isinstance(found, dict) else found
    return scale * images @ texts.t() + (bias[0] if bias else 0)


def check_second_text(att, model, inputs, atol):
    """Hold scores, and gradient times input for the second text, against plain autograd."""
    image = inputs["image"].clone().requires_grad_()
    expected = scores(model, image, inputs["text"])
    torch.testing.assert_close(att.logits, expected.detach())
    (gradient,) = torch.autograd.grad(expected[:, 1].sum(), image)
    pixels = (gradient * image.detach()).sum(1)
    torch.testing.assert_close(att.part("image").pixels, pixels, atol=atol, rtol=1e-3)


@pytest.mark.parametrize("form", ["tuple", "biased", "dict"])
def test_every_image_is_scored_with_every_text(form, inputs):
    model = Towers(form).eval()
    att = xai.explain(model, inputs, "gradient_x_input", target="blué heart")
    check_second_text(att, model, inputs, atol=1e-5)


def test_words_are_explained_by_the_image_they_are_scored_with(inputs):
    model = Towers().eval()
    att = xai.explain(model, inputs, "gradient_x_input", target=0)
    embedded = model.words(inputs["text"][:1]).detach().expand(2, -1, -1).requires_grad_()
    handle = model.words.register_forward_hook(lambda module, args, output: embedded)
    try:
        own = scores(model, inputs["image"], inputs["text"][:1].expand(2, -1)).diagonal().sum()
    finally:
        handle.remove()
    (gradient,) = torch.autograd.grad(own, embedded)
    expected = (gradient * embedded.detach()).sum(-1)
    torch.testing.assert_close(att.streams["text"], expected, atol=1e-5, rtol=1e-3)
    words, _ = att.part("text").words("sum")
    assert words.labels == ("A", "red", "Star!")
    torch.testing.assert_close(words.scores[0], expected[0, 1])


METHODS = ["generic_attention", "transformer_attribution", "attnlrp", "integrated_gradients"]


@pytest.mark.parametrize("method", METHODS)
def test_names_of_transformers_do_as_well(method, inputs):
    model = Towers().eval()
    names = {"pixel_values": inputs["image"], "input_ids": inputs["text"]}
    one, other = (xai.explain(model, given, method, target=1) for given in (inputs, names))
    assert torch.equal(one.relevance, other.relevance)
    assert other.part("image").inputs.shape == (2, 3, 16, 16)
    # Padding behind the end has no influence, and with the processor's inputs it is no content.
    assert one.content.sum() < other.content.sum()


def test_numbers_that_are_no_unit_features_are_not_compared(inputs):
    """(logits, logits, loss) has the form of (features, features, scale)."""
    with pytest.raises((OptionError, UnsupportedModelError)):
        xai.explain(Towers(unit=False).eval(), inputs, "gradient", target=1)


def test_a_text_that_is_too_long_is_cut_only_when_asked_to():
    processor = OpenClipProcessor(transform, Tokenizer())
    with pytest.raises(InputError, match="truncate=True"):
        processor.tokenize("abcdefghij klmnopqrstuv")
    cut = processor.tokenize("abcdefghij klmnopqrstuv", truncate=True)
    assert cut["text"][0, -1] == Tokenizer.eot_token_id
    spans = [span for span in cut.encodings[0].offsets if span != (0, 0)]
    assert all(a < b for a, b in spans) and all(a[1] <= b[0] for a, b in pairwise(spans))


def test_pixels_are_shown_as_they_were():
    from types import SimpleNamespace

    steps = SimpleNamespace(transforms=[SimpleNamespace(mean=(0.5,) * 3, std=(0.25,) * 3)])
    processor = OpenClipProcessor(steps, Tokenizer())
    pixels = torch.rand(1, 3, 4, 4)
    torch.testing.assert_close(processor.denormalize((pixels - 0.5) / 0.25), pixels)


def test_a_model_of_open_clip():
    open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    from open_clip.model import CLIP
    from open_clip.transform import image_transform

    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}
    text = {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    model = CLIP(16, vision, text).eval()
    tokenizer = open_clip.get_tokenizer("ViT-B-32", context_length=20)
    processor = OpenClipProcessor(image_transform(32, is_train=False), tokenizer)
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    inputs = processor([picture] * 2, ["A red Star, isn't it?", "zwölf Boxkämpfer!!"])
    att = xai.explain(model, inputs, "gradient_x_input", target=1)
    check_second_text(att, model, inputs, atol=1e-6)
    assert att.part("text").words()[0].labels == ("zwölf", "Boxkämpfer!!")
