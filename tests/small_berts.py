"""Random small BERT classifiers with a WordPiece tokenizer of their own, shared by the tests."""

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from xai_lib.models.processors.text import TextProcessor

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = [
    "a",
    "and",
    "bad",
    "best",
    "but",
    "film",
    "fine",
    "good",
    "great",
    "i",
    "is",
    "it",
    "loved",
    "movie",
    "never",
    "not",
    "of",
    "one",
    "plot",
    "sad",
    "story",
    "the",
    "this",
    "was",
    "worst",
]
LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
# Every lower-case Latin word has pieces: a known word, its first letters, or single letters.
PIECES = ["act", "bor", "wonder", "##ing", "##ful", "##ed", "##s", "##ly"]
VOCABULARY = (*SPECIAL, *".,!?'", *LETTERS, *(f"##{c}" for c in LETTERS), *WORDS[1:], *PIECES)
TEXTS = (
    "this movie was the best one i loved it , great acting !",
    "bad plot and boring story",
    "the film is not bad but sad",
    "wonderful",
)


def small_tokenizer(max_length=64):
    """Return a fast lower-casing WordPiece tokenizer; [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3."""
    names = list(dict.fromkeys(VOCABULARY))
    ids = {piece: number for number, piece in enumerate(names)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def small_bert(classes=2, layers=2, seed=0, heads=2, dtype=torch.float64, max_length=64, names=()):
    """Return a BertForSequenceClassification in eval mode and its TextProcessor.

    Weights are large enough that attention is not flat and classes depend on the words.
    """
    tokenizer = small_tokenizer(max_length)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=32,
        max_position_embeddings=max_length,
        num_labels=classes,
        pad_token_id=0,
        attn_implementation="eager",
    )
    model = BertForSequenceClassification(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(drawn * (0.3 if parameter.dim() > 1 else 0.1))
            if "LayerNorm.weight" in name:
                parameter.add_(1)
    if names:
        model.config.id2label = dict(enumerate(names))
        model.config.label2id = {name: number for number, name in enumerate(names)}
    return model.to(dtype).eval(), TextProcessor(tokenizer, tuple(names), max_length)
