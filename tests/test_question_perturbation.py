"""Question perturbation: what stays, what a plain loop over single questions gives, bad input."""

from dataclasses import replace
from functools import cache

import pandas as pd
import pytest
import torch
from asked_questions import Asked, small_questions

import xai_lib as xai
from xai_lib.errors import OptionError
from xai_lib.evaluators import QuestionBatch, Subject, create, parse_methods
from xai_lib.evaluators.measures import accuracies, area, credits_of
from xai_lib.evaluators.removal import kept_regions, kept_tokens
from xai_lib.streams.outputs import logits_of

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = ("lxmert", "visual_bert")
STEPS = (0.0, 0.4, 1.0)
SPECS = parse_methods("gradient_x_input")


@cache
def subject(kind):
    model, processor = small_questions(kind)
    return Subject(model.double(), processor, batch_size=5)


def batch(places=(0, 1, 2), **changes):
    data = Asked()
    samples = tuple(replace(data[i], **changes) for i in places)
    labels = torch.tensor([sample.label for sample in samples])
    answers = tuple({label: 1.0} for label in labels.tolist())
    return QuestionBatch(places, tuple(s.key for s in samples), samples, answers, labels)


def frame(kind, questions, **options):
    options = {"image_steps": STEPS, "text_steps": STEPS} | options
    rows = create("question_perturbation", **options).rows(subject(kind), questions, SPECS)
    return pd.DataFrame(rows)


def test_what_stays_is_a_share_rounded_down():
    scores = torch.tensor([0.3, 0.9, 0.1, 0.5])
    assert kept_regions(scores, (0, 0.25, 0.6, 1)) == [[2, 0, 3, 1], [2, 0, 3], [2], []]
    assert kept_regions(scores, (0.5,), least_first=True) == [[1, 3]]
    assert kept_regions(torch.rand(10), (0.9,)) == [[]]  # int((1 - 0.9) * 10) of floats
    tokens = torch.tensor([9.0, 0.3, 0.9, 0.1, 9.0, 9.0])
    assert kept_tokens(tokens, (0, 0.5, 1), at_end=2) == [[*range(6)], [0, 3, 4, 5], [0, 4, 5]]
    assert kept_tokens(tokens, (0.5,), least_first=True) == [[0, 2, 4, 5]]
    assert kept_tokens(tokens[:2], (0, 1)) == [[0, 1], [0, 1]]


@pytest.mark.parametrize("order", ["positive", "negative"])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_equal_a_plain_loop(kind, order):
    """One question at a time, its inputs cut by hand; only an image of no region is left out."""
    found = frame(kind, batch())
    model, processor = subject(kind).model, subject(kind).processor
    for stream in ("image", "text"):
        regions = stream == "image"
        rows = found[(found.stream == stream) & (found.order == order)]
        for row, sample in zip(rows.to_dict("records"), batch().samples, strict=True):
            inputs = {
                name: value.double() if value.is_floating_point() else value
                for name, value in processor.of([sample]).items()
            }
            att = xai.explain(model, inputs, "gradient_x_input")
            scores = att.streams[stream][0]
            sign = -1 if order == "positive" else 1
            inner = scores if stream == "image" else scores[1 : -1 if kind == "lxmert" else -2]
            for step, probability, kept in zip(STEPS, row["probability"], row["kept"], strict=True):
                places = (sign * inner).topk(int((1 - step) * len(inner))).indices
                if stream == "text":
                    ends = [n for n in range(len(scores)) if n == 0 or n > len(inner)]
                    places = torch.tensor(sorted([*ends, *(places + 1).tolist()]))
                assert kept == len(places)
                if not kept:
                    continue
                cut = {
                    name: value[:, places] if name.startswith("visual") == regions else value
                    for name, value in inputs.items()
                }
                with torch.no_grad():
                    logits = logits_of(model(**cut))
                expected = float(logits.softmax(-1)[0, row["explained"]])
                assert probability == pytest.approx(expected, abs=1e-12)
            assert row["auc_probability"] == pytest.approx(area(row["probability"], STEPS))


@pytest.mark.parametrize("kind", KINDS)
def test_without_regions_nothing_of_the_image_is_left(kind):
    """At f = 1 other features of the image change nothing."""
    other = batch()
    samples = tuple(replace(s, features=torch.randn_like(s.features)) for s in other.samples)
    ends = []
    for questions in (other, replace(other, samples=samples)):
        found = frame(kind, questions, explain="label")
        image = found[(found.stream == "image")]
        ends.append([row[-1] for row in image.probability])
        assert [row[-1] for row in image.kept] == [0] * len(image)
    assert ends[0] == pytest.approx(ends[1], abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_equals_its_samples_and_the_model_is_untouched(kind):
    before = {k: v.clone() for k, v in subject(kind).model.state_dict().items()}
    whole = frame(kind, batch())
    alone = pd.concat([frame(kind, batch((i,))) for i in (0, 1, 2)])
    keys = ["index", "stream", "order"]
    whole, alone = (f.sort_values(keys, ignore_index=True) for f in (whole, alone))
    for one, other in zip(whole.probability, alone.probability, strict=True):
        assert one == pytest.approx(other, abs=1e-12)
    assert whole.kept.tolist() == alone.kept.tolist()
    assert all(torch.equal(v, before[k]) for k, v in subject(kind).model.state_dict().items())


def test_the_accuracy_is_that_of_the_people():
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    assert accuracies(logits, {1: 2 / 3, 0: 1.0}).tolist() == [2 / 3, 1.0, 0.0]
    questions = replace(batch(), answers=({0: 0.3}, {}, None))
    with pytest.raises(OptionError, match="labels or scores of answers"):
        credits_of(questions)
    assert credits_of(questions[:2]) == [{0: 0.3}, {}]


def test_a_question_that_is_too_long_is_an_error_row():
    long = replace(batch().samples[1], question="is there a red star " * 9)
    questions = replace(batch(), samples=(batch().samples[0], long, batch().samples[2]))
    found = frame("lxmert", questions)
    assert found[found.index == 0].shape
    failed = found[found.error.notna()]
    assert set(failed["index"]) == {1} and len(failed) == 4
    assert "tokens, the model takes 24" in failed.error.iloc[0]


@pytest.mark.parametrize(
    "options",
    [{"image_steps": [0.5]}, {"text_steps": [0.5, 0.2]}, {"text_steps": [0, 2]}, {"explain": "x"}],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(OptionError):
        create("question_perturbation", **options)
