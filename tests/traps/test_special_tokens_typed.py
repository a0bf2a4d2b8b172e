"""Special tokens that a person typed or a chat template wrote are no words, and come only once."""

import pytest
import torch
from small_berts import small_bert
from small_clips import pair_processor
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

import xai_lib as xai
from xai_lib.errors import InputError
from xai_lib.models import TextProcessor
from xai_lib.streams.texts import Words

MARKS = ["<pad>", "<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
WORDS = ["system", "user", "assistant", "be", "kind", "good", "film", "bad", "hello"]
TEMPLATE = (
    "<s>{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content | trim }} <|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)
CHAT = [
    {"role": "system", "content": "be kind user"},
    {"role": "user", "content": " hello good film "},
]


@pytest.fixture(scope="module")
def bert():
    return small_bert(classes=2, layers=1)


@pytest.fixture(scope="module")
def chat():
    ids = {piece: number for number, piece in enumerate(MARKS + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=MARKS[4:],
        chat_template=TEMPLATE,
        model_input_names=["input_ids", "attention_mask"],
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(ids), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, pad_token_id=0,
    )  # fmt: skip
    return LlamaForSequenceClassification(config).eval(), TextProcessor(fast)


def test_messages_have_one_start_token_and_their_own_words(chat):
    model, processor = chat
    encoded = processor(messages=CHAT)
    assert encoded["input_ids"][0].tolist().count(2) == 1
    att = xai.explain(model, encoded, "generic_attention")
    (words,) = att.words()
    # "user" is a word of the first message and the name of a role: only the word counts.
    assert list(words.labels) == ["be", "kind", "user", "hello", "good", "film"]
    own = processor.tokenizer.apply_chat_template(
        CHAT, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    assert torch.equal(own["input_ids"], encoded["input_ids"])


def test_several_conversations_make_a_batch(chat):
    model, processor = chat
    encoded = processor(messages=[CHAT, [{"role": "user", "content": "bad"}]])
    first, second = xai.explain(model, encoded, "rollout").words()
    assert len(first) == 6 and list(second.labels) == ["bad"]
    parts = [{"role": "user", "content": [{"type": "text", "text": "bad"}]}]
    assert torch.equal(processor(messages=parts)["input_ids"][0], encoded["input_ids"][1][:7])


def test_a_template_that_rewrites_its_messages_still_hides_its_marks(chat, monkeypatch):
    model, processor = chat
    monkeypatch.setattr(
        processor.tokenizer, "chat_template", TEMPLATE.replace("trim", "replace('good ', '')")
    )
    (words,) = xai.explain(model, processor(messages=CHAT), "rollout").words()
    assert "film" in words.labels and not set(MARKS) & set(words.labels)


def test_a_text_that_begins_with_the_start_token_is_refused_and_the_advice_works(chat):
    model, processor = chat
    text = "<s> good film"
    with pytest.raises(InputError, match="add_special_tokens=False"):
        processor(text)
    encoded = processor(text, add_special_tokens=False)
    assert encoded["input_ids"].tolist() == [[2, 11, 12]]
    assert list(xai.explain(model, encoded, "rollout").words()[0].labels) == ["good", "film"]
    assert processor(text, add_special_tokens=True)["input_ids"].tolist() == [[2, 2, 11, 12]]


def test_an_end_that_is_typed_is_refused_too(bert):
    with pytest.raises(InputError, match=r"\[SEP\]"):
        bert[1]("good film [SEP]")
    with pytest.raises(InputError, match=r"\[CLS\]"):
        bert[1](["good", "[CLS] film"])
    assert bert[1]("[CLS] good film [SEP]", add_special_tokens=False)["input_ids"].shape == (1, 4)


@pytest.mark.parametrize("raw", [False, True])
def test_special_tokens_that_are_typed_are_no_words(bert, raw):
    model, processor = bert
    text = "good [SEP] film"
    plain = processor.tokenizer(text, return_tensors="pt")
    encoded = plain if raw else processor(text)
    att = xai.explain(model, encoded, "gradient_x_input", target=0)
    assert att.content[0].tolist() == [False, True, False, True, False]
    if not raw:
        assert list(att.words()[0].labels) == ["good", "film"]
        assert len(att.tokens(specials=True)[0]) == 5


@pytest.mark.parametrize("pad_to", [None, 24])
def test_special_tokens_of_pairs(pad_to):
    """The end token is also what CLIP calls unknown: typed it is special all the same."""
    found = pair_processor(pad_to).tokenize("a red <|endoftext|> star")
    layout = Words.of(torch.nn.Linear(1, 1), found, found["input_ids"]).layout()
    (words,) = layout.word_scores(torch.rand(found["input_ids"].shape))
    assert list(words.labels) == ["a", "red", "star"]


def test_special_tokens_in_long_texts(bert):
    model, processor = bert
    text = "good [SEP] film " + "bad plot " * 8
    att = xai.explain_long(model, processor, text, "rollout", window=10)
    assert list(att.words()[0].labels) == ["good", "film", *["bad", "plot"] * 8]
    with pytest.raises(InputError, match="leave it out"):
        xai.explain_long(model, processor, "[CLS] " + text, "rollout", window=10)


def test_an_unknown_word_counts(bert):
    model, processor = bert
    (words,) = xai.explain(model, processor("good \u263a film"), "rollout").words()
    assert len(words) == 3


@pytest.mark.parametrize(
    "messages", [[], "hello", [{"role": "user"}], [{"role": "user", "content": 3}], [[1]]]
)
def test_what_is_no_conversation(chat, messages):
    with pytest.raises(InputError):
        chat[1](messages=messages)


def test_messages_need_a_template_and_go_alone(bert, chat):
    with pytest.raises(InputError, match="chat_template"):
        bert[1](messages=CHAT)
    for options in ({"texts": "good", "messages": CHAT}, {}, {"messages": CHAT, "pairs": "good"}):
        with pytest.raises(InputError):
            chat[1](**options)
