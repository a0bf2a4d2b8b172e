"""Loading: local folders and embedded cards give the saved model back, and damage is named."""

import hashlib
import json

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf
from timm.models.vision_transformer import VisionTransformer
from transformers import AutoConfig, ViTConfig, ViTForImageClassification, ViTImageProcessor

import xai_lib.files.hub as hub
import xai_lib.models.embedded as embedded
from xai_lib.errors import CheckpointError, OptionError, UnsupportedModelError
from xai_lib.models import load, models

KWARGS = {
    "img_size": 16,
    "patch_size": 4,
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
    "num_classes": 3,
}
NAMES = ["circle", "square", "star"]


@pytest.fixture
def hf_folder(tmp_path):
    config = ViTConfig(
        image_size=16,
        patch_size=4,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=3,
        id2label=dict(enumerate(NAMES)),
        label2id={name: index for index, name in enumerate(NAMES)},
    )
    folder = tmp_path / "hf"
    ViTForImageClassification(config).eval().save_pretrained(folder)
    ViTImageProcessor(
        size={"height": 16, "width": 16}, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4]
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def timm_folder(tmp_path):
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=3)
    folder = tmp_path / "timm"
    save_for_hf(
        model,
        folder,
        model_config={"label_names": NAMES},
        model_args={"img_size": 32, "depth": 2},
        safe_serialization=True,
    )
    return folder


@pytest.fixture
def card(tmp_path, monkeypatch):
    """An embedded world of one half-precision model, written as the training script does."""
    torch.manual_seed(0)
    state = {key: value.half() for key, value in VisionTransformer(**KWARGS).state_dict().items()}
    save_file(state, tmp_path / "tiny.safetensors")
    content = {
        "name": "tiny",
        "library": "timm",
        "class": "timm.models.vision_transformer.VisionTransformer",
        "kwargs": KWARGS,
        "class_names": NAMES,
        "input": {"size": [16, 16], "mean": [0.5] * 3, "std": [0.25] * 3},
        "dtype": "float16",
        "sha256": hashlib.sha256((tmp_path / "tiny.safetensors").read_bytes()).hexdigest(),
    }
    monkeypatch.setattr(embedded, "WEIGHTS", tmp_path)

    def write(**changes):
        (tmp_path / "tiny.json").write_text(json.dumps(content | changes))
        embedded.cards.cache_clear()
        return tmp_path

    write()
    yield write
    embedded.cards.cache_clear()


def test_embedded_model_is_the_file_in_float32(card):
    folder = card()
    before = torch.random.get_rng_state()
    model, processor = load("tiny")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert type(model) is VisionTransformer and not model.training
    saved = load_file(folder / "tiny.safetensors")
    assert set(saved) == set(model.state_dict())
    for key, value in model.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, saved[key].float())
    assert processor.class_names == tuple(NAMES)
    assert (processor.size, processor.mean, processor.std) == ((16, 16), (0.5,) * 3, (0.25,) * 3)
    assert list(models()["name"][:1]) == ["tiny"]


def test_embedded_file_that_is_not_the_cards(card):
    card(sha256="0" * 64)
    with pytest.raises(CheckpointError, match=r"tiny\.safetensors.* install xai-lib again"):
        load("tiny")
    card(kwargs=KWARGS | {"depth": 3})
    with pytest.raises(CheckpointError, match=r"blocks\.2"):
        load("tiny")
    card(**{"class": "somewhere.else.Network"})
    with pytest.raises(CheckpointError, match=r"somewhere\.else\.Network"):
        load("tiny")


def test_embedded_weights_truncated_or_gone(card):
    path = card() / "tiny.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"tiny\.safetensors.* copy it again"):
        load("tiny")
    path.unlink()
    with pytest.raises(CheckpointError, match=r"tiny\.safetensors"):
        load("tiny")


def test_damaged_card_is_named(card):
    (card() / "tiny.json").write_text("{")
    embedded.cards.cache_clear()
    with pytest.raises(CheckpointError, match=r"tiny\.json"):
        load("tiny")


def test_hf_folder(hf_folder):
    model, processor = load(hf_folder)
    saved = ViTForImageClassification.from_pretrained(hf_folder).state_dict()
    assert type(model) is ViTForImageClassification and not model.training
    for key, value in model.state_dict().items():
        assert torch.equal(value, saved[key])
    assert processor.class_names == tuple(NAMES) and processor.size == (16, 16)
    image = Image.effect_noise((16, 16), 60).convert("RGB")
    theirs = ViTImageProcessor.from_pretrained(hf_folder)(image, return_tensors="pt")
    torch.testing.assert_close(processor(image)["pixel_values"], theirs["pixel_values"])
    assert model(**processor(image)).logits.shape == (1, 3)


def test_hf_processor_without_rescaling_or_normalisation(hf_folder):
    """The byte scale and the normalisation are the checkpoint's, whatever it chose."""
    image = Image.effect_noise((16, 16), 60).convert("RGB")
    path = hf_folder / "preprocessor_config.json"
    facts = json.loads(path.read_text())
    for change in ({"do_rescale": False}, {"rescale_factor": 1 / 127.5}, {"do_normalize": False}):
        path.write_text(json.dumps(facts | change))
        theirs = ViTImageProcessor.from_pretrained(hf_folder)(image, return_tensors="pt")
        ours = load(hf_folder)[1](image)["pixel_values"]
        torch.testing.assert_close(ours, theirs["pixel_values"].float(), msg=str(change))


def test_timm_folder(timm_folder):
    model, processor = load(str(timm_folder))
    saved = load_file(timm_folder / "model.safetensors")
    assert type(model) is VisionTransformer and not model.training
    for key, value in model.state_dict().items():
        assert torch.equal(value, saved[key])
    assert processor.class_names == tuple(NAMES) and processor.size == (32, 32)
    assert model(processor(Image.new("RGB", (50, 40)))["pixel_values"]).shape == (1, 3)


def test_thousand_classes_are_imagenets(tmp_path):
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1)
    save_for_hf(model, tmp_path, model_args={"img_size": 32, "depth": 1}, safe_serialization=True)
    model, processor = load(tmp_path)
    assert len(processor.class_names) == 1000 and processor.class_names[207] == "golden retriever"
    assert model.pretrained_cfg["label_names"] == processor.class_names


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_hf_folder_that_lacks_or_truncates_a_file(hf_folder, name):
    path = hf_folder / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=f"{name}.* copy it again"):
        load(hf_folder)
    path.unlink()
    with pytest.raises(CheckpointError, match=name):
        load(hf_folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_timm_folder_that_lacks_or_truncates_a_file(timm_folder, name):
    path = timm_folder / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=f"{name}.* copy it again"):
        load(timm_folder)
    path.unlink()
    with pytest.raises(CheckpointError, match=name):
        load(timm_folder)


def test_sharded_folder_that_lacks_a_shard(hf_folder):
    ViTForImageClassification.from_pretrained(hf_folder).save_pretrained(
        hf_folder, max_shard_size="8KB"
    )
    (hf_folder / "model.safetensors").unlink(missing_ok=True)
    shards = sorted(hf_folder.glob("model-*.safetensors"))
    assert len(shards) > 1 and load(hf_folder)[1].size == (16, 16)
    shards[-1].unlink()
    with pytest.raises(CheckpointError, match=shards[-1].name):
        load(hf_folder)


def test_a_backbone_without_classifier_is_not_filled_with_noise(hf_folder):
    ViTForImageClassification.from_pretrained(hf_folder).vit.save_pretrained(hf_folder)
    with pytest.raises(CheckpointError, match=r"classifier\.bias"):
        load(hf_folder)


def test_a_model_that_is_no_image_classifier(hf_folder):
    AutoConfig.for_model("bert", hidden_size=8, num_attention_heads=2).save_pretrained(hf_folder)
    with pytest.raises(UnsupportedModelError):
        load(hf_folder)


def test_pickled_weights_are_refused(hf_folder):
    (hf_folder / "model.safetensors").rename(hf_folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin.*safetensors"):
        load(hf_folder)
    with pytest.raises(CheckpointError, match="safetensors"):
        load(hf_folder / "pytorch_model.bin")


def test_unknown_names_say_what_is_known(card):
    with pytest.raises(OptionError, match="Did you mean 'tiny'"):
        load("tinny")
    with pytest.raises(OptionError, match=r"Did you mean 'vit_base_patch16_224\."):
        load("timm:vit_base_patch16_224.orig_in21k_ft_in1")
    with pytest.raises(CheckpointError, match=r"google/vit.*'hf:OWNER/NAME'"):
        load("google/vit")


@pytest.mark.parametrize(
    "name", ["timm:vit_base_patch16_224.orig_in21k_ft_in1k", "hf:google/vit-base-patch16-224"]
)
def test_offline_is_one_sentence(name, tmp_path, monkeypatch):
    import huggingface_hub.constants as constants

    def no_network():
        raise ConnectionError("no route to host")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "reach_hub", no_network)
    with pytest.raises(CheckpointError, match="local folder") as caught:
        load(name)
    assert "\n" not in str(caught.value)


def test_timm_weights_from_the_hubs_cache(tmp_path, monkeypatch):
    """Published weights by name, found in the cache at a pinned revision and at no other."""
    import huggingface_hub.constants as constants

    name = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    commit = "1" * 40
    folder = tmp_path / f"models--timm--{name}" / "snapshots" / commit
    torch.manual_seed(1)
    original = timm.create_model(name)
    save_for_hf(original, folder, safe_serialization=True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    model, processor = load(f"timm:{name}", revision=commit)
    for key, value in original.state_dict().items():
        assert torch.equal(model.state_dict()[key], value)
    assert processor.size == (224, 224) and processor.mean == (0.5, 0.5, 0.5)
    assert processor.class_names[1] == model.pretrained_cfg["label_names"][1]
    with pytest.raises(CheckpointError, match="2222"):
        load(f"timm:{name}", revision="2" * 40)


def test_the_hubs_cache_serves_without_network(hf_folder, tmp_path, monkeypatch):
    import huggingface_hub.constants as constants

    commit = "0" * 40
    repo = tmp_path / "cache" / "models--someone--tiny"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    (repo / "snapshots").mkdir()
    hf_folder.rename(repo / "snapshots" / commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load("hf:someone/tiny")[1].class_names == tuple(NAMES)
    # A snapshot that another program fetched in part is completed, not taken for a broken one.
    (repo / "snapshots" / commit / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match="go online once"):
        load("hf:someone/tiny")


@pytest.mark.parametrize("name", (3, None, b"vit-scenes", ["vit-scenes"]))
def test_a_name_that_is_no_text_is_refused(name):
    with pytest.raises(OptionError, match=r"name is .*path of a folder"):
        load(name)
