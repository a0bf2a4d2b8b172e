"""Runs on texts: the same store, resume, workers, maps and cluster as on images; ERASER's files."""

import dataclasses
import json

import pytest
from small_berts import small_bert
from small_vits import random_vit
from text_samples import REVIEWS, Reviews
from typer.testing import CliRunner

from xai_lib.api import explain
from xai_lib.cli import rationales as cli_rationales
from xai_lib.datasets.texts.eraser import annotation_of
from xai_lib.errors import InputError, OptionError, TargetError
from xai_lib.evaluators import Subject
from xai_lib.evaluators.eraser.results import read_results, write_results
from xai_lib.evaluators.eraser.scores import score_results
from xai_lib.models import Processor
from xai_lib.runs import evaluate
from xai_lib.runs.classes import class_places
from xai_lib.runs.fingerprints import tokenizer_fingerprint
from xai_lib.runs.noise import noise_texts
from xai_lib.runs.plan import plan

METHODS = "gradient_x_input,random"
NAMES = ("negative", "positive")


def run_of(out, evaluator="rationales", dataset=None, model=None, methods=METHODS, **settings):
    settings = {"batch_size": 2, "progress": False, "shards": 3} | settings
    return evaluate(
        evaluator, model or small_bert(names=NAMES), dataset or Reviews(), methods, out, **settings
    )


@pytest.mark.parametrize(
    ("evaluator", "options"),
    [
        ("rationales", {"ks": [1, 2, 5]}),
        ("text_perturbation", {}),
        ("word_deletion", {"sentences": "all"}),
        ("word_scores", {"randomise": True}),
    ],
)
def test_a_run_gives_tables_and_goes_on_where_it_stopped(tmp_path, evaluator, options):
    whole = run_of(tmp_path / "whole", evaluator, options=options)
    table = whole.summary()
    assert set(table["method"]) == set(METHODS.split(",")) and (table["n"] >= 1).all()
    metrics = {metric.name for metric in whole.evaluator.metrics}
    assert set(table["metric"]) == metrics
    compared = {metric.name for metric in whole.evaluator.metrics if metric.better}
    assert set(whole.comparisons()["metric"]) == compared
    before = whole.records()
    file = whole.folder.record_file(1)
    kept = whole.folder.record_file(0).stat().st_mtime_ns
    file.unlink()
    again = run_of(tmp_path / "whole", evaluator, options=options)
    assert again.folder.record_file(0).stat().st_mtime_ns == kept
    assert again.records().to_json() == before.to_json()


def test_batches_shards_and_workers_change_no_number(tmp_path):
    first = run_of(tmp_path / "a", batch_size=1, shards=1).records()
    other = run_of(tmp_path / "b", batch_size=4, shards=2, workers=2).records()
    assert first["key"].tolist()[:1] == ["review-0"] and len(first) == len(other)
    key = ["index", "method"]
    first, other = (frame.sort_values(key, ignore_index=True) for frame in (first, other))
    for column in ("auprc", "comprehensiveness", "aopc_sufficiency"):
        assert first[column].tolist() == pytest.approx(other[column].tolist(), abs=1e-9)
    assert [list(r) for r in first["ranking"]] == [list(r) for r in other["ranking"]]


def test_maps_are_the_tokens_of_each_text(tmp_path):
    model, processor = small_bert(names=NAMES)
    run = run_of(tmp_path / "run", model=(model, processor), keep_maps=True)
    maps = run.maps("gradient_x_input")
    assert sorted(maps) == list(range(len(REVIEWS)))
    for index, (text, label, _) in enumerate(REVIEWS):
        expected = explain(model, processor(text), "gradient_x_input", target=label).relevance[0]
        top = float(expected.abs().max())
        assert maps[index].tolist() == pytest.approx(expected.tolist(), abs=2e-3 * top)


def test_bad_samples_are_rows_with_a_reason(tmp_path):
    broken = {1: "error", 2: "none", 3: "   ", 4: " ".join(["good"] * 80)}
    run = run_of(tmp_path / "run", dataset=Reviews(broken))
    records = run.records()
    errors = records.groupby("index")["error"].first()
    assert errors.isna().tolist() == [True, False, False, False, False, True]
    for index, reason in {1: "damaged", 2: "evidence", 3: "empty", 4: "82 tokens"}.items():
        assert reason in errors[index]
    assert (run.summary()["failed"] >= 4).all() and len(run.failures()) == 4


def test_rationales_outside_the_text_are_named(tmp_path):
    class Outside(Reviews):
        def __getitem__(self, index):
            return dataclasses.replace(super().__getitem__(index), rationale=((3, 999),))

    with pytest.raises(InputError, match=r"span \(3, 999\)"):
        run_of(tmp_path / "run", dataset=Outside())
    assert not (tmp_path / "run").exists()


def test_images_and_texts_do_not_mix(tmp_path):
    with pytest.raises(OptionError, match=r"of texts.*rationales, text_perturbation"):
        run_of(tmp_path / "run", "segmentation")
    vit = random_vit(), Processor((16, 16), (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(OptionError, match=r"of images.*perturbation.*segmentation"):
        run_of(tmp_path / "run", model=vit)
    assert not (tmp_path / "run").exists()


def test_labels_find_the_model_s_classes_by_name(tmp_path):
    assert class_places(NAMES, ("LABEL_0", "LABEL_1")) is None
    assert class_places(NAMES, ("positive", "negative")) == (1, 0)
    assert class_places(("NEG", "POS"), ("Positive", "Negative")) == (1, 0)
    swapped = small_bert(names=("positive", "negative"))
    run = run_of(tmp_path / "swapped", model=swapped)
    assert run.description["model"]["class_of_label"] == [1, 0]
    explained = run.records().groupby("index")["explained"].first().tolist()
    assert explained == [1 - label for _, label, _ in REVIEWS]
    with pytest.raises(TargetError, match="no class of"):
        run_of(tmp_path / "other", model=small_bert(names=("sports", "politics")))
    run_of(tmp_path / "unnamed", model=small_bert())
    with pytest.raises(TargetError, match="5 classes without names"):
        run_of(tmp_path / "five", model=small_bert(classes=5))


def test_the_tokenizer_is_part_of_a_run_s_identity():
    processor = small_bert()[1]
    before = tokenizer_fingerprint(processor.tokenizer)
    processor(["good", "good film"])
    assert tokenizer_fingerprint(processor.tokenizer) == before
    processor.tokenizer.add_tokens(["newword"])
    assert tokenizer_fingerprint(processor.tokenizer) != before


def opened_by_name(monkeypatch):
    """Let the commands find the reviews by their name."""
    monkeypatch.setattr("xai_lib.datasets.open_dataset", lambda *_, **__: Reviews())


def test_exported_files_give_the_run_s_numbers(tmp_path, monkeypatch):
    opened_by_name(monkeypatch)
    run = run_of(tmp_path / "run", options={"ks": [1, 3], "thresholds": [0.1, 0.5]})
    runner = CliRunner()
    command = ["export", str(tmp_path / "run"), "--out", str(tmp_path / "out")]
    assert runner.invoke(cli_rationales.app, command, catch_exceptions=False).exit_code == 0
    folder = tmp_path / "out" / "gradient_x_input"
    assert sorted(p.name for p in folder.iterdir()) == [
        "identifier_results_1.json", "identifier_results_3.json",
    ]  # fmt: skip
    data = Reviews()
    gold = [annotation_of(data, i) for i in range(len(data))]
    words = {f"review-{i}": text.split() for i, (text, _, _) in enumerate(REVIEWS)}
    results = read_results(folder / "identifier_results_1.json")
    scores = score_results(results, gold, words)
    table = run.summary().set_index(["method", "metric"])["value"]["gradient_x_input"]
    assert scores["token_prf"]["instance_macro"]["f1"] == pytest.approx(table["token_f1_k1"])
    assert scores["token_soft_metrics"]["auprc"] == pytest.approx(table["auprc"])
    found = scores["classification_scores"]
    assert found["comprehensiveness"] == pytest.approx(table["comprehensiveness"])
    assert found["sufficiency"] == pytest.approx(table["sufficiency"])
    assert found["comprehensiveness_aopc"] == pytest.approx(table["aopc_comprehensiveness"])
    assert found["aopc_thresholds"] == [0.1, 0.5]
    command = [
        "score", str(folder / "identifier_results_1.json"), "--dataset", "reviews-of-tests",
        "--out", str(tmp_path / "scores.json"),
    ]  # fmt: skip
    assert runner.invoke(cli_rationales.app, command, catch_exceptions=False).exit_code == 0
    printed = json.loads((tmp_path / "scores.json").read_text())
    assert printed["token_prf"] == scores["token_prf"]
    # Half of the annotations without a result: they count 0, or are left out.
    write_results(results[:3], tmp_path / "half.json")
    command = ["score", str(tmp_path / "half.json"), *command[2:]]
    recalls = []
    for flags in ([], ["--partial"]):
        assert runner.invoke(cli_rationales.app, [*command, *flags]).exit_code == 0
        printed = json.loads((tmp_path / "scores.json").read_text())
        recalls.append(printed["token_prf"]["instance_macro"]["r"])
    assert recalls[1] == pytest.approx(2 * recalls[0]) and recalls[1] > 0


def test_commands_refuse_what_they_cannot_use(tmp_path, monkeypatch):
    opened_by_name(monkeypatch)
    run_of(tmp_path / "run", "word_scores", methods="random")
    command = ["export", str(tmp_path / "run"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(cli_rationales.app, command)
    assert isinstance(result.exception, OptionError) and "'word_scores'" in str(result.exception)
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").write_text("mine")
    result = CliRunner().invoke(cli_rationales.app, command)
    assert isinstance(result.exception, OptionError) and "is a file" in str(result.exception)
    (tmp_path / "bad.json").write_text("{}\n")
    command = ["score", str(tmp_path / "bad.json"), "--dataset", "reviews-of-tests"]
    result = CliRunner().invoke(cli_rationales.app, command)
    assert isinstance(result.exception, InputError) and "annotation_id" in str(result.exception)


def test_methods_take_the_general_options(tmp_path):
    run = run_of(tmp_path / "run", "word_scores", methods="rollout:first_token=zero,rollout")
    assert run.config.methods == ("rollout:first_token=zero", "rollout")
    with pytest.raises(OptionError, match="first_token"):
        run_of(tmp_path / "other", methods="rollout:first_token=last")


def test_a_plan_times_texts_of_the_asked_length(tmp_path, monkeypatch):
    model, processor = small_bert(names=NAMES)
    monkeypatch.setattr("xai_lib.runs.plan.load", lambda name: (model, processor))
    subject = Subject(model, processor, batch_size=4)
    batch = noise_texts(subject, 5, 20)
    assert {processor(text[0])["input_ids"].shape[1] for text in batch.texts} == {20}
    planned = plan("rationales", "some-bert", METHODS, batch_size=3, device="cpu", tokens=20,
                   dtype="float64", options={"ks": [1, 2]})  # fmt: skip
    assert planned.table["method"].tolist() == [*METHODS.split(","), "all"]
    assert (planned.table["seconds per text"] > 0).all() and "20 tokens" in planned.note
    with pytest.raises(OptionError, match="the 64 that the model takes"):
        plan("rationales", "some-bert", "random", tokens=65, device="cpu")
    with pytest.raises(OptionError, match="of texts"):
        plan("segmentation", "some-bert", "random", device="cpu")
