"""A few steps of the training scripts: the loss falls, seeds decide, stored models load."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1] / "data_scripts"))

import scene_objective
import storing
import train_digits
import train_scenes
import training

from xai_lib.datasets import SCENE_CLASSES, Scenes

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(train_scenes, "BATCH", 16)
    monkeypatch.setattr(train_scenes, "HELD", 8)
    monkeypatch.setattr(train_digits, "BATCH", 16)


def few_steps(name="vit-scenes", seed=0, teacher=None):
    return train_scenes.train(name, teacher, seed, 0.02, precision=torch.float32, every=1)


@pytest.fixture(scope="module")
def trained():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_scenes, "BATCH", 16)
        patch.setattr(train_scenes, "HELD", 8)
        return few_steps()


def test_a_few_steps_reduce_the_loss(trained):
    log = trained[1]
    assert log[-1]["tokens"] < 0.8 * log[0]["tokens"]
    assert {row["size"] for row in log} == {64, 96}


def test_the_trained_model_is_the_plain_timm_class_at_full_size(trained):
    model = trained[0]
    fresh = train_scenes.VisionTransformer(**train_scenes.KWARGS)
    shapes = {key: value.shape for key, value in fresh.state_dict().items()}
    assert {key: value.shape for key, value in model.state_dict().items()} == shapes


def test_training_is_deterministic_for_a_seed(trained):
    again, other = few_steps()[0], few_steps(seed=1)[0]
    weights = trained[0].state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in again.state_dict().items())
    assert not torch.equal(other.head.weight, weights["head.weight"])


class Interrupted(RuntimeError):
    pass


def test_an_interrupted_run_is_continued_from_its_last_stored_stage(tmp_path, monkeypatch):
    whole, halted = tmp_path / "whole", tmp_path / "halted"

    def run(folder, resume):
        train_scenes.main(
            *("vit-scenes", folder, folder),
            **{"seed": 3, "scale": 0.01, "precision": "float32", "threads": 1, "n": 4},
            resume=resume,
        )
        return (folder / "vit-scenes.csv").read_text().splitlines()

    def interrupted(model, teacher, number, *rest, **options):
        if number == 3:
            raise Interrupted
        return polish(model, teacher, number, *rest, **options)

    polish = train_scenes.polish
    full = run(whole, 0)
    monkeypatch.setattr(train_scenes, "polish", interrupted)
    with pytest.raises(Interrupted):
        run(halted, 0)
    assert len(training.by_stage(training.read_log("vit-scenes", halted))) == 3
    monkeypatch.setattr(train_scenes, "polish", polish)
    # What came after the resumed stage is forgotten: the log ends as that of a run in one go.
    log = halted / "vit-scenes.csv"
    log.write_text(log.read_text() + full[-1] + "\n")
    continued = run(halted, 3)
    without_seconds = [
        [line.split(",")[:2] + line.split(",")[3:] for line in lines[1:]]
        for lines in (full, continued)
    ]
    assert without_seconds[0] == without_seconds[1]
    ends = [load_file(folder / "vit-scenes.safetensors") for folder in (whole, halted)]
    assert all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())
    cards = [json.loads((folder / "vit-scenes.json").read_text()) for folder in (whole, halted)]
    assert "--resume" not in cards[0]["trained_by"]
    assert cards[1]["trained_by"] == cards[0]["trained_by"] + " --resume 3"


def test_a_log_with_too_few_stages_is_not_resumed(tmp_path):
    row = {"size": 64, "step": 1, "seconds": 1, "class": 1.0}
    training.write_log("vit-scenes", [row, row], tmp_path)
    assert storing.first_stages("vit-scenes", 2, tmp_path) == [row, row]
    with pytest.raises(train_scenes.typer.BadParameter, match="has 2 stages"):
        storing.first_stages("vit-scenes", 3, tmp_path)


def test_the_distilled_head_learns_from_the_teacher_only():
    torch.manual_seed(0)
    model = train_scenes.VisionTransformerDistilled(**train_scenes.KWARGS).train()
    model.set_distilled_training(True)
    tokens, teacher = torch.nn.Linear(128, 11), scene_objective.Teacher().eval()
    batch = Scenes(8, seed=3, objects=1)[:]
    terms = scene_objective.scene_losses(model, teacher, tokens, batch)
    decided = teacher(scene_objective.normalise(batch.image)).argmax(1)
    model.set_distilled_training(True)
    heads = model(scene_objective.normalise(batch.image))
    expected = 0.5 * torch.nn.functional.cross_entropy(heads[1], decided)
    assert terms["distilled"].item() == pytest.approx(expected.item(), rel=1e-4)
    terms["distilled"].backward()
    assert model.head_dist.weight.grad.abs().sum() > 0 and model.head.weight.grad is None


def test_targets_are_distributions_that_follow_the_masks():
    batch = Scenes(30, seed=4, objects=(0, 1, 2, 3))[:]
    wanted, covered = scene_objective.image_targets(batch), scene_objective.token_targets(batch)
    assert torch.allclose(wanted.sum(1), torch.ones(30))
    assert torch.allclose(covered.sum(-1), torch.ones(30, 144))
    empty = (batch.labels < 0).all(1)
    assert empty.any() and torch.allclose(wanted[empty], torch.tensor(1 / len(SCENE_CLASSES)))
    area = covered[..., :-1].sum((1, 2)) * scene_objective.PATCH**2
    assert torch.allclose(area, batch.masks.sum((1, 2, 3)).float(), atol=0.5)


def test_stored_digits_model_is_rounded_and_described(tmp_path):
    train_digits.main(tmp_path, tmp_path, seed=5, steps=2, precision="float32", threads=2)
    card = json.loads((tmp_path / "vit-digits.json").read_text())
    weights = load_file(tmp_path / "vit-digits.safetensors")
    assert card["seed"] == 5 and card["dtype"] == "float16" and card["evidence"]["n"] == 360
    assert {value.dtype for value in weights.values()} == {torch.float16}
    assert (
        (tmp_path / "vit-digits.csv")
        .read_text()
        .startswith("size,step,seconds,class,tokens,held_out")
    )


def test_learning_rate_warms_up_and_decays():
    stage = training.Stage(steps=500, size=64, zoom=1.0, rate=1e-3, final=1e-5)
    rates = [training.learning_rate(stage, step) for step in range(500)]
    assert rates[0] < 1e-4 and max(rates) == pytest.approx(1e-3) and rates[-1] < 1.1e-5
    assert rates[60:] == sorted(rates[60:], reverse=True)
