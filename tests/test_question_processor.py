"""Questions and regions to what LXMERT and VisualBERT take; what does not fit is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import (
    BertTokenizerFast,
    LxmertConfig,
    LxmertForQuestionAnswering,
    VisualBertConfig,
    VisualBertForQuestionAnswering,
)

import xai_lib as xai
from xai_lib.datasets.base import QuestionSample
from xai_lib.errors import CheckpointError, InputError, OptionError
from xai_lib.models.processors.question import QuestionProcessor

DIM = 6
SMALL = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 12,
    "vocab_size": 20,
}
QUESTIONS = ["is it red ?", "what is left of the star ?"]


def tokenizer():
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] is it red what left of the star ? how many"
    vocabulary = {word: i for i, word in enumerate(words.split())}
    return BertTokenizerFast(vocab=vocabulary, model_max_length=12)


def small(kind, dim=DIM):
    torch.manual_seed(0)
    if kind == "lxmert":
        layers = {"l_layers": 1, "r_layers": 1, "x_layers": 1}
        config = LxmertConfig(**SMALL, **layers, visual_feat_dim=dim, num_qa_labels=3)
        return LxmertForQuestionAnswering(config).eval()
    config = VisualBertConfig(
        **SMALL, num_hidden_layers=2, visual_embedding_dim=dim, num_labels=3, pad_token_id=0
    )
    return VisualBertForQuestionAnswering(config).eval()


def logits(model, inputs):
    with torch.no_grad():
        return model(**inputs)[0]


def regions(count, seed=0, dim=DIM):
    random = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 4, generator=random)
    low, high = corners[:, :2] * 0.5, 0.5 + corners[:, 2:] * 0.5
    return torch.randn(count, dim, generator=random), torch.cat([low, high], 1)


@pytest.fixture
def processor():
    return QuestionProcessor(tokenizer(), "lxmert", DIM)


def test_lxmert_takes_features_and_boxes(processor):
    features, boxes = regions(3)
    inputs = processor(QUESTIONS[0], features, boxes)
    assert inputs["input_ids"].shape == inputs["token_type_ids"].shape == (1, 6)
    assert torch.equal(inputs["visual_feats"][0], features)
    assert torch.equal(inputs["visual_pos"][0], boxes)
    assert inputs["visual_attention_mask"].tolist() == [[1, 1, 1]]
    assert inputs.texts == ((QUESTIONS[0],),) and processor.max_length == 12
    start, end = inputs.encodings[0].offsets[3]
    assert QUESTIONS[0][start:end] == "red"
    assert logits(small("lxmert"), inputs).shape == (1, 3)


@pytest.mark.parametrize("dim", [DIM, DIM + 4])
def test_visual_bert_takes_boxes_at_the_end_of_features_or_none(dim):
    processor = QuestionProcessor(tokenizer(), "visual_bert", dim)
    features, boxes = regions(3)
    inputs = processor(QUESTIONS[0], features, boxes)
    expected = features if dim == DIM else torch.cat([features, boxes], 1)
    assert torch.equal(inputs["visual_embeds"][0], expected)
    assert inputs["visual_token_type_ids"].tolist() == [[1, 1, 1]]
    assert not {"visual_feats", "visual_pos"} & set(inputs)
    assert logits(small("visual_bert", dim), inputs).shape == (1, 3)
    if dim == DIM:
        alone = processor(QUESTIONS[0], features)
        assert torch.equal(alone["visual_embeds"], inputs["visual_embeds"])
        assert alone.boxes is None
    assert torch.equal(inputs.boxes[0], boxes)


@pytest.mark.parametrize("kind", ["lxmert", "visual_bert"])
def test_padding_changes_no_answer(kind):
    processor, model = QuestionProcessor(tokenizer(), kind, DIM), small(kind)
    images = [regions(2, 1), regions(5, 2)]
    both = processor(QUESTIONS, *map(list, zip(*images, strict=True)))
    assert both["visual_attention_mask"].tolist() == [[1, 1, 0, 0, 0], [1] * 5]
    assert both["attention_mask"].sum(1).tolist() == [6, 9]
    alone = [logits(model, processor(q, *i)) for q, i in zip(QUESTIONS, images, strict=True)]
    torch.testing.assert_close(logits(model, both), torch.cat(alone), rtol=1e-5, atol=1e-6)


def test_visual_bert_reads_before_the_last_token_though_the_tokenizer_padded_at_the_left():
    left = tokenizer()
    left.padding_side = "left"
    processor = QuestionProcessor(left, "visual_bert", DIM)
    inputs = processor(QUESTIONS, *[[value] * 2 for value in regions(2)])
    mask = inputs["attention_mask"]
    assert mask[0].tolist() == [1] * 6 + [0] * 3
    read = inputs["input_ids"].gather(1, mask.sum(1, keepdim=True) - 2)
    assert left.convert_ids_to_tokens(read[:, 0].tolist()) == ["?", "?"]


def test_arrays_tensors_and_lists_are_the_same(processor):
    features, boxes = regions(3)
    expected = processor([QUESTIONS[0]] * 2, [features] * 2, [boxes] * 2)
    arrays = [np.stack([value.double().numpy()] * 2) for value in (features, boxes)]
    for given in (arrays, [torch.from_numpy(value) for value in arrays]):
        inputs = processor([QUESTIONS[0]] * 2, *given)
        assert set(inputs) == set(expected)
        assert all(torch.equal(inputs[key], expected[key]) for key in expected)


def test_samples(processor):
    samples = [
        QuestionSample(str(i), question, *regions(2 + i, i)) for i, question in enumerate(QUESTIONS)
    ]
    inputs = processor.of(samples)
    assert inputs["visual_feats"].shape == (2, 3, DIM)
    assert torch.equal(processor.of(samples[1])["visual_pos"], inputs["visual_pos"][1:])
    with pytest.raises(InputError, match="'1'"):
        processor.of([samples[0], replace(samples[1], boxes=None)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"questions": ""}, "empty"),
        ({"questions": "is " * 11}, "ask it in fewer words"),
        ({"questions": QUESTIONS}, "features"),
        ({"boxes": [torch.rand(3, 4)] * 2}, "boxes"),
        ({"features": torch.zeros(DIM)}, r"features.*\(6,\)"),
        ({"features": [torch.zeros(DIM)]}, r"features\[0\].*\(6,\)"),
        ({"features": torch.zeros(0, DIM)}, "at least one region"),
        ({"features": torch.zeros(3, DIM + 1)}, "7.* 6: take"),
        ({"features": torch.full((3, DIM), torch.nan)}, "NaN"),
        ({"features": "file.npz"}, "features is str"),
        ({"features": [[1.0] * DIM]}, r"features\[0\] is list"),
        ({"boxes": None}, "boxes"),
        ({"boxes": torch.rand(2, 4)}, r"\(2, 4\)"),
        ({"boxes": torch.rand(3, 5)}, r"expected \(3, 4\)"),
        ({"boxes": torch.tensor([[0, 0, 640.0, 480]] * 3)}, "from 0 to 640.*divide x"),
        ({"boxes": torch.tensor([[-0.2, 0, 0.5, 0.5]] * 3)}, "from -0.2"),
        ({"boxes": torch.tensor([[0.5, 0.5, 0.2, 0.2]] * 3)}, "not x, y, width, height"),
        ({"boxes": torch.full((3, 4), torch.inf)}, "NaN or infinite"),
    ],
)
def test_bad_input_is_refused(processor, change, message):
    features, boxes = regions(3)
    given = {"questions": QUESTIONS[0], "features": features, "boxes": boxes} | change
    with pytest.raises(InputError, match=message):
        processor(**given)


def test_bad_regions_of_visual_bert():
    processor = QuestionProcessor(tokenizer(), "visual_bert", DIM + 4)
    with pytest.raises(InputError, match="give boxes="):
        processor(QUESTIONS[0], torch.zeros(3, DIM))
    with pytest.raises(InputError, match="10, or 6 and boxes"):
        processor(QUESTIONS[0], torch.zeros(3, 7), torch.zeros(3, 4))
    with pytest.raises(OptionError, match="kind is 'bert'"):
        replace(processor, kind="bert")


@pytest.fixture(params=["lxmert", "visual_bert"])
def folder(request, tmp_path):
    small(request.param).save_pretrained(tmp_path)
    return tmp_path


def test_local_folders_load(folder):
    tokenizer().save_pretrained(folder)
    model, processor = xai.load(folder)
    assert processor.feature_dim == DIM and processor.kind == model.config.model_type
    assert processor.max_length == 12 and processor.tokenizer.padding_side == "right"
    expected = small(processor.kind)
    inputs = processor(QUESTIONS[1], *regions(3))
    torch.testing.assert_close(logits(model, inputs), logits(expected, inputs))
    # LXMERT's two labels of transformers' own are not its answers.
    assert len(processor.class_names) == (0 if processor.kind == "lxmert" else 3)


def test_the_caller_may_bring_the_tokenizer(folder):
    with pytest.raises(CheckpointError, match="give tokenizer="):
        xai.load(folder)
    model, processor = xai.load(folder, tokenizer=tokenizer())
    assert logits(model, processor(QUESTIONS[0], *regions(3))).shape == (1, 3)
    with pytest.raises(CheckpointError, match="Take the tokenizer"):
        xai.load(folder, tokenizer=BertTokenizerFast(vocab={"[UNK]": 0, "a": 1}))
    with pytest.raises(OptionError, match="tokenizer"):
        xai.load("bert-topics", tokenizer=tokenizer())
