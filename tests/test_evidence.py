"""Evidence: pointing game, mass and AUPRC of regions and words, by hand and on planted evidence."""

import numpy as np
import pandas as pd
import pytest
import torch
from asked_questions import Asked, small_questions

from xai_lib.datasets.base import QuestionSample
from xai_lib.errors import OptionError
from xai_lib.evaluators import QuestionBatch, Subject, create, evidence, parse_methods
from xai_lib.evaluators.evidence import evidence_scores, truth_of
from xai_lib.evaluators.explained import explained_rows

pytestmark = pytest.mark.usefixtures("one_thread")

SPECS = parse_methods("gradient_x_input")


def batch(places, labels=True):
    samples = tuple(Asked()[i] for i in places)
    found = torch.tensor([sample.label for sample in samples])
    answers = tuple({label: 1.0} for label in found.tolist())
    keys = tuple(sample.key for sample in samples)
    return QuestionBatch(tuple(places), keys, samples, answers, found if labels else None)


def test_scores_by_hand():
    truth = np.array([True, False, False, True])
    assert evidence_scores(np.array([2.0, 1.0, -1.0, 3.0]), truth) == (1.0, 5 / 6, 1.0, 0.5)
    pointing, mass, area, chance = evidence_scores(np.array([2.0, 3.0, -1.0, -3.0]), truth)
    assert (pointing, mass, chance) == (0.0, 0.4, 0.5) and area < 0.5
    # Of three most relevant ones, one decides; without a positive score there is no mass.
    assert evidence_scores(np.array([0.0, 0.0, 0.0, -1.0]), truth)[:2] == (1 / 3, None)


def test_equal_scores_get_chance():
    truth = np.array([False, True, False, False])
    pointing, mass, area, chance = evidence_scores(np.ones(4), truth)
    assert pointing == mass == chance == 0.25
    assert area == pytest.approx((1 + 0.25) / 2)  # one step, by trapezoid from precision 1


def test_words_that_share_a_character_with_a_span_decide():
    sample = QuestionSample("q", "is the red disc here ?", rationale=((7, 15),))
    assert truth_of(sample, "text").tolist() == [False, False, True, True, False, False]
    assert "which regions decide" in truth_of(sample, "image")
    sample = QuestionSample("q", "is it", regions=torch.zeros(3, dtype=torch.bool), rationale=())
    assert "No region decides" in truth_of(sample, "image")
    assert "No word" in truth_of(sample, "text")


@pytest.mark.parametrize("kind", ["lxmert", "visual_bert"])
def test_rows_score_the_explanation_of_the_label(kind):
    subject = Subject(*small_questions(kind), batch_size=4)
    questions = batch(range(4))
    table = pd.DataFrame(create("evidence").rows(subject, questions, SPECS))
    assert table.groupby("stream").size().to_dict() == {"image": 4, "text": 4}
    found = explained_rows(subject, questions, SPECS[0], questions.labels)
    for i, (entry, sample) in enumerate(zip(found, questions.samples, strict=True)):
        row = table[(table["index"] == i) & (table["stream"] == "image")].iloc[0]
        if not sample.regions.any():
            assert "No region decides" in row.error and np.isnan(row.chance)
            continue
        scores = entry.regions
        assert row.explained == sample.label and row.kind == sample.kind
        assert row.pointing == float(sample.regions[scores.argmax()])
        positive = scores.clamp(min=0)
        mass = float(positive[sample.regions].sum() / positive.sum())
        assert row.mass == pytest.approx(mass)
        assert row.chance == pytest.approx(sample.regions.double().mean().item())


def test_regions_that_are_perfect_win_and_a_stream_is_judged_alone(monkeypatch):
    """Scores that are the evidence itself score 1, whatever the words get."""
    subject = Subject(*small_questions(), batch_size=4)
    questions = batch(range(6))

    def perfect(found, sample, stream):
        scores = sample.regions.double().numpy()
        words = len(sample.question.split())
        return scores if stream == "image" else -np.arange(1.0, words + 1)

    monkeypatch.setattr(evidence, "scores_of", perfect)
    table = pd.DataFrame(create("evidence").rows(subject, questions, SPECS))
    image = table[(table.stream == "image") & table.error.isna()]
    assert (image[["pointing", "mass", "auprc"]] == 1).all(axis=None) and len(image) >= 4
    words = table[table.stream == "text"]
    assert words.error.isna().all() and words.mass.isna().all()


def test_labels_and_options_are_checked():
    subject = Subject(*small_questions(), batch_size=4)
    with pytest.raises(OptionError, match="explain='predicted'"):
        list(create("evidence").rows(subject, batch((0,), labels=False), SPECS))
    rows = list(create("evidence", explain="predicted").rows(subject, batch((1,), False), SPECS))
    assert {row["explained"] for row in rows} == {rows[0]["predicted"]}
    for options in ({"explain": "other"}, {"reduce": "median"}):
        with pytest.raises(OptionError):
            create("evidence", **options)
