"""A few steps of the CLIP training script: seeds decide, true captions are no negatives."""

import hashlib
import json
import math
import sys
from pathlib import Path

import pytest
import torch
import typer
from safetensors.torch import load_file
from transformers import CLIPConfig, CLIPModel

sys.path.insert(0, str(Path(__file__).parents[1] / "data_scripts"))

import train_clip
from training import read_weights

from xai_lib.datasets.worlds.attribute_scenes import AttributeScenes
from xai_lib.datasets.worlds.captions import caption_of
from xai_lib.datasets.worlds.wording import Draw

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(train_clip, "HELD", 8)
    monkeypatch.setattr(train_clip, "BATCH", 8)


def without_seconds(log):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in log]


def run(seed):
    model, processor = train_clip.new_model(seed, None)
    return model, train_clip.train_stage(model, processor, 0, seed, 1e-4, torch.float32, every=1)


def test_seed_decides_everything():
    (one, log), (two, again), (_, other) = (run(seed) for seed in (0, 0, 1))
    assert without_seconds(log) == without_seconds(again) != without_seconds(other)
    for key, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[key]), key


def test_other_captions_that_are_true_are_no_negatives():
    logits = torch.tensor([[2.0, 5.0], [1.0, 3.0]])
    truth = torch.tensor([[True, True], [False, True]])
    found = train_clip.contrastive(logits, truth)
    # Scene 0 has no negative left, scene 1 has caption 0; caption 0 has scene 1, caption 1 none.
    one = math.log(1 + math.exp(1 - 3)) / 2
    other = math.log(1 + math.exp(1 - 2)) / 2
    assert found.item() == pytest.approx((one + other) / 2)


def test_truth_is_what_the_words_say():
    scenes = AttributeScenes(40, 5, (1, 2))[:]
    captions = [caption_of(s.objects, Draw(i)) for i, s in enumerate(scenes)]
    truth = train_clip.true_of(captions, train_clip.attribute_table(scenes))
    assert truth.diagonal().all() and 40 < truth.sum() < 800
    for i, scene in enumerate(scenes):
        for j, caption in enumerate(captions):
            (mention,) = caption.mentions
            source = scenes[j].objects[mention.slot]
            fits = any(
                all(getattr(thing, kind) == getattr(source, kind) for kind in mention.words)
                for thing in scene.objects
            )
            assert truth[i, j] == fits


def test_patches_know_what_covers_them():
    scenes = AttributeScenes(4, 5, (1, 2))[:]
    covers = train_clip.covers_of(scenes, 2)
    for scene, cover in zip(scenes, covers, strict=True):
        pixels = scene.masks.flatten(1).sum(1)
        assert torch.allclose(64 * cover.sum(0)[: len(pixels)], pixels.float(), atol=1e-3)


def test_dropping_no_patch_is_the_model_itself():
    tokenizer = train_clip.make_tokenizer()
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(**train_clip.kwargs_of(tokenizer))).eval()
    train_clip.start_from(model, read_weights(train_clip.START))
    pixels = torch.randn(2, 3, 64, 64)
    kept = torch.arange(64).expand(2, -1)
    with torch.no_grad():
        states, features = train_clip.see(model, pixels, kept)
        whole = model.vision_model(pixel_values=pixels)
        wanted = model.get_image_features(pixel_values=pixels).pooler_output
        torch.testing.assert_close(features, wanted)
        torch.testing.assert_close(states, whole.last_hidden_state[:, 1:])
        few, _ = train_clip.see(model, pixels, kept[:, :20])
    assert few.shape == (2, 20, 128)


def test_model_is_stored_rounded_and_described(tmp_path, monkeypatch):
    monkeypatch.setattr(train_clip, "measure_clip", lambda *_, **__: {"measured": 1})
    monkeypatch.setattr(train_clip, "prove_clip_evidence", lambda *_, **__: {"proven": 1})
    options = {"seed": 3, "scale": 1e-4, "threads": 1}
    train_clip.main(tmp_path, tmp_path, **options)
    card = json.loads((tmp_path / "clip-scenes.json").read_text())
    assert card["seed"] == 3 and len(card["class_names"]) == 64
    assert set(card) >= {"metrics", "evidence", "sha256", "tokenizer_sha256", "trained_by"}
    stored = load_file(tmp_path / "clip-scenes.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    model = CLIPModel(CLIPConfig(**card["kwargs"]))
    assert {key: value.shape for key, value in stored.items()} == {
        key: value.shape for key, value in model.state_dict().items()
    }
    tokenizer = (tmp_path / card["tokenizer"]).read_bytes()
    assert card["tokenizer_sha256"] == hashlib.sha256(tokenizer).hexdigest()
    rows = (tmp_path / "clip-scenes.csv").read_text().splitlines()
    assert len(rows) == 1 + len(train_clip.STAGES)
    # Going on from the first stage takes the same steps again.
    with monkeypatch.context() as patch:
        patch.setattr(train_clip, "STAGES", train_clip.STAGES[:1])
        train_clip.main(tmp_path / "parts", tmp_path / "parts", **options)
    train_clip.main(tmp_path / "parts", tmp_path / "parts", resume=1, **options)
    for key, value in load_file(tmp_path / "parts" / "clip-scenes.safetensors").items():
        assert torch.equal(value, stored[key]), key
    with pytest.raises(typer.BadParameter, match="--resume 7"):
        train_clip.main(tmp_path, tmp_path, resume=7)
