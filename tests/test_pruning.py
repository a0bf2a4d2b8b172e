"""The pruning evaluator: curves of a plain loop, rankings, images and texts, batches, options."""

from functools import cache

import pandas as pd
import pytest
import torch
from asked_questions import Asked, small_questions
from small_berts import small_bert
from small_vits import random_vit

import xai_lib as xai
from xai_lib.errors import OptionError
from xai_lib.evaluators import Batch, QuestionBatch, Subject, TextBatch, create, parse_methods_of
from xai_lib.evaluators.measures import area
from xai_lib.models import Processor
from xai_lib.streams.outputs import logits_of

pytestmark = pytest.mark.usefixtures("one_thread")

FRACTIONS = (0.0, 0.3, 0.6)
COUNTS = {"lxmert": "floor_kept", "visual_bert": "floor_pruned"}


@cache
def subject(kind="lxmert"):
    model, processor = small_questions(kind)
    return Subject(model.double(), processor, batch_size=4)


def batch(places=(0, 1, 2)):
    samples = tuple(Asked()[i] for i in places)
    labels = torch.tensor([sample.label for sample in samples])
    answers = tuple({label: 0.6} for label in labels.tolist())
    return QuestionBatch(tuple(places), tuple(s.key for s in samples), samples, answers, labels)


def specs(methods):
    return parse_methods_of("pruning", methods)


def frame(study, questions, methods="taylor", **options):
    options = {"fractions": FRACTIONS} | options
    rows = create("pruning", **options).rows(study, questions, specs(methods))
    return pd.DataFrame(rows)


def doubled(inputs):
    return {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}


@pytest.mark.parametrize("level", ["head", "layer"])
@pytest.mark.parametrize("kind", ["lxmert", "visual_bert"])
def test_rows_equal_one_pass_per_fraction(kind, level):
    """A plain loop: each question alone, one pass a fraction, ranked by its own scores."""
    methods = "grad_x_attention,lrp,random"
    found = frame(subject(kind), batch(), methods, level=level)
    model, processor = subject(kind).model, subject(kind).processor
    assert found.groupby(["method", "order"]).size().eq(3).all() and len(found) == 18
    for row in found[found.method != "random"].to_dict("records"):
        sample = Asked()[row["index"]]
        inputs = doubled(processor.of([sample]))
        scores = xai.head_scores(model, inputs, row["method"], level=level)
        explained = int(scores.logits.argmax())
        assert row["explained"] == row["predicted"] == explained
        for step, fraction in enumerate(FRACTIONS):
            mask = scores.mask(fraction, row["order"], counts=COUNTS[kind])
            with torch.no_grad(), xai.prune_heads(model, mask):
                logits = logits_of(model(**inputs))
            expected = float(logits.softmax(-1)[0, explained])
            assert row["probability"][step] == pytest.approx(expected, abs=1e-10)
            right = 0.6 if int(logits.argmax()) == sample.label else 0.0
            assert row["accuracy"][step] == right
        assert row["auc_probability"] == pytest.approx(area(row["probability"], FRACTIONS))
        assert row["unpruned"] == row["accuracy"][0]


def test_a_batch_equals_its_samples():
    """Questions and images of other length share a pass, and random rankings are a sample's own."""
    whole = frame(subject(), batch((0, 1, 2, 3)), "all")
    alone = pd.concat([frame(subject(), batch((i,)), "all") for i in range(4)])
    keys = ["index", "method", "order"]
    whole, alone = (f.sort_values(keys, ignore_index=True) for f in (whole, alone))
    assert whole.kept.tolist() == alone.kept.tolist()
    for one, other in zip(whole.probability, alone.probability, strict=True):
        assert one == pytest.approx(other, abs=1e-10)
    random = whole[(whole.method == "random") & (whole.order == "positive")].probability
    other = frame(subject(), batch((0, 1, 2, 3)), "random", seed=1)
    assert random.tolist() != other[other.order == "positive"].probability.tolist()


def test_one_ranking_of_the_data_set_prunes_the_same_heads_everywhere():
    evaluator = create("pruning", ranking="dataset", fractions=FRACTIONS, ranking_samples=2)
    study = Subject(subject().model, subject().processor, batch_size=4)
    with pytest.raises(OptionError, match="reads before"):
        list(evaluator.rows(study, batch(), specs("taylor")))
    study.prepared = evaluator.prepare(study, [batch((4, 5))], specs("taylor,random"))
    scores = study.prepared["taylor"]
    assert scores.values.shape[0] == 2 and scores.method == "taylor"
    rows = pd.DataFrame(evaluator.rows(study, batch((0, 1)), specs("taylor")))
    mask = scores.mask(FRACTIONS[2], "positive", counts="floor_kept")
    for row in rows[rows.order == "positive"].to_dict("records"):
        inputs = doubled(study.processor.of([Asked()[row["index"]]]))
        with torch.no_grad(), xai.prune_heads(study.model, mask):
            logits = logits_of(study.model(**inputs))
        expected = float(logits.softmax(-1)[0, row["explained"]])
        assert row["probability"][2] == pytest.approx(expected, abs=1e-10)
    assert (study.prepared["random"].values[0] == study.prepared["random"].values[1]).all()


def test_samples_that_rank_are_not_those_that_are_evaluated_where_there_are_enough():
    evaluator = create("pruning", ranking="dataset", ranking_samples=3)
    assert evaluator.first_samples(9, (0, 1, 2)) == (3, 5, 7)
    assert evaluator.first_samples(4, (0, 1, 2)) == (0, 1, 2)
    every = create("pruning", ranking="dataset", ranking_samples=None)
    assert every.first_samples(4, (0,)) == (0, 1, 2, 3)
    assert create("pruning").first_samples(4, (0,)) == ()


def test_images_and_texts_are_pruned_by_label():
    vit = Subject(random_vit(), Processor((16, 16), (0.5,) * 3, (0.5,) * 3), batch_size=2)
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 0])
    found = frame(vit, Batch((0, 1, 2), tuple("abc"), images, labels), "all")
    assert found.error.isna().all() and len(found) == 3 * 8
    assert all(set(row) <= {0.0, 1.0} for row in found.accuracy)
    bert = Subject(*small_bert(names=("negative", "positive")), batch_size=2)
    texts = (("a good film",), ("a bad and sad story .",), ("good " * 90,), ("great",))
    found = frame(bert, TextBatch(tuple(range(4)), tuple("abcd"), texts, torch.ones(4).long()))
    failed = found[found.error.notna()]
    assert set(failed["index"]) == {2} and "tokens" in failed.error.iloc[0]
    assert found[found.error.isna()].kept.map(len).eq(3).all()


def test_nan_weights_cost_rows_not_the_run():
    model, processor = small_questions()
    study = Subject(model, processor, batch_size=4)
    with torch.no_grad():
        model.answer_head.logit_fc[0].weight.fill_(float("nan"))
    found = frame(study, batch((0,)))
    assert found.error.notna().all() and found.accuracy.isna().all()


def test_the_label_s_score_can_be_ranked_instead():
    found = frame(subject(), batch(), explain="label")
    assert found.explained.tolist() == [s.label for s in batch().samples] * 2


@pytest.mark.parametrize(
    "options",
    [
        {"fractions": [0.2, 0.1]},
        {"fractions": [0, 1.0]},
        {"level": "block"},
        {"ranking": "batch"},
        {"counts": "round"},
        {"explain": "all"},
        {"ranking_samples": 0},
    ],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(OptionError):
        create("pruning", **options)


@pytest.mark.parametrize("methods", ["rollout", "taylor:quantity=odds", "lrp,lrp", "", "lrp:x=1"])
def test_wrong_scores_are_refused(methods):
    with pytest.raises(OptionError):
        specs(methods)


def test_all_stands_for_every_score():
    assert [s.name for s in specs("all")] == ["grad_x_attention", "lrp", "taylor", "random"]
    (spec,) = specs("taylor:quantity=loss")
    assert (spec.label, spec.options) == ("taylor:quantity=loss", {"quantity": "loss"})
