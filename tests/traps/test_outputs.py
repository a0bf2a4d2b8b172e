"""A model of several outputs: a feature or a token is never explained as a class."""

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from small_vits import random_pixels, random_vit
from torch import nn
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
)
from transformers.modeling_outputs import ImageClassifierOutput

import xai_lib as xai
from xai_lib.errors import InputError, OptionError, TargetError, UnsupportedModelError, XAIError

METHODS = ("gradient_x_input", "transformer_attribution")
WIDTHS = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
WIDTHS |= {"intermediate_size": 16, "vocab_size": 30}
Named = namedtuple("Named", "features logits")
Other = namedtuple("Other", "features scores")


@dataclass
class Found:
    features: torch.Tensor
    logits: torch.Tensor


class Several(nn.Module):
    """A ViT of 4 classes and 16 features that returns both as `made` puts them together."""

    def __init__(self, made):
        super().__init__()
        self.vit, self.made = random_vit(dtype=torch.float32), made

    def both(self, x):
        features = self.vit.forward_head(self.vit.forward_features(x), pre_logits=True)
        return features, self.vit.head(features)

    def forward(self, x):
        return self.made(*self.both(x))


AMBIGUOUS = {
    "tuple": (lambda f, s: (f, s), 1),
    "last": (lambda f, s: (f, s), -1),
    "list": (lambda f, s: [f, s], 1),
    "logits first": (lambda f, s: (s, f), 0),
    "with a scale": (lambda f, s: (f, s, torch.tensor(100.0)), 1),
    "of one tower": (lambda f, s: (s, None, torch.tensor(100.0)), 0),
    "nested": (lambda f, s: ((f, f), (f, s)), "1.1"),
    "dict": (lambda f, s: {"features": f, "scores": s}, "scores"),
    "deep dict": (lambda f, s: {"main": {"logits": s}, "features": f}, "main.logits"),
    "named tuple": (Other, "scores"),
    "same width": (lambda f, s: (f[:, :4], s), 1),
}
CLEAR = {
    "tensor": lambda f, s: s,
    "tuple of one": lambda f, s: (s,),
    "absent": lambda f, s: (s, None),
    "dict of one": lambda f, s: {"prediction": s},
    "named tuple": Named,
    "dataclass": Found,
    "aux": lambda f, s: {"aux_logits": -s, "logits": s},
    "loss first": lambda f, s: ImageClassifierOutput(loss=s.sum(), logits=s, hidden_states=(f,)),
    "plain dict of pairs": lambda f, s: {"features": f, "logits_per_image": s},
}


def by_hand(model, pixels, target=2):
    """Return ∂logit/∂x · x summed over channels, with plain autograd."""
    x = pixels.clone().requires_grad_()
    (grad,) = torch.autograd.grad(model.both(x)[1][:, target].sum(), x)
    return (grad * pixels).sum(1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("how", AMBIGUOUS)
def test_several_outputs_are_refused_and_chosen(how, method):
    made, output = AMBIGUOUS[how]
    model = Several(made)
    pixels = random_pixels(model.vit)
    with pytest.raises(OptionError, match=r"output="):
        xai.explain(model, pixels, method)
    found = xai.explain(model, pixels, method, 2, output=output)
    plain = xai.explain(model.vit, pixels, method, 2)
    assert torch.allclose(found.logits, model.both(pixels)[1], rtol=1e-5)
    assert torch.allclose(found.relevance, plain.relevance, rtol=1e-5)
    if method == "gradient_x_input":
        expected = by_hand(model, pixels)
        assert (found.pixels - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("how", CLEAR)
def test_clear_outputs_need_no_choice(how):
    model = Several(CLEAR[how])
    pixels = random_pixels(model.vit)
    found = xai.explain(model, pixels, "gradient_x_input", 2)
    expected = by_hand(model, pixels)
    assert (found.pixels - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("output", (5, -3, "none", True, 1.0, "0.0"))
def test_an_output_that_is_not_there(output):
    model = Several(lambda f, s: (f, s))
    with pytest.raises(OptionError):
        xai.explain(model, random_pixels(model.vit), "rollout", output=output)
    with pytest.raises(OptionError):
        xai.explain(model.vit, random_pixels(model.vit), "rollout", output=output)


NO_SCORES = {
    "integers": lambda f, s: s.argmax(-1),
    "bool": lambda f, s: s > 0,
    "nothing": lambda f, s: None,
    "text": lambda f, s: ["cat", "dog"],
    "generator": lambda f, s: (x for x in s),
    "map": lambda f, s: s[..., None, None].expand(-1, -1, 3, 3),
    "rows": lambda f, s: s[:, None],
    "one number": lambda f, s: s.sum(),
    "other rows": lambda f, s: s.repeat(3, 1),
    "no classes": lambda f, s: s[:, :0],
    "complex": lambda f, s: s + 0j,
    "classes alone": lambda f, s: s.mean(0),
}


@pytest.mark.parametrize("how", NO_SCORES)
def test_what_holds_no_scores_is_refused(how):
    model = Several(NO_SCORES[how])
    with pytest.raises(UnsupportedModelError):
        xai.explain(model, random_pixels(model.vit), "gradient_x_input")


@pytest.mark.parametrize("bad", (torch.nan, torch.inf))
def test_scores_that_are_no_number(bad):
    model = Several(lambda f, s: s * bad)
    with pytest.raises(InputError):
        xai.explain(model, random_pixels(model.vit), "gradient_x_input")


def test_a_mean_of_a_map_is_explained():
    """The advice for segmentation, tried."""
    model = Several(lambda f, s: s[..., None, None].expand(-1, -1, 3, 3).mean((2, 3)))
    pixels = random_pixels(model.vit)
    found = xai.explain(model, pixels, "gradient_x_input", 2)
    assert torch.allclose(found.pixels, by_hand(model, pixels), atol=1e-4)


SHAPES = {
    "one score each": (lambda f, s: s[:, 2], 2),
    "one sample's classes": (lambda f, s: s.squeeze(0), 1),
    "one sample's score": (lambda f, s: s[:, 2].squeeze(0), 1),
}


@pytest.mark.parametrize("how", SHAPES)
def test_scores_without_a_dimension(how):
    made, batch = SHAPES[how]
    model = Several(made)
    pixels = random_pixels(model.vit, batch)
    whole = how == "one sample's classes"
    found = xai.explain(model, pixels, "gradient_x_input", 2 if whole else 0)
    assert found.logits.shape == (batch, 4 if whole else 1)
    expected = by_hand(model, pixels)
    assert (found.pixels - expected).abs().max() <= 1e-5 * expected.abs().max()
    steps = xai.explain(model, pixels, "integrated_gradients", 2 if whole else 0)
    assert steps.relevance.isfinite().all()


def test_a_configuration_that_asks_for_tuples():
    torch.manual_seed(0)
    plain, named = (
        BertForSequenceClassification(
            BertConfig(**WIDTHS, return_dict=flag, output_hidden_states=True, num_labels=3)
        ).eval()
        for flag in (False, True)
    )
    named.load_state_dict(plain.state_dict())
    inputs = {"input_ids": torch.randint(3, 30, (2, 5))}
    one, other = (xai.explain(m, inputs, "gradient_x_input", 1) for m in (plain, named))
    assert torch.equal(one.relevance, other.relevance) and plain.config.return_dict is False


def asked(return_dict=True):
    torch.manual_seed(0)
    model = BertForQuestionAnswering(BertConfig(**WIDTHS, return_dict=return_dict)).eval()
    mask = torch.ones(2, 6, dtype=torch.long)
    mask[1, 4:] = 0
    return model, {"input_ids": torch.randint(3, 30, (2, 6)), "attention_mask": mask}


class Answer(nn.Module):
    """A module around a model of answers that returns the tuple (start, end)."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask=None):
        found = self.model(input_ids=input_ids, attention_mask=attention_mask)
        return found.start_logits, found.end_logits


class One(Answer):
    """A module that returns one of a model's outputs alone."""

    def __init__(self, model, name):
        super().__init__(model)
        self.name = name

    def forward(self, input_ids, attention_mask=None):
        return self.model(input_ids=input_ids, attention_mask=attention_mask)[self.name]


@pytest.mark.parametrize("part", ("start", "end"))
@pytest.mark.parametrize("kind", ("named", "tuple"))
def test_an_answer_has_two_parts(part, kind):
    model, inputs = asked()
    model = model if kind == "named" else Answer(model)
    with pytest.raises(OptionError):
        xai.explain(model, inputs, "gradient_x_input")
    found = xai.explain(model, inputs, "gradient_x_input", part=part)
    alone = One(model if kind == "named" else model.model, f"{part}_logits")
    scores = alone(**inputs).masked_fill(inputs["attention_mask"] == 0, -torch.inf)
    best = scores.argmax(1).tolist()
    expected = xai.explain(alone, inputs, "gradient_x_input", best)
    assert found.target.tolist() == best and torch.equal(found.relevance, expected.relevance)


def test_padding_is_no_answer():
    model, inputs = asked()
    with torch.no_grad():
        hidden = model.bert(**inputs).last_hidden_state
        model.qa_outputs.weight[0] = 9 * (hidden[1, 5] - hidden[1, 0])
    best = model(**inputs).start_logits.argmax(1)
    assert best[1] >= 4, "the planted padding scores highest"
    found = xai.explain(model, inputs, "rollout", part="start")
    assert found.target[1] < 4
    assert found.probabilities()[1, 4:].eq(0).all()
    assert found.probabilities()[1].sum() == pytest.approx(1)
    with pytest.raises(TargetError):
        xai.explain(model, inputs, "rollout", 5, part="start")
    assert xai.explain(model, inputs, "rollout", [5, 3], part="end").target.tolist() == [5, 3]


def test_labels_name_no_tokens():
    model, inputs = asked()
    found = xai.explain(model, inputs, "rollout", part="start")
    assert found.class_names is None
    with pytest.raises(TargetError):
        xai.explain(model, inputs, "rollout", "LABEL_0", part="start")


@pytest.mark.parametrize("options", ({"part": "middle"}, {"part": "start", "output": 0}))
def test_a_part_that_is_none(options):
    model, inputs = asked()
    with pytest.raises(XAIError):
        xai.explain(model, inputs, "rollout", **options)


def test_heads_and_the_examination_of_an_answer():
    model, inputs = asked()
    for part in ("start", "end"):
        found = xai.explain(model, inputs, "rollout", part=part)
        scored = xai.head_scores(model, inputs, output=f"{part}_logits")
        assert scored.target[:, 0].tolist() == found.target.tolist()
        assert xai.examine(model, inputs, output=f"{part}_logits").holds


def test_one_row_of_a_language_model_is_examined():
    torch.manual_seed(0)
    config = GPT2Config(n_embd=16, n_layer=1, n_head=2, n_inner=16, vocab_size=30)
    model = GPT2LMHeadModel(config).eval()
    ids = torch.randint(3, 30, (2, 6))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    found = xai.examine(model, inputs, position=-1)
    (padding,) = (c for name, c in found.checks.items() if "padding" in name)
    assert padding.verdict == "holds" and found.holds
