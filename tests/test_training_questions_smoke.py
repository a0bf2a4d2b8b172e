"""A few steps of the question training script: seeds decide, models are stored and described."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1] / "data_scripts"))

import train_questions

from xai_lib.datasets.worlds.question_scenes import background_vector
from xai_lib.datasets.worlds.question_wording import ANSWERS, COUNTS
from xai_lib.datasets.worlds.questions import GeneratedQuestions

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name, value in {"BATCH": 4, "FRESH": 2, "RECENT": 6, "HELD": 8}.items():
        monkeypatch.setattr(train_questions, name, value)
    lxmert = {"hidden_size": 16, "intermediate_size": 16, "l_layers": 1, "x_layers": 2}
    visual = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    kwargs = train_questions.KWARGS
    for name, changes in zip(train_questions.CLASSES, (lxmert, visual), strict=True):
        monkeypatch.setitem(kwargs, name, kwargs[name] | changes)


def without_seconds(log):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in log]


@pytest.mark.parametrize("name", train_questions.CLASSES)
def test_seed_decides_everything(name):
    tokenizer = train_questions.make_tokenizer()
    (one, _, log), (two, _, again), (three, _, other) = (
        train_questions.train(name, tokenizer, seed, 3, every=1) for seed in (0, 0, 1)
    )
    assert without_seconds(log) == without_seconds(again) != without_seconds(other)
    states = [model.state_dict() for model in (one, two, three)]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert not all(torch.equal(value, states[2][key]) for key, value in states[0].items())


def test_all_models_are_stored_rounded_and_described(tmp_path):
    train_questions.main("all", tmp_path, tmp_path, seed=3, scale=1e-4, n=24)
    for name, (config, kind) in train_questions.CLASSES.items():
        card = json.loads((tmp_path / f"{name}.json").read_text())
        assert card["seed"] == 3 and card["metrics"]["n"] == 24 and card["evidence"]["n"] == 12
        weights = load_file(tmp_path / f"{name}.safetensors")
        assert {value.dtype for value in weights.values()} == {torch.float16}
        labels = dict(enumerate(card["class_names"]))
        model = kind(config(**card["kwargs"], id2label=labels))
        model.load_state_dict({key: value.float() for key, value in weights.items()})
        assert (tmp_path / card["tokenizer"]).is_file()
        assert (tmp_path / f"{name}.csv").read_text().startswith("size,step,seconds,answer,named")


def test_what_is_shown_says_what_is_left():
    """The answers to learn are those of the regions and words that are still there."""
    data = GeneratedQuestions(600, 8, images=False)
    rng, whole, lacking = np.random.default_rng(0), 0, 0
    for i in range(600):
        sample = data[i]
        changed, answers = train_questions.shown(sample, rng)
        true = ANSWERS[sample.label]
        assert set(answers) <= set(sample.domain)
        assert len(changed.features) == len(changed.boxes) == len(changed.regions)
        assert torch.equal(changed.roles > 0, changed.regions)
        whole += changed is sample
        said = [sample.question[a:b] for a, b in sample.rationale]
        has_words = all(phrase in changed.question for phrase in said)
        if not has_words:
            assert set(answers) == set(sample.domain) and not changed.regions.any()
        elif changed.regions.sum() == sample.regions.sum():
            assert answers == (true,)
        elif sample.kind == "count":
            assert answers == (COUNTS[changed.regions.sum()],) != (true,)
        else:
            assert answers == (("no",) if sample.kind == "existence" else sample.domain)
        # What decides is never what lies on the background.
        far = (changed.features - torch.from_numpy(background_vector()).float()).norm(dim=1)
        assert (far[changed.regions] > 5).all()
        lacking += set(answers) != {true}
    assert 240 < whole < 360 and 60 < lacking < 160


def test_at_first_all_that_decides_is_shown():
    data = GeneratedQuestions(100, 8, images=False)
    rng = np.random.default_rng(0)
    for i in range(100):
        changed, answers = train_questions.shown(data[i], rng, decided=True)
        assert answers == (ANSWERS[data[i].label],)
        assert changed.question == data[i].question
        assert changed.regions.sum() == data[i].regions.sum()


def test_wanted_answers_are_equally_likely():
    target = train_questions.wanted([("red",), COUNTS])
    assert target.sum(1).tolist() == [1, 1]
    assert target[0, ANSWERS.index("red")] == 1 and target[1, ANSWERS.index("2")] == 0.25


def test_unknown_model_is_refused(tmp_path):
    with pytest.raises(train_questions.typer.BadParameter, match="lxmert:"):
        train_questions.main("lxmert", tmp_path, tmp_path)
