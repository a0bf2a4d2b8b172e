"""A few steps of the text training script: seeds decide, the best check is kept, models load."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertForSequenceClassification

sys.path.insert(0, str(Path(__file__).parents[1] / "data_scripts"))

import train_texts

from xai_lib.datasets.worlds.reviews import Reviews
from xai_lib.datasets.worlds.wording import Draw

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(train_texts, "BATCH", 4)
    monkeypatch.setattr(train_texts, "HELD", 8)


@pytest.fixture(scope="module")
def tokenizer():
    return train_texts.train_tokenizer(0, vocabulary=500, texts=200)


def without_seconds(log):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in log]


def test_seed_decides_everything(tokenizer):
    (one, log), (two, again), (three, other) = (
        train_texts.train("bert-reviews", tokenizer, seed, 3, every=1) for seed in (0, 0, 1)
    )
    assert without_seconds(log) == without_seconds(again) != without_seconds(other)
    for key, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[key]), key
    weight = "bert.embeddings.word_embeddings.weight"
    assert not torch.equal(one.state_dict()[weight], three.state_dict()[weight])


def test_the_best_check_is_kept(tokenizer, monkeypatch):
    rights = iter([0.5, 0.1, 0.9, 0.1, 0.2, 0.1])
    monkeypatch.setattr(train_texts, "accuracy", lambda *_: next(rights))
    best, log = train_texts.train("bert-topics", tokenizer, 0, 3, every=1)
    assert [row["held_out"] for row in log] == [0.5, 0.9, 0.2]
    rights = iter([0.5, 0.1, 0.9, 0.1, 0.95, 0.1])
    last, _ = train_texts.train("bert-topics", tokenizer, 0, 3, every=1)
    assert not torch.equal(best.classifier.weight, last.classifier.weight)


def test_all_models_are_stored_rounded_and_described(tmp_path, monkeypatch, tokenizer):
    monkeypatch.setattr(train_texts, "train_tokenizer", lambda seed: tokenizer)
    train_texts.main("all", tmp_path, tmp_path, seed=3, scale=1e-4, n=8)
    for name in train_texts.WORLDS:
        card = json.loads((tmp_path / f"{name}.json").read_text())
        assert card["seed"] == 3 and card["library"] == "transformers" and card["metrics"]["n"] == 8
        weights = load_file(tmp_path / f"{name}.safetensors")
        assert {value.dtype for value in weights.values()} == {torch.float16}
        model = BertForSequenceClassification(BertConfig(**card["kwargs"]))
        model.load_state_dict({key: value.float() for key, value in weights.items()})
        assert (tmp_path / card["tokenizer"]).is_file()
        assert (tmp_path / f"{name}.csv").read_text().startswith("size,step,seconds,class,tokens")


def test_a_later_model_starts_with_the_earlier_encoder(tokenizer, monkeypatch):
    first, _ = train_texts.train("bert-reviews", tokenizer, 0, 2)
    monkeypatch.setattr(train_texts, "RATE", 0.0)
    monkeypatch.setattr(train_texts, "FINAL", 0.0)
    second, _ = train_texts.train("bert-reviews-5", tokenizer, 0, 2, start=first.state_dict())
    for key, value in first.bert.state_dict().items():
        assert torch.equal(value, second.bert.state_dict()[key]), key
    assert second.classifier.out_features == 5


def test_shown_texts_keep_or_lose_their_rationale():
    samples = [Reviews(400, 5)[i] for i in range(400)]
    shown = [train_texts.shown(s, Draw("test", i), "reviews") for i, s in enumerate(samples)]
    whole = [text == s.text for (text, _, _), s in zip(shown, samples, strict=True)]
    # 9 of 20 are whole, and a review is now and then nothing but its deciding sentences.
    assert 150 < sum(whole) < 240 and 35 < sum(not present for *_, present in shown) < 90
    for (text, sample, present), source in zip(shown, samples, strict=True):
        phrases = [source.text[a:b] for a, b in source.rationale]
        if present:
            at = 0
            for phrase in phrases:
                at = text.find(phrase, at)
                assert at >= 0
                at += len(phrase)
        if sample is not None:
            assert text == source.text


def test_deciding_sentences_hold_all_of_the_rationale_and_little_else():
    for i in range(50):
        sample = Reviews(50, 6)[i]
        text = train_texts.deciding(sample)
        assert len(text) < len(sample.text) and text.endswith(".")
        assert all(sentence in sample.text for sentence in text.split(". "))
        assert all(sample.text[a:b] in text for a, b in sample.rationale)


def test_token_targets_mark_the_rationale(tokenizer):
    samples = [Reviews(6, 2)[i] for i in range(6)]
    encoded = tokenizer([s.text for s in samples], padding=True, return_tensors="pt")
    target = train_texts.token_targets(encoded, [None, *samples[1:]])
    assert (target[0] == -100).all()
    for i, sample in enumerate(samples[1:], 1):
        ids = encoded["input_ids"][i][target[i] > 0]
        wanted = [sample.text[a:b] for a, b in sample.rationale]
        assert ids.tolist() == tokenizer(" ".join(wanted), add_special_tokens=False)["input_ids"]
        assert set(target[i].tolist()) == {-100, 0, 1 + sample.label}


def test_unknown_model_is_refused(tmp_path):
    with pytest.raises(train_texts.typer.BadParameter, match="bert-review:"):
        train_texts.main("bert-review", tmp_path, tmp_path)
