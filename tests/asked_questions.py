"""Small random models of questions, their processor and a few generated questions, for tests."""

from __future__ import annotations

import dataclasses

import torch
from transformers import (
    BertTokenizerFast,
    LxmertConfig,
    LxmertForQuestionAnswering,
    VisualBertConfig,
    VisualBertForQuestionAnswering,
)

from xai_lib.datasets.base import QuestionDataset
from xai_lib.datasets.worlds.question_wording import ANSWERS
from xai_lib.datasets.worlds.questions import GeneratedQuestions
from xai_lib.errors import InputError
from xai_lib.models.loaders.questions import question_processor

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SMALL = {
    "hidden_size": 16,
    "num_attention_heads": 4,
    "intermediate_size": 16,
    "max_position_embeddings": 24,
}
COUNT = 6


def asked(n=COUNT):
    """Return n generated questions without their pictures."""
    return GeneratedQuestions(n, 3, images=False)


def small_questions(kind="lxmert", seed=0):
    """Return a LXMERT or VisualBERT in eval mode and its processor, for the generated questions."""
    data = asked(200)
    words = {word for i in range(200) for word in data.question(i).plain.lower().split()}
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *sorted(words | {"?"})])}
    names = {"vocab_size": len(vocabulary), "id2label": dict(enumerate(ANSWERS))}
    dim = data[0].features.shape[1]
    torch.manual_seed(seed)
    if kind == "lxmert":
        layers = {"l_layers": 1, "r_layers": 1, "x_layers": 2, "num_qa_labels": len(ANSWERS)}
        model = LxmertForQuestionAnswering(
            LxmertConfig(**SMALL, **layers, **names, visual_feat_dim=dim)
        )
    else:
        config = VisualBertConfig(
            **SMALL, **names, num_hidden_layers=3, visual_embedding_dim=dim + 4, pad_token_id=0
        )
        model = VisualBertForQuestionAnswering(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(12)
    tokenizer = BertTokenizerFast(vocab=vocabulary, model_max_length=24)
    return model.eval(), question_processor(tokenizer, model, "this test")


class Asked(QuestionDataset):
    """Generated questions, some of them changed: {index: fields}, or "error" for unreadable."""

    name = "questions-of-tests"
    class_names = ANSWERS
    has_evidence = True

    def __init__(self, changed=None, n=COUNT):
        self.changed, self.data = dict(changed or {}), asked(n)

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        change = self.changed.get(index, {})
        if change == "error":
            raise InputError(f"The file of question {index} is damaged.")
        return dataclasses.replace(self.data[index], **change)

    def fingerprint(self):
        return self.data.fingerprint() | {"changed": str(sorted(self.changed))}
