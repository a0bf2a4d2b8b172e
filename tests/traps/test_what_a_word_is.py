"""Words: where a script has no spaces, where a person gave them, and what was taken apart."""

import pytest
import torch
from small_berts import small_bert
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

import xai_lib as xai
from xai_lib.errors import InputError
from xai_lib.models import TextProcessor
from xai_lib.streams.texts import Words
from xai_lib.streams.words import spaced_words_of, words_of

GIVEN = ["the film", "is", "n't", "bad"]


@pytest.fixture(scope="module")
def bert():
    return small_bert(classes=2, layers=1)


def cut(text):
    return [text[start:end] for start, end in words_of(text)]


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("这部Pixar电影很好。", "这|部|Pixar|电|影|很|好|。"),
        ("コンピュータは３台", "コンピュータ|は|３|台"),
        ("ภาษาไทย ไม่มี", "ภา|ษา|ไท|ย|ไม่|มี"),
        ("ພາສາລາວ", "ພາ|ສາ|ລາ|ວ"),
        ("ភាសា", "ភា|សា"),
        ("안녕하세요 세계", "안녕하세요|세계"),
        ("it's a naïve café!", "it's|a|naïve|café!"),
    ],
)
def test_units_of_scripts_with_and_without_spaces(text, units):
    assert cut(text) == units.split("|")
    assert "".join(cut(text)) == "".join(text.split())
    assert [text[a:b] for a, b in spaced_words_of(text)] == text.split()


def by_bytes():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {piece: number for number, piece in enumerate(["<pad>", "<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=True),
        processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        ),
    ])  # fmt: skip
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    return TextProcessor(
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, add_prefix_space=True, **names)
    )


def test_a_chinese_sentence_is_no_single_word():
    """Each character has the best of its own bytes' scores."""
    processor = by_bytes()
    encoded = processor("好电影")
    layout = Words.of(torch.nn.Linear(1, 1), encoded, encoded["input_ids"])
    scores = torch.arange(encoded["input_ids"].shape[1]).float()[None]
    (words,) = layout.layout().word_scores(scores)
    assert words.labels == ("好", "电", "影")
    assert words.scores[0] < words.scores[1] < words.scores[2] == scores.max() - 1


@pytest.mark.parametrize("kind", ["wordpiece", "bytes"])
def test_words_given_one_by_one_stay_apart(bert, kind):
    """Their tokens' offsets count from each word's beginning: the first one took all."""
    processor = bert[1] if kind == "wordpiece" else by_bytes()
    encoded = processor([GIVEN, ["bad"]], is_split_into_words=True)
    layout = Words.of(torch.nn.Linear(1, 1), encoded, encoded["input_ids"])
    words, other = layout.layout().word_scores(torch.rand(encoded["input_ids"].shape))
    assert list(words.labels) == GIVEN and list(other.labels) == ["bad"]
    assert [words.texts[0][a:b] for a, b in words.spans] == GIVEN


def test_the_scores_of_given_words_are_their_own_pieces(bert):
    model, processor = bert
    encoded = processor(GIVEN, is_split_into_words=True)
    att = xai.explain(model, encoded, "gradient_x_input", target=0)
    numbers = encoded.word_ids(0)
    for place, score in enumerate(att.words("sum")[0].scores):
        own = [k for k, number in enumerate(numbers) if number == place]
        torch.testing.assert_close(score, att.relevance[0, own].sum())


def test_pairs_of_given_words(bert):
    model, processor = bert
    encoded = processor([GIVEN], [["good", "plot"]], is_split_into_words=True)
    (words,) = xai.explain(model, encoded, "rollout").words()
    assert list(words.labels) == [*GIVEN, "good", "plot"]
    assert words.segments == (0, 0, 0, 0, 1, 1)


def test_a_tokenizers_own_output_of_given_words(bert):
    """Text added by hand: words by white space where they fit, else a refusal with advice."""
    model, processor = bert
    words = ["the", "film", "bad"]
    encoded = processor.tokenizer([words], is_split_into_words=True, return_tensors="pt")
    encoded.texts = ((" ".join(words),),)
    assert list(xai.explain(model, encoded, "rollout").words()[0].labels) == words
    encoded = processor.tokenizer([GIVEN], is_split_into_words=True, return_tensors="pt")
    encoded.texts = ((" ".join(GIVEN),),)
    with pytest.raises(InputError, match="is_split_into_words=True"):
        xai.explain(model, encoded, "rollout").words()


@pytest.mark.parametrize("bad", ["the film", [], [["a"], []], [[1]]])
def test_what_is_no_list_of_words(bert, bad):
    with pytest.raises(InputError):
        bert[1](bad, is_split_into_words=True)


def test_a_tokenizer_of_bytes_that_takes_no_words_says_what_to_do():
    processor = by_bytes()
    processor.tokenizer.add_prefix_space = False
    try:
        processor(["good", "film"], is_split_into_words=True)
    except InputError as error:
        assert "join" in str(error)
