"""Why two texts are similar: the cosine of their embeddings, the words of one explained."""

import pytest
import torch
from small_berts import small_bert
from torch import nn
from torch.nn import functional as F

import xai_lib as xai
from xai_lib.errors import InputError, OptionError, UnsupportedModelError
from xai_lib.models import TextProcessor, TextSimilarity

pytestmark = pytest.mark.usefixtures("one_thread")

OTHERS = ["the film is good", "a bad and boring plot"]
TEXTS = ["this movie was great", "the story is not fine but sad"]


class Pooled(nn.Module):
    """A sentence transformer in small: takes a dictionary, writes its embedding into it."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, features):
        states = self.encoder(**features).last_hidden_state
        weights = features["attention_mask"].unsqueeze(-1).float()
        features["sentence_embedding"] = (states * weights).sum(1) / weights.sum(1)
        return features


class Plain(nn.Module):
    """Returns the embeddings themselves."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids, attention_mask):
        return Pooled(self.encoder)({"input_ids": input_ids, "attention_mask": attention_mask})[
            "sentence_embedding"
        ]


@pytest.fixture(scope="module")
def bert():
    model, processor = small_bert(classes=2, layers=2)
    return model.bert.eval(), processor


def cosines(encoder, embedded, inputs, others):
    """Return the cosines by hand, of embeddings of words that are given."""
    mask = inputs["attention_mask"].unsqueeze(-1).float()
    states = encoder(
        inputs_embeds=embedded,
        attention_mask=inputs["attention_mask"],
        token_type_ids=inputs["token_type_ids"],
    ).last_hidden_state
    own = (states * mask).sum(1) / mask.sum(1)
    with torch.no_grad():
        other = encoder(**others).last_hidden_state
        weights = others["attention_mask"].unsqueeze(-1).float()
        other = (other * weights).sum(1) / weights.sum(1)
    return F.cosine_similarity(own[:, None], other[None], dim=-1)


@pytest.mark.parametrize("wrap", [None, Pooled, Plain])
def test_the_gradient_of_the_cosine_reaches_the_words(bert, wrap):
    encoder, processor = bert
    others, inputs = processor(OTHERS), processor(TEXTS)
    model = TextSimilarity(encoder if wrap is None else wrap(encoder), others)
    att = xai.explain(model, inputs, "gradient", target=OTHERS[1], reduce="l2")
    table = encoder.get_input_embeddings()(inputs["input_ids"]).detach().requires_grad_()
    expected = cosines(encoder, table, inputs, others)
    torch.testing.assert_close(att.logits, expected.detach(), atol=1e-5, rtol=1e-5)
    # Directions of embeddings after their norm are not those of the table; words rank alike.
    words = att.words()
    assert [w.labels for w in words] == [tuple(text.split()) for text in TEXTS]
    assert (att.streams["text"][inputs["attention_mask"] == 0] == 0).all()
    assert att.class_name(0) == OTHERS[0]


@pytest.mark.parametrize("method", ["generic_attention", "attnlrp", "integrated_gradients"])
def test_methods_on_a_cosine(bert, method):
    encoder, processor = bert
    model = TextSimilarity(encoder, processor(OTHERS), pooling="first")
    att = xai.explain(model, processor(TEXTS), method, target=0)
    assert att.relevance.isfinite().all() and (att.relevance[0, 1:5] != 0).any()
    # A text is closest to itself.
    own = TextSimilarity(encoder, processor(TEXTS))
    assert own(**processor(TEXTS)).argmax(1).tolist() == [0, 1]


def test_the_encoder_comes_back_as_it_was(bert):
    encoder, processor = bert
    encoder.train()
    state = {name: x.clone() for name, x in encoder.state_dict().items()}
    TextSimilarity(encoder, processor(OTHERS))
    assert encoder.training and all(module.training for module in encoder.modules())
    assert all(torch.equal(x, state[name]) for name, x in encoder.state_dict().items())
    encoder.eval()


def test_a_sentence_encoder_alone_is_refused_and_the_advice_works(bert):
    encoder, processor = bert
    with pytest.raises(InputError, match="TextSimilarity"):
        xai.explain(Pooled(encoder), processor(TEXTS), "rollout")


def test_a_sentence_transformer(bert, tmp_path):
    library = pytest.importorskip("sentence_transformers")
    parts = pytest.importorskip("sentence_transformers.models")
    encoder, processor = bert
    encoder.save_pretrained(tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    inner = parts.Transformer(str(tmp_path))
    pooling = parts.Pooling(encoder.config.hidden_size)
    model = library.SentenceTransformer(modules=[inner, pooling], device="cpu").eval()
    own = TextProcessor(model.tokenizer)
    att = xai.explain(TextSimilarity(model, own(OTHERS)), own(TEXTS), "generic_attention", target=0)
    encoded = model.encode([*TEXTS, *OTHERS], convert_to_tensor=True)
    expected = F.cosine_similarity(encoded[:2, None], encoded[None, 2:], dim=-1)
    torch.testing.assert_close(att.logits, expected, atol=1e-5, rtol=1e-5)
    assert att.words()[0].labels == tuple(TEXTS[0].split())


def test_what_gives_no_cosine(bert):
    encoder, processor = bert
    with pytest.raises(InputError):
        TextSimilarity(encoder, OTHERS)
    with pytest.raises(OptionError):
        TextSimilarity(encoder, processor(OTHERS), pooling="max")

    class Nothing(nn.Module):
        def forward(self, input_ids):
            return {"loss": input_ids.float().mean()}

    with pytest.raises(UnsupportedModelError):
        TextSimilarity(Nothing(), processor(OTHERS))
