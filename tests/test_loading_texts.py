"""Loading text classifiers: what was saved comes back, what does not fit together is refused."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedTokenizerFast,
)

import xai_lib.files.hub as hub
import xai_lib.models.embedded as embedded
from xai_lib.errors import CheckpointError, InputError, UnsupportedModelError
from xai_lib.models import TextProcessor, catalog, for_profile, load
from xai_lib.models import models as known_models

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefg", "##a", "##b", "good", "bad", "."]
SPECIAL = {f"{kind}_token": f"[{kind.upper()}]" for kind in ("pad", "unk", "cls", "sep", "mask")}
NAMES = ["negative", "positive"]
KWARGS = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 12,
}
LABELS = {"id2label": dict(enumerate(NAMES)), "label2id": {n: i for i, n in enumerate(NAMES)}}


def word_pieces():
    pieces = Tokenizer(models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    pieces.normalizer = normalizers.BertNormalizer(lowercase=True)
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return pieces


def tokenizer(**changes):
    return PreTrainedTokenizerFast(
        tokenizer_object=word_pieces(),
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **(SPECIAL | changes),
    )


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    BertForSequenceClassification(BertConfig(**KWARGS, **LABELS)).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    return tmp_path


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_folder_gives_model_and_processor_back(folder):
    before = torch.random.get_rng_state()
    model, processor = load(folder)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert type(model) is BertForSequenceClassification and not model.training
    for name, value in load_file(folder / "model.safetensors").items():
        assert torch.equal(model.state_dict()[name], value)
    assert isinstance(processor, TextProcessor) and processor.class_names == tuple(NAMES)
    assert processor.max_length == 12
    texts = ["A good a.", "bad"]
    ours = processor(texts)
    theirs = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    assert ours.texts == (("A good a.",), ("bad",))
    for name, value in theirs.items():
        assert torch.equal(ours[name], value)
    assert model(**ours).logits.shape == (2, 2)


def test_a_folder_with_a_vocabulary_instead_of_a_tokenizer_file(folder):
    """The layout of older checkpoints, such as textattack's, of which transformers makes a fast
    tokenizer."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    edit(folder / "config.json", model_type="bert")
    processor = load(folder)[1]
    assert processor("A good a.")["input_ids"].tolist() == [[2, 5, 14, 5, 16, 3]]


SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.mark.parametrize(
    ("family", "changes", "expected"),
    [
        ("bert", {"max_position_embeddings": 12}, 12),
        ("roberta", {"max_position_embeddings": 14}, 12),
        ("xlm-roberta", {"max_position_embeddings": 14}, 12),
        ("mpnet", {"max_position_embeddings": 14}, 12),
        ("distilbert", {"dim": 16, "hidden_dim": 32, "max_position_embeddings": 12}, 12),
        ("deberta-v2", {"position_biased_input": False, "relative_attention": True}, None),
        ("gpt2", {"n_positions": 12}, 12),
        ("t5", {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}, None),
    ],
)
def test_the_longest_text_is_what_the_model_takes(tmp_path, family, changes, expected):
    """The limit runs, and one token more does not, which the family itself decides."""
    names = {"t5": {}, "distilbert": {"n_layers": 1, "n_heads": 2}}.get(family, SMALL)
    names = names | {"intermediate_size": 32} if names is SMALL else names
    pad = {"pad_token_id": 1 if family in ("roberta", "xlm-roberta", "mpnet") else 0}
    config = AutoConfig.for_model(family, **names, vocab_size=len(WORDS), **pad, **changes)
    if family == "t5":
        config.eos_token_id, config.decoder_start_token_id = 3, 0
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    tokenizer(pad_token=WORDS[pad["pad_token_id"]]).save_pretrained(tmp_path)
    model, processor = load(tmp_path)
    assert processor.max_length == expected
    if expected is None:
        assert model(**processor("a " * 40)).logits.isfinite().all()
        return
    assert model(**processor("a " * (expected - 2))).logits.isfinite().all()
    longer = processor.tokenizer("a " * (expected - 1), return_tensors="pt")
    with pytest.raises((IndexError, RuntimeError)):
        model(**longer)


def test_the_tokenizers_own_limit_counts_where_it_is_smaller(folder):
    tokenizer(model_max_length=9).save_pretrained(folder)
    assert load(folder)[1].max_length == 9


def test_what_is_too_long_is_said_once(folder, capfd):
    _, processor = load(folder)
    with pytest.raises(InputError):
        processor("good " * 999)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_damaged_files_are_named(folder, name):
    path = folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="copy") as caught:
        load(folder)
    assert str(folder) in str(caught.value)


def test_a_missing_tokenizer_is_not_replaced_by_an_empty_one(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"copy tokenizer\.json"):
        load(folder)


def test_a_classifier_that_is_not_in_the_file_is_not_filled_with_noise(folder):
    BertModel(BertConfig(**KWARGS)).save_pretrained(folder)
    edit(folder / "config.json", architectures=["BertForSequenceClassification"])
    with pytest.raises(CheckpointError, match=r"classifier\.bias"):
        load(folder)


def test_an_encoder_alone_says_how_to_train_a_classifier(folder):
    BertModel(BertConfig(**KWARGS)).save_pretrained(folder)
    with pytest.raises(UnsupportedModelError, match="xai finetune"):
        load(folder)


def test_added_tokens_without_embeddings_are_refused(folder):
    more = tokenizer()
    more.add_tokens(["<user>", "<link>"])
    more.save_pretrained(folder)
    found = f"has {len(WORDS) + 2} ids, the model {len(WORDS)} embeddings.*its 2 added tokens"
    with pytest.raises(CheckpointError, match=found):
        load(folder)
    model = BertForSequenceClassification(BertConfig(**KWARGS, **LABELS))
    model.resize_token_embeddings(len(WORDS) + 2)
    model.save_pretrained(folder)
    assert load(folder)[1]("<user> a")["input_ids"].max() == len(WORDS)


def test_the_tokenizer_of_a_much_smaller_model_is_refused(folder):
    config = BertConfig(**KWARGS | {"vocab_size": 100}, **LABELS)
    BertForSequenceClassification(config).save_pretrained(folder)
    with pytest.raises(CheckpointError, match=rf"{len(WORDS)}.*100"):
        load(folder)


def gpt2(folder, pad_token_id, **special):
    config = AutoConfig.for_model(
        "gpt2", **SMALL, vocab_size=len(WORDS), eos_token_id=3, pad_token_id=pad_token_id
    )
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    without = {"pad_token": None, "eos_token": "[SEP]", "model_input_names": None} | special
    made = PreTrainedTokenizerFast(tokenizer_object=word_pieces(), **(SPECIAL | without))
    made.save_pretrained(folder)


def test_padding_of_causal_classifiers(tmp_path):
    """They take the last token that is no padding: a wrong padding id is a wrong answer."""
    names = ["input_ids", "attention_mask"]
    gpt2(tmp_path, None, model_input_names=names)
    with pytest.raises(CheckpointError, match=r"set pad_token_id to 3 in config\.json"):
        load(tmp_path)
    gpt2(tmp_path, 0, model_input_names=names)
    with pytest.raises(CheckpointError, match=r"set tokenizer\.pad_token = '\[PAD\]'"):
        load(tmp_path)
    gpt2(tmp_path, None, model_input_names=names, pad_token="[PAD]")
    with pytest.raises(CheckpointError, match="set pad_token_id to 0"):
        load(tmp_path)
    gpt2(tmp_path, 3, model_input_names=names)
    model, processor = load(tmp_path)
    assert processor.tokenizer.pad_token == "[SEP]"
    with torch.no_grad():
        padded = model(**processor(["a b", "a b c d e"])).logits[0]
        torch.testing.assert_close(padded, model(**processor("a b")).logits[0])


def test_a_padding_id_of_no_consequence_is_no_error(folder):
    """BERT goes by the attention mask, so that a tokenizer may pad with what it likes."""
    tokenizer(pad_token="[MASK]").save_pretrained(folder)
    assert load(folder)[1].tokenizer.pad_token_id == 4


def test_pickled_weights_are_refused(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin.*safetensors"):
        load(folder)


def test_the_hubs_cache_serves_without_network(folder, tmp_path_factory, monkeypatch):
    import huggingface_hub.constants as constants

    cache, commit = tmp_path_factory.mktemp("cache"), "0" * 40
    repo = cache / "models--someone--tiny"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    (repo / "snapshots").mkdir()
    folder.rename(repo / "snapshots" / commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load("hf:someone/tiny")[1].class_names == tuple(NAMES)
    # A snapshot that another program fetched in part is completed, not taken for a broken one.
    (repo / "snapshots" / commit / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="go online once"):
        load("hf:someone/tiny")


def test_every_file_that_a_tokenizer_needs_is_fetched():
    assert {"tokenizer.json", "tokenizer_config.json", "vocab.txt", "merges.txt"} <= set(hub.WANTED)
    assert not [name for name in hub.WANTED if name.endswith((".bin", ".pt", "*"))]


def test_the_papers_checkpoint_of_the_embedded_one():
    name = "hf:textattack/bert-base-uncased-SST-2"
    assert for_profile("bert-reviews", "paper") == name
    assert for_profile("bert-reviews", "embedded") == "bert-reviews"
    # Safetensors exist on that branch only.
    assert catalog.pinned_revision(name) == "refs/pr/2"
    row = known_models().set_index("name").loc[name]
    assert row["classes"] == 2 and row["profile"] == "paper"


@pytest.fixture
def card(tmp_path, monkeypatch):
    """An embedded world of one model of texts."""
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**KWARGS, **LABELS))
    save_file({k: v.half() for k, v in model.state_dict().items()}, tmp_path / "tiny.safetensors")
    word_pieces().save(str(tmp_path / "tiny.tokenizer.json"))

    def digest(name):
        return hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()

    content = {
        "name": "tiny",
        "library": "transformers",
        "class": "transformers.BertForSequenceClassification",
        "kwargs": KWARGS,
        "class_names": NAMES,
        "tokenizer": "tiny.tokenizer.json",
        "tokenizer_sha256": digest("tiny.tokenizer.json"),
        "input": {"kind": "text", "max_length": 12},
        "dtype": "float16",
        "sha256": digest("tiny.safetensors"),
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
    saved = load_file(card() / "tiny.safetensors")
    model, processor = load("tiny")
    assert type(model) is BertForSequenceClassification and not model.training
    for name, value in model.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, saved[name].float())
    assert processor.class_names == tuple(NAMES) and processor.max_length == 12
    assert model.config.id2label == dict(enumerate(NAMES))
    encoded = processor(["A good a.", "bad"], ["b", "c"])
    assert encoded["input_ids"][0].tolist() == [2, 5, 14, 5, 16, 3, 6, 3]
    assert encoded["token_type_ids"][0].tolist() == [0] * 6 + [1] * 2
    assert model(**encoded).logits.shape == (2, 2)
    assert list(known_models()["name"][:1]) == ["tiny"]


def test_embedded_tokenizer_that_is_not_the_cards(card):
    card(tokenizer_sha256="0" * 64)
    with pytest.raises(CheckpointError, match=r"tiny\.tokenizer\.json.*install"):
        load("tiny")
    (card() / "tiny.tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tiny\.tokenizer\.json"):
        load("tiny")
    card(**{"class": "somewhere.else.Network"})
    with pytest.raises(CheckpointError, match=r"somewhere\.else\.Network"):
        load("tiny")
