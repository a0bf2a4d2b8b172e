"""Models of images and texts: their processor, their folders, and fixed prompts as classes."""

import json

import numpy as np
import pytest
import torch
from small_clips import LENGTH, SIDE, TEXTS, pair_processor, random_clip, tokenizer, write_folder
from transformers import CLIPImageProcessor, CLIPProcessor, SiglipConfig, SiglipModel

import xai_lib as xai
from xai_lib.errors import CheckpointError, InputError, UnsupportedModelError
from xai_lib.models import PairProcessor, ZeroShotClassifier, zero_shot

KINDS = ("clip", "siglip", "altclip")


def picture(seed=0, count=2):
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def test_processor_makes_what_the_one_of_transformers_makes():
    byte = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    size = {"height": SIDE, "width": SIDE}
    theirs = CLIPProcessor(
        image_processor=CLIPImageProcessor(
            size=size, crop_size=size, image_mean=[0.5] * 3, image_std=[0.25] * 3
        ),
        tokenizer=tokenizer(),
    )(images=[byte, byte], text=TEXTS, padding=True, return_tensors="pt")
    ours = pair_processor()([byte, byte], TEXTS)
    assert set(ours) == set(theirs) == {"pixel_values", "input_ids", "attention_mask"}
    for key in theirs:
        torch.testing.assert_close(ours[key], theirs[key])
    random_clip()(**ours)


def test_words_are_found_again_from_the_tokens():
    encoded = pair_processor()(picture(), TEXTS)
    assert encoded.texts == tuple((text,) for text in TEXTS)
    start, end = encoded.encodings[1].offsets[3]
    assert TEXTS[1][start:end] == "blue" == encoded.encodings[1].tokens[3]


def test_one_image_and_one_text_need_no_lists():
    encoded = pair_processor()(picture()[0], "a red star")
    assert len(encoded["pixel_values"]) == len(encoded["input_ids"]) == 1


def test_texts_are_padded_as_the_model_was_trained():
    encoded = pair_processor(pad_to=LENGTH).tokenize(TEXTS[:1])
    assert encoded["input_ids"].shape == (1, LENGTH) and encoded.texts == ((TEXTS[0],),)
    assert len(encoded.encodings[0].tokens) == LENGTH


@pytest.mark.parametrize("pad_to", [None, LENGTH])
def test_bad_texts_and_images_are_refused(pad_to):
    processor = pair_processor(pad_to)
    with pytest.raises(InputError, match=r"texts\[1\]"):
        processor(picture(), ["a star", " "])
    with pytest.raises(InputError, match="24"):
        processor(picture(), "a star " * 20)
    assert processor(picture(), "a star " * 20, truncate=True)["input_ids"].shape == (1, LENGTH)
    with pytest.raises(InputError, match=r"nowhere\.png"):
        processor("nowhere.png", TEXTS)
    with pytest.raises(InputError, match=r"processor\(images, texts\)"):
        processor("a red star", picture())


@pytest.mark.parametrize("kind", KINDS)
def test_folder_loads_as_it_was_saved(kind, tmp_path):
    saved = write_folder(tmp_path, kind)
    model, processor = xai.load(tmp_path)
    assert type(model) is type(saved) and isinstance(processor, PairProcessor)
    assert processor.max_length == LENGTH and processor.images.size == (SIDE, SIDE)
    assert processor.pad_to == (LENGTH if kind == "siglip" else None)
    inputs = processor(picture(), TEXTS)
    with torch.no_grad():
        torch.testing.assert_close(
            model(**inputs).logits_per_image, saved(**inputs).logits_per_image
        )


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_damaged_folders_are_refused(tmp_path):
    write_folder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    change(tmp_path / "config.json", text_config=config["text_config"] | {"eos_token_id": 7})
    with pytest.raises(CheckpointError, match="id 7: set eos_token_id"):
        xai.load(tmp_path)
    change(tmp_path / "config.json", text_config=config["text_config"])
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json"):
        xai.load(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"copy tokenizer\.json"):
        xai.load(tmp_path)


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    write_folder(tmp_path)
    words = tokenizer()
    words.add_tokens([f"word{i}" for i in range(9)])
    words.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="Take the tokenizer"):
        xai.load(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_the_classifier_are_the_models(kind):
    model, processor = random_clip(kind), pair_processor(LENGTH if kind == "siglip" else None)
    inputs = processor(picture(), TEXTS)
    classifier = ZeroShotClassifier(model, processor.tokenize(TEXTS))
    with torch.no_grad():
        wanted = model(**inputs).logits_per_image
        torch.testing.assert_close(classifier(inputs["pixel_values"]), wanted)
    assert wanted.std() > 0.01, "this test could not fail"


def test_the_classifier_leaves_the_model_alone():
    model = random_clip()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    classifier = ZeroShotClassifier(model, pair_processor().tokenize(TEXTS))
    assert model.training and classifier.training and classifier.model is model
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not classifier.text_features.requires_grad


def test_gradients_reach_the_image_and_not_the_texts():
    model = random_clip()
    classifier = ZeroShotClassifier(model, pair_processor().tokenize(TEXTS))
    pixels = picture().requires_grad_()
    classifier(pixels)[:, 0].sum().backward()
    assert pixels.grad.abs().max() > 0
    assert all(p.grad is None for p in model.text_model.parameters())


def test_classes_are_named_and_every_image_method_works():
    model, processor = random_clip(), pair_processor()
    classifier, images = zero_shot(model, processor, ["red star", "blue ring"], "a {}")
    assert classifier.config.id2label == {0: "red star", 1: "blue ring"}
    assert images.class_names == ("red star", "blue ring")
    inputs = images(picture())
    named = xai.explain(classifier, inputs, target="blue ring")
    numbered = xai.explain(classifier, inputs, target=1)
    torch.testing.assert_close(named.relevance, numbered.relevance)
    for method in ("rollout", "attn_gradcam", "bi_head", "attnlrp", "lrp"):
        found = xai.explain(classifier, inputs, target=("red star", "blue ring"), method=method)
        assert found.relevance.shape[0] == 2 and torch.isfinite(found.relevance).all()


def test_prompts_and_names_must_fit():
    model, processor = random_clip(), pair_processor()
    with pytest.raises(InputError):
        ZeroShotClassifier(model, processor.tokenize(TEXTS), ["a", "b"])
    with pytest.raises(InputError, match=r"list.*processor\.tokenize"):
        ZeroShotClassifier(model, TEXTS)
    with pytest.raises(InputError, match="input_ids"):
        ZeroShotClassifier(model, {})
    with pytest.raises(InputError, match="Give class_names"):
        zero_shot(model, processor)


def test_other_models_are_refused():
    prompts = pair_processor().tokenize(TEXTS)
    with pytest.raises(UnsupportedModelError, match="get_image_features"):
        ZeroShotClassifier(torch.nn.Linear(2, 2), prompts)

    class Otherwise(SiglipModel):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            output.logits_per_image = output.logits_per_image.square()
            return output

    small = random_clip("siglip").config
    with pytest.raises(UnsupportedModelError, match=r"xai\.explain"):
        ZeroShotClassifier(Otherwise(SiglipConfig.from_dict(small.to_dict())).eval(), prompts)
