"""`xai prune`: checkpoints that load anywhere, what they report, and what they refuse."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from small_berts import small_bert
from transformers import AutoModelForImageClassification, ViTConfig, ViTForImageClassification

import xai_lib as xai
from xai_lib.checkpoints.pruning import prune_checkpoint
from xai_lib.cli import main as cli
from xai_lib.errors import TargetError
from xai_lib.heads import head_scores, without_blocks

pytestmark = pytest.mark.usefixtures("one_thread")

FEW = {"samples": 6, "test": 5, "batch_size": 4}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a small ViT and BERT of transformers, pictures by class, and labelled texts."""
    folder = tmp_path_factory.mktemp("pruning")
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=32,
        image_size=16,
        patch_size=8,
        id2label={0: "dark", 1: "light"},
        label2id={"dark": 0, "light": 1},
    )
    vit = ViTForImageClassification(config)
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    vit.save_pretrained(folder / "vit")
    from xai_lib.models import Processor

    Processor((16, 16), (0.5,) * 3, (0.5,) * 3).save_pretrained(folder / "vit")
    noise = np.random.default_rng(0)
    for number in range(8):
        for name, low in (("dark", 0), ("light", 128)):
            (folder / "pictures" / name).mkdir(parents=True, exist_ok=True)
            pixels = noise.integers(low, low + 128, (16, 16, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "pictures" / name / f"{number}.png")
    model, processor = small_bert(layers=3, dtype=torch.float32, names=("bad", "good"))
    model.save_pretrained(folder / "bert")
    processor.tokenizer.save_pretrained(folder / "bert")
    words = ["good film", "bad plot", "great story", "sad movie", "not fine", "best one"]
    rows = [f"{text} {i},{i % 2}" for i, text in enumerate(words * 2)]
    (folder / "texts.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    return folder


@pytest.fixture
def run(monkeypatch, capsys):
    """Return a function from arguments to (exit status, stdout, stderr) of `xai prune`."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["xai", "prune", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        printed = capsys.readouterr()
        return stop.value.code or 0, printed.out, printed.err

    return call


def pixels():
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_a_vit_gets_really_smaller(place, tmp_path, run):
    out = tmp_path / "smaller"
    status, printed, _ = run(
        *(place / "vit", "--dataset", f"folder:{place / 'pictures'}", "--out", out),
        *("--fraction", 0.5, "--per-layer", "--samples", 6, "--test", 5, "--batch-size", 4),
    )
    assert status == 0 and "Saved:" in printed and "accuracy" in printed
    report = json.loads((out / "pruning.json").read_text())
    assert report["zeroed"] == {} and [len(h) for h in report["removed"].values()] == [2, 2, 2]
    assert report["parameters"]["after"] < report["parameters"]["before"]
    assert report["n"] == 5 and report["samples"] == 6 and "removed" in report["statement"]
    assert (out / "model.safetensors").stat().st_size < (
        place / "vit" / "model.safetensors"
    ).stat().st_size
    before, _ = xai.load(place / "vit")
    after, processor = xai.load(out)
    with xai.prune_heads(before, report["removed"]):
        expected = before(pixels()).logits
    assert torch.allclose(after(pixels()).logits, expected, atol=1e-4)
    plain = AutoModelForImageClassification.from_pretrained(out).eval()
    assert torch.equal(plain(pixels()).logits, after(pixels()).logits)
    assert processor.class_names == ("dark", "light") and processor.size == (16, 16)
    # Accuracy is that of the models on the samples that took no part in the ranking.
    assert report["accuracy"]["after"] in [k / 5 for k in range(6)]


def test_a_bert_keeps_its_size_and_says_so(place, tmp_path):
    out = tmp_path / "zeroed"
    report = prune_checkpoint(
        place / "bert", f"csv:{place / 'texts.csv'}", out, 0.5, method="grad_x_attention", **FEW
    )
    assert report["removed"] == {} and "same size" in report["statement"]
    assert sum(map(len, report["zeroed"].values())) == 3
    before, processor = xai.load(place / "bert")
    after, _ = xai.load(out)
    inputs = processor(["good film", "a bad plot"])
    with xai.prune_heads(before, report["zeroed"]):
        expected = before(**inputs).logits
    assert torch.allclose(after(**inputs).logits, expected, atol=1e-5)
    assert sorted(p.name for p in out.parent.iterdir()) == ["zeroed"]


@pytest.mark.parametrize("name", ["vit", "bert"])
def test_dropping_blocks_makes_any_model_smaller(place, tmp_path, name):
    data = f"folder:{place / 'pictures'}" if name == "vit" else f"csv:{place / 'texts.csv'}"
    report = prune_checkpoint(
        place / name, data, tmp_path / "out", 0.4, level="block", method="lrp", **FEW
    )
    ((path, (dropped,)),) = report["removed"].items()
    before, _ = xai.load(place / name)
    after, _ = xai.load(tmp_path / "out")
    assert after.config.num_hidden_layers == 2
    # The same as the whole model whose block is taken out by hand.
    del before.get_submodule(path)[dropped]
    inputs = pixels() if name == "vit" else torch.tensor([[2, 40, 50, 3]])
    assert torch.allclose(after(inputs).logits, before(inputs).logits, atol=1e-5)


def test_blocks_of_lxmert():
    """Three lists of blocks, each counted by a field of its own and none emptied."""
    from golden_questions import answers, golden_inputs, golden_model

    model, inputs = golden_model("lxmert"), golden_inputs("lxmert", 0)
    found = without_blocks(model, head_scores(model, inputs), 0.5)
    config = found.model.config
    assert config.l_layers + config.r_layers + config.x_layers == 4
    assert min(config.l_layers, config.r_layers, config.x_layers) >= 1
    assert found.parameters[1] < found.parameters[0]
    assert answers(found.model(**inputs)).shape == (1, 6)
    assert model.config.l_layers == 3


def test_what_is_refused(place, tmp_path, run):
    data = f"folder:{place / 'pictures'}"
    for arguments, message in (
        (("vit-scenes", "--dataset", "scenes"), "no model of transformers"),
        ((place / "vit", "--dataset", f"csv:{place / 'texts.csv'}"), "is of texts"),
        ((place / "vit", "--dataset", data, "--fraction", 1), "fraction"),
        ((place / "vit", "--dataset", data, "--level", "block", "--fraction", 1), "fraction"),
        ((place / "vit", "--dataset", data, "--level", "neuron"), "level"),
        ((place / "vit", "--dataset", data, "--method", "magnitude"), "head score"),
        ((place / "vit", "--dataset", data, "--order", "up"), "order"),
        ((place / "vit", "--dataset", data, "--samples", 0), "samples"),
    ):
        status, _, error = run(*arguments, "--out", tmp_path / "out")
        assert status == 2 and message in error, (arguments, error)
        assert list(tmp_path.iterdir()) == []
    status, _, error = run(place / "vit", "--dataset", data, "--out", tmp_path)
    assert status == 2 and "exists" in error


def test_a_model_of_questions_on_regions(tmp_path):
    """Accuracy is VQA's: the score of the answer that the model gives."""
    from small_berts import small_tokenizer
    from transformers import LxmertConfig, LxmertForQuestionAnswering

    from xai_lib.datasets import open_dataset

    data, tokenizer = open_dataset("questions"), small_tokenizer()
    names = dict(enumerate(data.class_names))
    torch.manual_seed(0)
    config = LxmertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=32,
        l_layers=2,
        r_layers=1,
        x_layers=2,
        visual_feat_dim=data[0].features.shape[1],
        num_qa_labels=len(names),
        id2label=names,
        label2id={name: number for number, name in names.items()},
    )
    model = LxmertForQuestionAnswering(config).eval()
    # A model that always says yes is right wherever "yes" is the answer.
    with torch.no_grad():
        model.answer_head.logit_fc[-1].bias[data.class_names.index("yes")] = 100
    model.save_pretrained(tmp_path / "lxmert")
    tokenizer.save_pretrained(tmp_path / "lxmert")
    counts = {"samples": 6, "test": 40, "batch_size": 20}
    report = prune_checkpoint(tmp_path / "lxmert", "questions", tmp_path / "out", 0.3, **counts)
    chosen = np.random.default_rng(0).permutation(len(data))[6:46]
    expected = np.mean([data[int(i)].answers.get("yes", 0) for i in chosen])
    assert 0 < expected < 1
    assert report["accuracy"] == {"before": expected, "after": expected}
    after, processor = xai.load(tmp_path / "out")
    assert type(after) is LxmertForQuestionAnswering and processor.class_names == data.class_names


@pytest.fixture
def unnamed(tmp_path, monkeypatch):
    """A folder with a small LXMERT that does not name its answers, as published, and its data."""
    from asked_questions import Asked, small_questions

    def made(changed, answers=None):
        model, processor = small_questions()
        model.config.id2label = {0: "LABEL_0", 1: "LABEL_1"}
        if answers:
            model.resize_num_qa_labels(answers)
        model.save_pretrained(tmp_path / "lxmert")
        processor.tokenizer.save_pretrained(tmp_path / "lxmert")
        data = Asked(changed)
        monkeypatch.setattr("xai_lib.checkpoints.pruning.open_dataset", lambda name, path: data)
        return tmp_path / "lxmert", data

    return made


def test_scores_of_answers_count_where_the_model_names_none(unnamed, tmp_path):
    """And a question of which no answer is accepted is answered wrongly, whatever is said."""
    from asked_questions import ANSWERS

    some = {i: {"answers": dict.fromkeys(ANSWERS, 0.6), "label": 0} for i in range(6)}
    chosen = np.random.default_rng(0).permutation(6).tolist()
    model, _ = unnamed(some | {chosen[5]: {"answers": {}, "label": None}})
    report = prune_checkpoint(model, "x", tmp_path / "out", 0.5, samples=3, test=3, batch_size=3)
    assert report["accuracy"]["before"] == pytest.approx(0.4) and report["n"] == 3


def test_names_of_another_number_of_answers_are_refused(unnamed, tmp_path):
    model, _ = unnamed({}, answers=9)
    with pytest.raises(TargetError, match="9 classes"):
        prune_checkpoint(model, "x", tmp_path / "out", 0.5, samples=3, test=3, batch_size=3)
    assert not (tmp_path / "out").exists()


def test_a_ranking_does_not_depend_on_the_batches(unnamed):
    """Questions of unlike length in one batch: padding must not count in the mean of a map."""
    from xai_lib.checkpoints.pruning import _ranking, _Source

    place, data = unnamed({})
    model, processor = xai.load(place)
    source = _Source.of(data, processor, 3, 3, 0)
    lengths = {len(data[i].question.split()) for i in source.ranking}
    assert len(lengths) > 1
    one, all_ = (_ranking(model, source, "grad_x_attention", size, 0) for size in (1, 3))
    means = [scores.values.mean(0) for scores in (one, all_)]
    assert torch.allclose(*means, rtol=1e-3, atol=1e-6 * float(means[0].abs().max()))
