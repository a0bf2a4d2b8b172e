"""Runs on questions, and of pruning: the same store, resume, workers and maps as on images."""

import pytest
from asked_questions import ANSWERS, COUNT, Asked, small_questions
from small_clips import pair_processor, random_clip
from small_vits import random_vit
from text_samples import Reviews

from xai_lib.datasets.worlds.generated import AttributeImages
from xai_lib.errors import OptionError, TargetError
from xai_lib.evaluators import Subject, create, parse_methods
from xai_lib.models import Processor
from xai_lib.runs import evaluate
from xai_lib.runs.noise import noise
from xai_lib.statistics.summary import curve

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = {"image_steps": [0, 0.5, 1], "text_steps": [0, 1]}
METHODS = "gradient_x_input,random"


def run_of(out, evaluator="evidence", methods=METHODS, dataset=None, model=None, **settings):
    settings = {"batch_size": 2, "progress": False, "shards": 3} | settings
    model = model or small_questions()
    return evaluate(evaluator, model, dataset or Asked(), methods, out, **settings)


@pytest.mark.parametrize(
    ("evaluator", "methods", "options"),
    [
        ("evidence", METHODS, {}),
        ("question_perturbation", METHODS, QUICK),
        ("pruning", "grad_x_attention,random", {"fractions": [0, 0.5]}),
        (
            "pruning",
            "taylor,random",
            {"fractions": [0, 0.5], "ranking": "dataset", "ranking_samples": 4},
        ),
    ],
)
@pytest.mark.slow
def test_a_run_gives_tables_and_goes_on_where_it_stopped(tmp_path, evaluator, methods, options):
    whole = run_of(tmp_path / "whole", evaluator, methods, options=options)
    table = whole.summary()
    assert set(table["method"]) == set(methods.split(",")) and (table["n"] >= 1).all()
    assert set(table["metric"]) == {metric.name for metric in whole.evaluator.metrics}
    compared = {metric.name for metric in whole.evaluator.metrics if metric.better}
    assert set(whole.comparisons()["metric"]) == compared
    before = whole.records()
    assert before["key"].iloc[0] == "question-00000" and before["index"].nunique() == COUNT
    file = whole.folder.record_file(1)
    kept = whole.folder.record_file(0).stat().st_mtime_ns
    file.unlink()
    again = run_of(tmp_path / "whole", evaluator, methods, options=options)
    assert again.folder.record_file(0).stat().st_mtime_ns == kept
    assert again.records().to_json() == before.to_json()
    if evaluator == "pruning":
        bands = curve(before, "accuracy", ("method", "order"))
        assert len(bands) == 2 * 2 * 2 and (bands["low"] <= bands["value"]).all()


def test_batches_shards_and_workers_change_no_number(tmp_path):
    # In float64: the image counts for so little here that rounding would rank its regions.
    model, processor = small_questions()
    exact = {"model": (model.double(), processor)}
    first = run_of(tmp_path / "a", batch_size=1, shards=1, **exact).records()
    other = run_of(tmp_path / "b", batch_size=4, shards=2, workers=2, **exact).records()
    keys = ["index", "method", "stream"]
    first, other = (frame.sort_values(keys, ignore_index=True) for frame in (first, other))
    assert first["error"].tolist() == other["error"].tolist()
    for column in ("pointing", "auprc"):
        assert first[column].tolist() == pytest.approx(other[column].tolist(), nan_ok=True)


def test_maps_are_the_tokens_and_then_the_regions(tmp_path):
    run = run_of(tmp_path / "run", keep_maps=True)
    processor = small_questions()[1]
    for index, scores in run.maps("gradient_x_input").items():
        inputs = processor.of([Asked()[index]])
        assert len(scores) == inputs["input_ids"].shape[1] + inputs["visual_feats"].shape[1]


def test_bad_samples_are_rows_with_a_reason(tmp_path):
    changed = {
        1: "error",
        2: {"features": None},
        3: {"question": "is there a red star " * 9, "rationale": ()},
        4: {"label": None, "answers": None},
        5: {"regions": Asked()[5].regions[:-1]},
    }
    run = run_of(
        tmp_path / "run", "pruning", "random", Asked(changed), options={"fractions": [0, 0.5]}
    )
    errors = run.records().groupby("index")["error"].first()
    assert errors.isna().tolist() == [True] + [False] * 5
    reasons = ("damaged", "no regions", "the model takes 24", "no answers", "regions decide")
    for index, reason in enumerate(reasons, 1):
        assert reason in errors[index]
    assert (run.summary()["failed"] == 5).all()


def test_scores_of_answers_count_and_answers_that_are_no_class_do_not(tmp_path):
    every = {i: {"answers": dict.fromkeys(ANSWERS, 0.3), "label": 0} for i in range(5)}
    changed = every | {5: {"answers": {"a thing that no model says": 1.0}, "label": None}}
    run = run_of(tmp_path / "run", "question_perturbation", "random", Asked(changed), options=QUICK)
    records = run.records()
    assert records["error"].isna().all()
    right = records[records["index"] < 5]["accuracy"]
    assert all(set(row) == {0.3} for row in right)
    assert all(set(row) == {0.0} for row in records[records["index"] == 5]["accuracy"])


def test_a_question_without_an_accepted_answer_counts_as_wrong(tmp_path):
    """VQA v2 has some: published accuracies are over all questions, these among them."""
    changed = {i: {"answers": dict.fromkeys(ANSWERS, 1.0)} for i in range(COUNT)}
    changed[0] = {"answers": {}, "label": None}
    for evaluator, options in (
        ("pruning", {"fractions": [0, 0.5]}),
        ("question_perturbation", QUICK),
    ):
        run = run_of(tmp_path / evaluator, evaluator, "random", Asked(changed), options=options)
        records, table = run.records(), run.summary()
        assert records["error"].isna().all() and (table["n"] == COUNT).all()
        for index, row in zip(records["index"], records["accuracy"], strict=True):
            assert set(row) == {float(index > 0)}


def test_answers_find_the_model_s_classes_by_name(tmp_path):
    model, processor = small_questions()
    turned = type(processor)(
        processor.tokenizer, "lxmert", processor.feature_dim, ANSWERS[::-1], processor.max_length
    )
    run = run_of(tmp_path / "run", model=(model, turned))
    assert run.description["model"]["class_of_label"] == [*range(len(ANSWERS))][::-1]
    first = run.records().dropna(subset=["explained"]).iloc[0]
    assert first["explained"] == len(ANSWERS) - 1 - Asked()[int(first["index"])].label
    other = type(processor)(processor.tokenizer, "lxmert", processor.feature_dim, ("a", "b"))
    with pytest.raises(TargetError, match="no class of"):
        run_of(tmp_path / "other", model=(model, other))


def test_kinds_of_data_do_not_mix(tmp_path):
    with pytest.raises(OptionError, match=r"of questions.*evidence, pruning"):
        run_of(tmp_path / "run", "segmentation")
    vit = random_vit(), Processor((16, 16), (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(OptionError, match="of images, the evaluator takes questions"):
        run_of(tmp_path / "run", model=vit)
    with pytest.raises(OptionError, match="of images"):
        run_of(tmp_path / "run", "pruning", "random", Reviews(), vit)
    with pytest.raises(OptionError, match="head score"):
        run_of(tmp_path / "run", "pruning", "rollout")
    assert not (tmp_path / "run").exists()


def test_a_clip_is_evaluated_as_a_classifier_of_the_data_set_s_classes(tmp_path):
    clip = random_clip(), pair_processor()
    images = AttributeImages(n=4)
    options = {"steps": [0.5], "fill": "mean"}
    run = run_of(tmp_path / "a", "perturbation", "random", images, clip, options=options)
    records = run.records()
    assert records["error"].isna().all() and records["index"].nunique() == 4
    assert "class_of_label" not in run.description["model"]
    assert len(run.description["model"]["prompts"]) == 64
    black = run_of(tmp_path / "b", "perturbation", "random", images, clip, options={"steps": [0.5]})
    odds = [[list(row) for row in one["log_odds"]] for one in (records, black.records())]
    assert odds[0] != odds[1]
    pruned = run_of(
        tmp_path / "c", "pruning", "taylor", images, clip, options={"fractions": [0, 0.5]}
    )
    assert pruned.records()["error"].isna().all()
    with pytest.raises(OptionError, match="fill"):
        create("perturbation", fill="white")


@pytest.mark.parametrize("kind", ["lxmert", "visual_bert"])
@pytest.mark.parametrize("evaluator", ["evidence", "question_perturbation"])
def test_noise_of_questions_can_be_scored(kind, evaluator):
    study = Subject(*small_questions(kind), batch_size=2)
    drawn = noise(study, "question", 2, 8)
    assert len(study.processor.of(drawn.samples)["input_ids"][0]) == 8
    rows = list(create(evaluator).rows(study, drawn, parse_methods("gradient_x_input")))
    assert rows and all(row["error"] is None for row in rows)
