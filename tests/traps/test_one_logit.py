"""Scores that are no classes which exclude each other: one logit, a regression, several labels."""

from html import unescape
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.text import Text
from PIL import Image
from small_berts import small_tokenizer
from small_vits import random_pixels, random_vit
from torch import nn
from typer.testing import CliRunner

import xai_lib as xai
from xai_lib.cli.main import app
from xai_lib.errors import MethodNotApplicableError, OptionError, TargetError
from xai_lib.evaluators.base import Subject
from xai_lib.evaluators.batches import Batch, TextBatch
from xai_lib.evaluators.insertion_deletion import InsertionDeletion
from xai_lib.evaluators.measures import accuracies, curves, label_scores
from xai_lib.evaluators.perturbation import Perturbation
from xai_lib.evaluators.pruning import Pruning
from xai_lib.evaluators.rationales import Rationales
from xai_lib.evaluators.specs import parse_methods
from xai_lib.evaluators.text_perturbation import TextPerturbation
from xai_lib.evaluators.word_deletion import WordDeletion
from xai_lib.explainers.registry import all_methods
from xai_lib.models import Processor, TextProcessor
from xai_lib.plots.text.rows import attribution_texts
from xai_lib.streams.scales import CHANCES, SHARES, SIGMOID, SOFTMAX, VALUE


class Ending(nn.Module):
    """A ViT whose scores go through `end`, and whose configuration says `problem`."""

    def __init__(self, classes=1, problem=None, end=None, names=None):
        super().__init__()
        self.vit, self.end = random_vit(dtype=torch.float32, num_classes=classes), end
        labels = names or [f"LABEL_{i}" for i in range(classes)]
        self.config = SimpleNamespace(
            num_labels=classes, id2label=dict(enumerate(labels)), problem_type=problem
        )

    def forward(self, x):
        return self.vit(x) if self.end is None else self.end(self.vit(x))


def explained(model, *args, **options):
    pixels = random_pixels(model.vit)
    return xai.explain(model, pixels, *args, **options), pixels


# -- one score -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", all_methods())
def test_the_low_answer_is_that_of_the_head_with_minus(method):
    model, other = Ending(), Ending()
    with torch.no_grad():
        other.vit.head.weight.neg_()
        other.vit.head.bias.neg_()
    high, pixels = explained(model, method)
    low, _ = explained(model, method, -1)
    minus, _ = explained(other, method)
    assert high.target.tolist() == [0, 0] and low.target.tolist() == [-1, -1]
    assert low.against.tolist() == [0, 0] and high.against is None
    torch.testing.assert_close(low.logits, high.logits)
    size = minus.relevance.abs().max()
    assert (low.relevance - minus.relevance).abs().max() <= 1e-5 * size
    if method == "gradient_x_input":
        x = pixels.clone().requires_grad_()
        (grad,) = torch.autograd.grad(model(x).sum(), x)
        expected = -(grad * pixels).sum(1)
        assert (low.pixels - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_score_that_no_layer_makes():
    """The head is a module of its own: no sign to change, and gradients that need none."""
    model = Ending(end=torch.neg)
    low, _ = explained(Ending(end=lambda s: s.tanh()), "transformer_attribution", -1)
    assert low.relevance.isfinite().all()
    doubled = Ending(end=lambda s: s * s)
    with pytest.raises(MethodNotApplicableError, match="tried"):
        explained(doubled, "transformer_attribution", -1)
    assert explained(doubled, "gradient_x_input", -1)[0].relevance.isfinite().all()
    before = model.vit.head.weight
    explained(model, "lrp", [0, -1])
    assert model.vit.head.weight is before


def test_both_answers_at_once_and_by_sample():
    model = Ending()
    both, _ = explained(model, "gradient_x_input", targets=[0, -1])
    assert torch.allclose(both.relevance[0], -both.relevance[1])
    mixed, _ = explained(model, "gradient_x_input", [0, -1])
    assert torch.allclose(mixed.relevance[1], both.relevance[1, 1])
    assert torch.allclose(mixed.relevance[0], both.relevance[0, 0])


@pytest.mark.parametrize("target", (1, -2, (0, -1), (0, 0), "no name"))
def test_one_score_has_no_other_target(target):
    with pytest.raises(TargetError):
        explained(Ending(), "rollout", target)


def test_of_several_classes_none_is_the_last():
    with pytest.raises(TargetError):
        explained(Ending(classes=3, problem="multi_label_classification"), "rollout", -1)


def test_one_score_is_told_as_a_score():
    found, _ = explained(Ending(), "rollout", targets=[0, -1])
    score = float(found.logits[0, 0])
    assert found.scale == VALUE and found.probability(0, 0) is None
    assert found.value(0, 0) == pytest.approx(score)
    with pytest.raises(TargetError):
        found.probabilities()
    figure = found.show()
    titles = [axes.get_title() for axes in figure.axes]
    told = f"{score:.3g}".replace("-", "−")
    assert f"the score  score {told}" in titles and f"a low score  score {told}" in titles
    assert not any("%" in title for title in titles)
    plt.close(figure)


def test_one_score_with_a_name():
    found, _ = explained(Ending(names=["toxic"]), "rollout", "toxic")
    assert found.class_name(0) == "toxic" and found.class_name(-1) == "not toxic"


# -- what the scores are -------------------------------------------------------------------------

MULTI = "multi_label_classification"
SCALES = {
    "softmax": (Ending(4), SOFTMAX, lambda s: s.softmax(-1)),
    "single": (Ending(4, "single_label_classification"), SOFTMAX, lambda s: s.softmax(-1)),
    "multi": (Ending(4, MULTI), SIGMOID, torch.sigmoid),
    "multi of one": (Ending(1, MULTI), SIGMOID, torch.sigmoid),
    "ends in softmax": (Ending(4, end=lambda s: s.softmax(-1)), SHARES, lambda s: s),
    "ends in log-softmax": (Ending(4, end=lambda s: s.log_softmax(-1)), SOFTMAX, torch.exp),
    "ends in sigmoid": (Ending(4, end=torch.sigmoid), CHANCES, lambda s: s),
    "one that ends in sigmoid": (Ending(1, end=torch.sigmoid), CHANCES, lambda s: s),
    "squeezed sigmoid": (Ending(1, end=lambda s: s.sigmoid()[:, 0]), CHANCES, lambda s: s),
    "multi that ends in sigmoid": (Ending(4, MULTI, nn.Sigmoid()), CHANCES, lambda s: s),
    "small logits": (Ending(4, end=lambda s: s.sigmoid() * 0.5), SOFTMAX, lambda s: s.softmax(-1)),
    "regression": (Ending(1, "regression"), VALUE, None),
    "regression of several": (Ending(4, "regression"), VALUE, None),
    "one logit": (Ending(1), VALUE, None),
    "another head's problem": (Ending(4), SOFTMAX, lambda s: s.softmax(-1)),
}
SCALES["another head's problem"][0].config.__dict__.update(num_labels=2, problem_type=MULTI)


@pytest.mark.parametrize("kind", SCALES)
@pytest.mark.parametrize("method", ("rollout", "attnlrp"))
def test_probabilities_are_those_of_the_head(kind, method):
    model, scale, by_hand = SCALES[kind]
    found, _ = explained(model, method)
    assert found.scale == scale
    if by_hand is None:
        with pytest.raises(TargetError):
            found.probabilities()
    else:
        torch.testing.assert_close(found.probabilities(), by_hand(found.logits))
        told = [axes.get_title() for axes in found.show().axes]
        index = int(found.target[0])
        assert any(t.endswith(f"{float(by_hand(found.logits)[0, index]):.0%}") for t in told)
        plt.close("all")


def test_a_low_answer_of_one_label_has_the_rest():
    found, _ = explained(Ending(1, MULTI), "rollout", -1)
    assert found.probability(0, -1) == pytest.approx(1 - float(found.logits[0, 0].sigmoid()))


class Regression(nn.Module):
    """A text model of one score."""

    def __init__(self, problem=None, labels=1):
        super().__init__()
        from transformers import BertConfig, BertForSequenceClassification

        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        vocabulary = len(small_tokenizer())
        config = BertConfig(**sizes, vocab_size=vocabulary, num_labels=labels, problem_type=problem)
        self.model = BertForSequenceClassification(config).eval()
        # Of three labels two are likelier than not.
        self.model.classifier.bias.data += torch.linspace(1, -1, labels) + 0.3


def test_texts_tell_scores():
    processor = TextProcessor(small_tokenizer())
    model = Regression().model
    (row,) = attribution_texts(xai.explain(model, processor("a good film"), "rollout"))
    assert row.probability is None and "score" in row.heading and "%" not in row.heading
    labels = Regression(MULTI, 3).model
    found = xai.explain(labels, processor("a good film"), "gradient_x_input")
    (row,) = attribution_texts(found)
    assert row.value is None
    assert row.probability == pytest.approx(float(found.logits.sigmoid()[0, found.target[0]]))
    long = xai.explain_long(labels, processor, "a good film " * 20, "rollout", window=16)
    torch.testing.assert_close(long.probabilities(), long.logits.sigmoid())
    low = xai.explain_long(model, processor, "a good film " * 20, "gradient_x_input", -1, window=16)
    high = xai.explain_long(model, processor, "a good film " * 20, "gradient_x_input", window=16)
    assert torch.allclose(low.relevance, -high.relevance) and low.class_name(-1) == "a low score"


def test_a_loss_needs_one_right_class():
    for model in (Ending(1), Ending(4, MULTI), Ending(4, end=lambda s: s.softmax(-1))):
        with pytest.raises(OptionError):
            xai.head_scores(model, random_pixels(model.vit), quantity="loss")
    low = xai.head_scores(Ending(1), random_pixels(Ending(1).vit), target=-1)
    high = xai.head_scores(Ending(1), random_pixels(Ending(1).vit))
    assert torch.allclose(low.values, -high.values)


# -- measures ------------------------------------------------------------------------------------

LOGITS = torch.tensor([[2.0, 1.0, -1.0], [-1.0, 0.5, -2.0], [-1.0, -0.5, -2.0]]).double()


def test_labels_over_the_threshold_count():
    assert accuracies(LOGITS, {1: 1.0}).tolist() == [0, 1, 1]
    assert accuracies(LOGITS, {1: 1.0}, SIGMOID).tolist() == [1, 1, 0]
    assert accuracies(LOGITS, {0: 0.3, 1: 0.6}, SIGMOID).tolist() == [0.6, 0.6, 0]
    hits, chances, *_ = curves(LOGITS, {1: 1.0}, 1, [0, 1, 2], SIGMOID)
    assert hits == [1, 1, 0] and chances == pytest.approx(LOGITS.sigmoid()[:, 1].tolist())
    assert curves(LOGITS.sigmoid(), {1: 1.0}, 1, [0, 1, 2], CHANCES)[0] == [1, 1, 0]
    row = label_scores(LOGITS, 1, [0.3, 0.6], SIGMOID)
    assert row["hits"] == [1, 1, 0] and row["log_odds"] == [1.0, 0.5, -0.5]
    largest = LOGITS.sigmoid().amax(1)
    assert row["probability_change"] == pytest.approx((largest[1:] - largest[0]).tolist())


def test_a_softmax_is_not_taken_twice():
    plain, given = (
        label_scores(scores, 1, [0.3, 0.6], scale)
        for scores, scale in ((LOGITS, SOFTMAX), (LOGITS.softmax(-1), SHARES))
    )
    for name in ("hits", "log_odds", "probability_change"):
        assert given[name] == pytest.approx(plain[name])


@pytest.mark.parametrize("measure", (Perturbation(steps=[0.5]), InsertionDeletion(steps=2)))
@pytest.mark.parametrize("kind", ("regression", "regression of several", "one logit"))
def test_values_have_no_accuracy(kind, measure):
    with pytest.raises(TargetError):
        rows_of(SCALES[kind][0], measure)


@pytest.mark.parametrize("kind", ("multi", "ends in softmax", "ends in sigmoid", "softmax"))
def test_evaluators_read_the_heads_own_probabilities(kind):
    model, _, by_hand = SCALES[kind]
    (deleted, inserted) = rows_of(model, InsertionDeletion(steps=2))
    pixels = images()
    with torch.no_grad():
        clean, dark = by_hand(model(torch.cat([pixels, 0 * pixels])))
    best = int(clean.argmax())
    black = dark[best]
    assert deleted["probabilities"][0] == pytest.approx(float(clean[best]), rel=1e-5)
    assert deleted["probabilities"][-1] == pytest.approx(float(black), rel=1e-5)
    assert inserted["probabilities"][-1] == pytest.approx(float(clean[best]), rel=1e-5)
    right = (clean > 0.5) if kind in ("multi", "ends in sigmoid") else clean == clean.max()
    for label in range(4):
        row = rows_of(model, Perturbation(steps=[0.5]), label)[0]
        assert row["hits"][0] == float(right[label])
        assert np.isfinite(row["mean_log_odds"])


def images():
    return torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def rows_of(model, measure, label=0):
    processor = Processor((16, 16), (0.0,) * 3, (1.0,) * 3)
    batch = Batch((0,), ("a",), images(), torch.tensor([label]))
    return list(measure.rows(Subject(model, processor), batch, parse_methods("rollout")))


# -- explorers and the command line --------------------------------------------------------------


def photo():
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    return {"noise": Image.fromarray(pixels)}


def words_of(figure):
    return [text.get_text() for text in figure.findobj(Text)]


PROCESSOR = Processor((16, 16), (0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("kind", ("one logit", "multi"))
def test_explorers_tell_what_the_head_gives(kind):
    model, scale, by_hand = SCALES[kind]
    explorer = xai.widgets.ImageExplorer(model, PROCESSOR, photo(), "rollout")
    heads = xai.widgets.HeadExplorer(model, PROCESSOR, photo(), "generic_attention", fraction=0.5)
    scores = model(PROCESSOR(photo()["noise"])["pixel_values"]).detach()[0]
    index = int(scores.argmax())
    told = [*words_of(explorer.figure()), *words_of(heads.figure())]
    said = unescape(explorer.controls.message.value), unescape(heads.controls.message.value)
    if scale == VALUE:
        assert "score" in told and not any("%" in text for text in told if "pruned" not in text)
        assert f"{float(scores[index]):.3g}".replace("-", "−") in said[0]
        assert all("P(" not in text for text in said)
    else:
        assert "probability" in told and f"{float(by_hand(scores)[index]):.1%}" in said[0]
        assert "P(" in said[1]


@pytest.mark.parametrize("problem", (None, MULTI))
def test_the_explorer_of_texts(problem):
    model = Regression(problem, 1).model
    processor = TextProcessor(small_tokenizer())
    explorer = xai.widgets.TextExplorer(model, processor, ["a good film"], "rollout")
    (row,) = explorer.rows()
    score = float(model(**processor("a good film")).logits.detach()[0, 0])
    if problem is None:
        assert (row.probability, row.chances) == (None, ()) and row.value == pytest.approx(score)
    else:
        assert row.chances[0][1] == pytest.approx(1 / (1 + np.exp(-score)))
    assert explorer.figure() is not None


@pytest.mark.parametrize("target", ("0", "-1"))
def test_the_command_line_tells_a_score(target, tmp_path):
    Regression("regression").model.save_pretrained(tmp_path)
    small_tokenizer().save_pretrained(tmp_path)
    command = ["explain", "--text", "a good film", "--model", str(tmp_path)]
    found = CliRunner().invoke(app, [*command, "--method", "gradient_x_input", "--target", target])
    assert found.exit_code == 0, found.output
    assert "%" not in found.output and "score" in found.output
    assert ("a low score (-1)" if target == "-1" else "the score (0)") in found.output


def text_rows(problem, labels, measure, label, methods="rollout"):
    model, processor = Regression(problem, labels).model.double(), TextProcessor(small_tokenizer())
    texts = (("a good film but a sad story",),)
    batch = TextBatch((0,), ("a",), texts, torch.tensor([label]), (((2, 6),),))
    scores = model(**processor(texts[0][0])).logits.detach()[0]
    subject = Subject(model, processor)
    return scores, list(measure.rows(subject, batch, type(measure).parse_methods(methods)))


@pytest.mark.parametrize("label", range(3))
def test_measures_of_texts_count_labels_over_the_threshold(label):
    scores, (row, *_) = text_rows(MULTI, 3, TextPerturbation(steps=[0, 0.5]), label)
    chances = scores.sigmoid()
    assert (chances > 0.5).tolist() == [True, True, False]
    assert row["hits"][0] == float(chances[label] > 0.5)
    assert row["probabilities"][0] == pytest.approx(float(chances[label]))
    sentences = "correct" if chances[label] > 0.5 else "wrong"
    for chosen in ("correct", "wrong"):
        measure = WordDeletion(min_length=1, deletions=1, sentences=chosen)
        _, (row,) = text_rows(MULTI, 3, measure, label)
        assert (row["error"] is None) == (chosen == sentences)
    _, (row,) = text_rows(MULTI, 3, Rationales(), label)
    assert row["probabilities"] == pytest.approx(chances.tolist())
    _, (row, *_) = text_rows(MULTI, 3, Pruning(fractions=[0, 0.5]), label, "taylor")
    assert row["unpruned"] == float(chances[label] > 0.5)
    assert row["probability"][0] == pytest.approx(float(chances.max()))


@pytest.mark.parametrize(
    "measure",
    (TextPerturbation(), WordDeletion(min_length=1), Rationales(), Pruning(fractions=[0, 0.5])),
    ids=("perturbation", "deletion", "rationales", "pruning"),
)
def test_measures_of_texts_refuse_values(measure):
    methods = "taylor" if isinstance(measure, Pruning) else "rollout"
    with pytest.raises(TargetError):
        text_rows("regression", 3, measure, 0, methods)
