"""The embedded text models, re-measured: accuracy on fresh texts, place of their evidence."""

import csv
import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertForSequenceClassification

import xai_lib as xai
from xai_lib.datasets import open_dataset
from xai_lib.datasets.samples.texts import sample_texts
from xai_lib.datasets.worlds.generated_texts import text_world

sys.path.insert(0, str(Path(__file__).parents[1] / "data_scripts"))

import train_texts
from proofs.texts import measure_texts, prove_text_evidence

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "xai_lib" / "weights"
LOGS = ROOT / "reports" / "training"
# What each model must reach on fresh texts.
FLOORS = {"bert-reviews": 0.95, "bert-reviews-5": 0.95, "bert-topics": 0.97}
# Bare phrases without a sentence: what is left when all other words are deleted.
BARE = {"bert-reviews": 0.95, "bert-reviews-5": 0.8, "bert-topics": 0.95}
N, SEED = 300, 424242


def card_of(name):
    return json.loads((WEIGHTS / f"{name}.json").read_text())


@pytest.fixture(scope="module", params=FLOORS)
def measured(request):
    name = request.param
    model, processor = xai.load(name)
    predict = train_texts.predictor(model, processor.tokenizer)
    world = train_texts.WORLDS[name]
    found = measure_texts(predict, world, N, SEED), prove_text_evidence(predict, world, N, SEED)
    return name, *found


def test_models_classify_fresh_texts(measured):
    assert measured[1]["held_out_accuracy"] >= FLOORS[measured[0]]


def test_two_class_model_reaches_its_target():
    metrics = card_of("bert-reviews")["metrics"]
    assert metrics["held_out_accuracy"] >= 0.97 and metrics["n"] >= 4000


def test_hard_cases_are_classified(measured):
    cases = {key: value for key, value in measured[1].items() if key in train_cases(measured[0])}
    assert cases and min(cases.values()) >= FLOORS[measured[0]] - 0.1


def train_cases(name):
    return {"aside"} if name == "bert-topics" else {"negated", "contrast"}


@pytest.mark.parametrize("part", ["metrics", "evidence"])
def test_card_tells_the_truth(measured, part):
    fresh = measured[1 if part == "metrics" else 2]
    stated = card_of(measured[0])[part]
    assert set(stated) == set(fresh)
    for key in set(stated) - {"n", "seed", "chance"}:
        n = N // 4 if key in train_cases(measured[0]) else N
        # Four standard errors of both samples, and one text more for a stated 100 %.
        spread = (stated[key] * (1 - stated[key]) * (1 / n + 1 / stated["n"])) ** 0.5
        assert abs(stated[key] - fresh[key]) < 4 * spread + 1.5 / n, key


def test_without_the_rationale_accuracy_is_chance(measured):
    evidence = measured[2]
    spread = (evidence["chance"] * (1 - evidence["chance"]) / N) ** 0.5
    for kind in ("rationale_deleted", "rationale_masked"):
        assert abs(evidence[kind] - evidence["chance"]) < 4 * spread, kind


def test_the_rationale_alone_suffices(measured):
    evidence = measured[2]
    assert evidence["only_rationale_masked"] >= evidence["intact"] - 0.05
    assert evidence["only_rationale"] >= BARE[measured[0]]


def test_without_its_negators_a_review_says_the_opposite():
    assert card_of("bert-reviews")["evidence"]["negators_deleted"] >= 0.85


@pytest.mark.parametrize("name", FLOORS)
def test_card_matches_weights_script_and_log(name):
    card, path = card_of(name), WEIGHTS / f"{name}.safetensors"
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert {value.dtype for value in load_file(path).values()} == {torch.float16}
    tokenizer = (WEIGHTS / card["tokenizer"]).read_bytes()
    assert card["tokenizer_sha256"] == hashlib.sha256(tokenizer).hexdigest()
    model, processor = xai.load(name)
    assert isinstance(model, BertForSequenceClassification)
    assert model.config.num_hidden_layers >= 4 and processor.max_length == 128
    names = open_dataset(train_texts.WORLDS[name]).class_names
    assert tuple(card["class_names"]) == names == processor.class_names
    assert list(model.config.id2label.values()) == list(names)
    assert (ROOT / card["trained_by"].split()[0]).is_file() and card["seed"] == 0
    with (LOGS / f"{name}.csv").open() as file:
        best = max(float(row["held_out"]) for row in csv.DictReader(file))
    assert best == card["validation_accuracy"]


def test_tokenizer_is_the_one_that_the_script_trains():
    again = train_texts.train_tokenizer(0).backend_tokenizer.to_str(pretty=True) + "\n"
    assert (WEIGHTS / train_texts.TOKENIZER).read_text(encoding="utf-8") == again


@pytest.mark.parametrize("name", FLOORS)
def test_tokenizer_splits_some_words_and_knows_every_character(name):
    tokenizer = xai.load(name)[1].tokenizer
    assert len(tokenizer) <= 2000
    data = text_world(train_texts.WORLDS[name], 300, SEED)
    pieces = [tokenizer.tokenize(data[i].text) for i in range(300)]
    assert max(map(len, pieces)) <= 126
    assert 0.02 < sum(p.startswith("##") for ps in pieces for p in ps) / sum(map(len, pieces)) < 0.4
    typed = "Zyzzyva & QUUX: 99% (really?!) it's <b>_bold_</b> #1 @home; 'x' = y/z"
    assert "[UNK]" not in tokenizer.tokenize(typed)


@pytest.mark.parametrize("name", FLOORS)
def test_the_notebook_texts_are_classified_as_planted(name):
    model, processor = xai.load(name)
    found = sample_texts(name)
    with torch.no_grad():
        predicted = model(**processor(found.list())).logits.argmax(1)
    assert predicted.tolist() == [sample.label for sample in found.samples.values()]


def figures_row(name):
    """Return the row of a text model in README.md, from its card."""
    metrics, evidence = card_of(name)["metrics"], card_of(name)["evidence"]
    shares = (
        metrics["held_out_accuracy"],
        metrics.get("negated"),
        metrics.get("contrast"),
        evidence["rationale_deleted"],
        evidence["chance"],
        evidence["only_rationale_masked"],
    )
    shown = ["" if x is None else f"{int(x * 1000 + 0.5 + 1e-6) / 10:.1f} %" for x in shares]
    return f"| `{name}` | {' | '.join(shown)} |"


def test_readme_states_the_figures_of_the_cards():
    text = (ROOT / "README.md").read_text()
    table = text.split("<!-- text models: begin")[1].split("-->")[1].split("<!--")[0]
    assert table.split("\n")[4:-2] == [figures_row(name) for name in FLOORS]
    for name in FLOORS:
        card = card_of(name)
        assert (card["metrics"]["n"], card["evidence"]["n"]) == (4000, 2000)
