"""Random small LXMERT and VisualBERTs with a processor and questions, shared by the tests."""

import numpy as np
import torch
from PIL import Image
from transformers import (
    BertTokenizerFast,
    LxmertConfig,
    LxmertForQuestionAnswering,
    VisualBertConfig,
    VisualBertForQuestionAnswering,
)

from xai_lib.datasets.base import QuestionSample
from xai_lib.models.processors.question import QuestionProcessor

KINDS = ("lxmert", "visual_bert")
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] what colour is the star left of ring ? how many are there"
ANSWERS = ("red", "<b>$blue$</b>", "two", "no")
DIM = 6
SMALL = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
}


def question_world(kind, seed=0):
    """Return a model of `kind` in eval mode and its processor."""
    vocabulary = {word: i for i, word in enumerate(WORDS.split())}
    tokenizer = BertTokenizerFast(vocab=vocabulary, model_max_length=16)
    common = SMALL | {"vocab_size": len(vocabulary)}
    torch.manual_seed(seed)
    if kind == "lxmert":
        layers = {"l_layers": 1, "r_layers": 1, "x_layers": 2}
        sizes = {"visual_feat_dim": DIM, "num_qa_labels": len(ANSWERS)}
        model = LxmertForQuestionAnswering(LxmertConfig(**common, **layers, **sizes))
        dim = DIM
    else:
        dim = DIM + 4
        sizes = {"visual_embedding_dim": dim, "num_labels": len(ANSWERS), "pad_token_id": 0}
        config = VisualBertConfig(**common, num_hidden_layers=3, **sizes)
        model = VisualBertForQuestionAnswering(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(10)
    return model.eval(), QuestionProcessor(tokenizer, kind, dim, ANSWERS)


def question_samples(regions=(4, 3)):
    """Return questions on images of 24 x 32 pixels, with this many regions."""
    rng = np.random.default_rng(0)
    questions = ("what colour is the star ?", "how many are there ?", "what is left of the ring ?")
    found = []
    for i, (count, question) in enumerate(zip(regions, questions, strict=False)):
        low, size = rng.uniform(0, 0.5, (count, 2)), rng.uniform(0.2, 0.5, (count, 2))
        boxes = torch.tensor(np.concatenate([low, low + size], 1), dtype=torch.float32)
        features = torch.tensor(rng.normal(size=(count, DIM)), dtype=torch.float32)
        image = Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8))
        found.append(QuestionSample(f"<i>question {i}", question, features, boxes, image))
    return found
