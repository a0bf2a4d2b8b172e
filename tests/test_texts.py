"""Texts: words and tokens with exact characters, padding, windows, and inputs that are refused."""

import gc
import re

import pytest
import torch
from small_berts import TEXTS, small_bert
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

import xai_lib as xai
from xai_lib.errors import InputError, MethodNotApplicableError, OptionError, UnsupportedModelError
from xai_lib.long_texts import _cut
from xai_lib.models import TextProcessor
from xai_lib.streams.texts import TextLayout
from xai_lib.streams.words import words_of

pytestmark = pytest.mark.usefixtures("one_thread")

METHODS = tuple(xai.methods()["name"])
ODD_TEXTS = (
    "plain words, and punctuation!",
    "unknown \u4e2d\u6587 \u732b words",
    "smile \U0001f600\U0001f600 family \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "flags \U0001f1e9\U0001f1ea",
    "caf\u00e9 cafe\u0301 na\u00efve e\u0301\u0323x",
    "\u0647\u0630\u0627 \u0641\u064a\u0644\u0645 \u062c\u064a\u062f \u05e9\u05dc\u05d5\u05dd good",
    "  spaces \t and\nlines\u00a0here \u3000wide ",
    "<b>html</b> & \\textbf{latex} $x_1$ %",
)


@pytest.fixture(scope="module")
def bert():
    model, processor = small_bert(classes=3, layers=3)
    return model.double(), processor


def byte_level(texts):
    """Return a GPT-2-like tokenizer, whose tokens are bytes: emoji become several of them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {piece: number for number, piece in enumerate(["<pad>", "<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return TextProcessor(
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
        )
    )


def layout_of(processor, texts):
    encoded = processor(list(texts))
    special = torch.tensor([e.special_tokens_mask for e in encoded.encodings]).bool()
    present = encoded["attention_mask"].bool()
    return TextLayout.of(
        encoded["input_ids"], present, special, tuple(encoded.encodings), encoded.texts
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_padded_batch_equals_its_samples(bert, method):
    model, processor = bert
    batch = xai.explain(model, processor(list(TEXTS)), method, target=1)
    assert not batch.relevance[~batch.layout.present].any()
    assert batch.relevance.abs().max() > 0
    for i, text in enumerate(TEXTS):
        alone = xai.explain(model, processor(text), method, target=1).relevance[0]
        found = batch.relevance[i, : len(alone)]
        torch.testing.assert_close(
            found, alone, rtol=0, atol=1e-10 * float(batch.relevance.abs().max())
        )


@pytest.mark.parametrize("make", ("wordpiece", "bytes"))
@pytest.mark.parametrize("text", ODD_TEXTS)
def test_every_word_has_its_exact_characters(bert, make, text):
    processor = bert[1] if make == "wordpiece" else byte_level(ODD_TEXTS)
    layout = layout_of(processor, [text, "another one that pads the batch"])
    relevance = torch.rand(2, layout.tokens)
    (words, _) = layout.word_scores(relevance)
    assert words.texts == (text,)
    assert list(words.labels) == [text[a:b] for a, b in words_of(text)]
    assert "".join(words.labels) == "".join(text.split())
    assert [text[a:b] for a, b in words.spans] == list(words.labels)
    # The oracle gives every character its tokens' scores and takes the best of a word's.
    (tokens, _) = layout.token_scores(relevance)
    for (start, end), score in zip(words.spans, words.scores, strict=True):
        inside = [
            s
            for (a, b), s in zip(tokens.spans, tokens.scores, strict=True)
            if max(a, start) < min(b, end)
        ]
        assert score == max(inside)


def test_word_scores_take_max_sum_or_mean_of_their_pieces(bert):
    model, processor = bert
    text = "wonderful acting bores"
    att = xai.explain(model, processor(text), "attnlrp", targets=[0, 2])
    (tokens,) = att.tokens()
    owner = [text[:start].count(" ") for start, _ in tokens.spans]
    assert len(owner) > 3 and tokens.scores.shape == (2, len(owner))
    for reduce, function in (("max", max), ("sum", sum), ("mean", lambda x: sum(x) / len(x))):
        (words,) = att.words(reduce)
        for target in (0, 1):
            scores = tokens.scores[target].tolist()
            expected = [
                function([s for s, o in zip(scores, owner, strict=True) if o == n])
                for n in range(3)
            ]
            assert words.scores[target].tolist() == pytest.approx(expected, abs=1e-12)
    with pytest.raises(OptionError, match=r"max, mean, sum"):
        att.words("median")


def test_special_tokens_are_shown_when_asked_for(bert):
    model, processor = bert
    att = xai.explain(model, processor(["good film", "bad"]), "attnlrp")
    plain, special = att.tokens(), att.tokens(specials=True)
    assert special[0].labels == ("[CLS]", "good", "film", "[SEP]")
    assert plain[0].labels == ("good", "film")
    assert special[1].labels[0] == "[CLS]" and special[1].labels[-1] == "[SEP]"
    assert not att.content[:, 0].any() and att.stream == "text"
    assert special[0].spans[0] == (0, 0)


def test_pairs_know_which_text_a_word_is_of(bert):
    model, processor = bert
    att = xai.explain(model, processor("good film", "bad plot"), "attnlrp")
    (words,) = att.words()
    assert words.labels == ("good", "film", "bad", "plot") and words.segments == (0, 0, 1, 1)
    assert [words.texts[s][a:b] for s, (a, b) in zip(words.segments, words.spans, strict=True)] == [
        *words.labels
    ]


def test_a_plain_tokenizer_output_is_explained_and_has_tokens_but_no_words(bert):
    model, processor = bert
    plain = processor.tokenizer(list(TEXTS), return_tensors="pt", padding=True)
    att = xai.explain(model, plain, "attnlrp", target=1)
    same = xai.explain(model, processor(list(TEXTS)), "attnlrp", target=1)
    assert torch.equal(att.relevance, same.relevance) and torch.equal(att.content, same.content)
    with pytest.raises(InputError, match="TextProcessor"):
        att.words()
    ids = xai.explain(model, {"input_ids": plain["input_ids"][:1]}, "attnlrp", target=1)
    assert ids.content.all()


def with_first_rows_swapped(inputs):
    inputs["input_ids"] = inputs["input_ids"][[1, 0, 2, 3]]
    inputs["attention_mask"] = inputs["attention_mask"][[1, 0, 2, 3]]


def with_another_token(inputs):
    inputs["input_ids"][0, 3] = 4


@pytest.mark.parametrize("edit", (with_first_rows_swapped, with_another_token))
def test_inputs_edited_after_tokenizing_do_not_show_the_words_they_had(bert, edit):
    model, processor = bert
    inputs = processor(list(TEXTS))
    edit(inputs)
    att = xai.explain(model, inputs, "generic_attention", target=1)
    with pytest.raises(InputError, match="tokenize"):
        att.words()
    # Where the tokens that the tokenizer added still stand, they are known as such.
    known = edit is with_another_token
    assert att.content[:, 0].any() == (not known)


def test_a_token_hidden_by_the_mask_leaves_the_others_their_characters(bert):
    model, processor = bert
    inputs = processor(list(TEXTS))
    inputs["attention_mask"][0, 3] = 0
    att = xai.explain(model, inputs, "generic_attention", target=1)
    tokens, whole = att.tokens()[0], xai.explain(model, processor(TEXTS[0])).tokens()[0]
    assert tokens.labels == (*whole.labels[:2], *whole.labels[3:])
    assert tokens.spans == (*whole.spans[:2], *whole.spans[3:])
    assert torch.equal(tokens.scores, torch.cat([att.relevance[0, 1:3], att.relevance[0, 4:15]]))


def test_padding_without_a_mask_is_special_and_no_word(bert):
    model, processor = bert
    inputs = processor(list(TEXTS))
    del inputs["attention_mask"]
    for text, words in zip(TEXTS, xai.explain(model, inputs, "rollout").words(), strict=True):
        assert list(words.labels) == text.split()


def test_first_token_is_kept_zeroed_or_the_least(bert):
    model, processor = bert
    inputs = processor(list(TEXTS))
    kept = xai.explain(model, inputs, "generic_attention", target=1).relevance
    zero = xai.explain(model, inputs, "generic_attention", target=1, first_token="zero").relevance
    least = xai.explain(model, inputs, "generic_attention", target=1, first_token="min").relevance
    assert kept[:, 0].min() > 0 and not zero[:, 0].any()
    # The least of the text's own tokens: padding, which has 0, is none of them.
    alone = torch.stack([row[row != 0].min() for row in kept])
    assert torch.equal(least[:, 0], alone) and alone.min() > 0
    assert torch.equal(zero[:, 1:], kept[:, 1:]) and torch.equal(least[:, 1:], kept[:, 1:])
    with pytest.raises(OptionError, match="keep, min, zero"):
        xai.explain(model, inputs, "rollout", first_token="drop")


@pytest.mark.parametrize("suffix", (".html", ".tex", ".png", ".safetensors"))
def test_a_text_is_shown_and_saved(bert, tmp_path, suffix):
    model, processor = bert
    att = xai.explain(
        model, processor(["a <script>good</script> film", "bad plot"]), "attnlrp", target=1
    )
    assert {"text/html", "image/png"} <= set(att.show()._repr_mimebundle_()[0])
    path = att.save(tmp_path / f"texts{suffix}")
    assert path.stat().st_size > 100 and [*tmp_path.iterdir()] == [path]
    if suffix == ".html":
        assert "<script" not in path.read_text() and "&lt;script&gt;good" in path.read_text()
    with pytest.raises(OptionError, match=r"\.tex"):
        att.save(tmp_path / "texts.docx")


# -- windows -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ("generic_attention", "gradient_x_input", "random"))
def test_a_text_that_fits_is_explained_as_always(bert, method):
    model, processor = bert
    long = xai.explain_long(model, processor, list(TEXTS), method, target=1)
    short = xai.explain(model, processor(list(TEXTS)), method, target=1)
    torch.testing.assert_close(long.relevance, short.relevance, rtol=0, atol=1e-12)
    torch.testing.assert_close(long.logits, short.logits, rtol=0, atol=1e-12)
    assert [w.labels for w in long.words()] == [w.labels for w in short.words()]


@pytest.mark.parametrize("merge", ("mean", "max", "sum"))
@pytest.mark.parametrize("overlap", (0, 3, 7))
def test_windows_are_the_slices_of_the_document(bert, merge, overlap):
    """Against windows cut by hand, each explained alone, and collected token by token."""
    model, processor = bert
    text = " ".join(TEXTS) + " unbelievable " + " ".join(TEXTS)
    att = xai.explain_long(
        model, processor, text, "attnlrp", window=16, overlap=overlap, merge=merge, batch_size=3
    )
    ids = processor.tokenizer(text, verbose=False)["input_ids"]
    cls, *content, sep = ids
    step, starts = 14 - overlap, [0]
    while starts[-1] + 14 < len(content):
        starts.append(starts[-1] + step)
    parts = [torch.tensor([[cls, *content[s : s + 14], sep]]) for s in starts]
    assert len(parts) > 2
    with torch.no_grad():
        logits = torch.stack([model(input_ids=part).logits[0] for part in parts]).mean(0)
    torch.testing.assert_close(att.logits[0], logits, rtol=0, atol=1e-12)
    assert int(att.target) == int(logits.argmax())
    collected = [[] for _ in ids]
    for start, part in zip(starts, parts, strict=True):
        scores = xai.explain(model, {"input_ids": part}, "attnlrp", target=int(att.target))
        first, *middle, last = scores.relevance[0].tolist()
        collected[0].append(first)
        collected[-1].append(last)
        for offset, score in enumerate(middle):
            collected[1 + start + offset].append(score)
    divide = {"mean": len, "sum": lambda x: len(parts), "max": None}[merge]
    expected = [max(x) if merge == "max" else sum(x) / divide(x) for x in collected]
    assert att.relevance[0].tolist() == pytest.approx(expected, abs=1e-12)
    assert list(att.words()[0].labels) == text.split()


def test_windows_of_a_tokenizer_that_cuts_at_the_left():
    _, processor = small_bert()
    text = " ".join(TEXTS) + " unbelievable " + " ".join(TEXTS)
    processor.tokenizer.truncation_side = "left"
    _, windows = _cut(processor.tokenizer, text, 0, 16, 3)
    ids = processor.tokenizer(text, verbose=False)["input_ids"]
    for window in windows:
        assert [ids[place] for place in window.places] == window.encoding.ids
    assert {place for window in windows for place in window.places} == set(range(len(ids)))


@pytest.mark.parametrize(
    "options, words",
    (
        ({"window": 2}, ("window is 2", "special ones included")),
        ({"window": 65}, ("window is 65", "to 64")),
        ({"overlap": 62}, ("overlap is 62", "to 61")),
        ({"merge": "last"}, ("'last'", "max, mean, sum")),
        ({"targets": [0, 1]}, ("one target a text",)),
    ),
)
def test_windows_that_cannot_be(bert, options, words):
    with pytest.raises(OptionError) as error:
        xai.explain_long(*bert, "good film", "attnlrp", **options)
    assert all(word in str(error.value) for word in words)
    with pytest.raises(InputError, match=r"texts\[1\]"):
        xai.explain_long(*bert, ["good film", " "], "attnlrp")
    with pytest.raises(InputError, match="texts"):
        xai.explain_long(*bert, [], "attnlrp")


# -- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "texts, words",
    (
        ("", ("texts[0] is empty",)),
        (["good", " \n"], ("texts[1] is empty",)),
        ([], ("expected a text or a list",)),
        (b"good", ("expected a text",)),
        ([b"good"], ("texts[0] is bytes", "decode")),
        ([3], ("texts[0] is int",)),
        ("half \ud83d", ("lone surrogate", "UTF-8")),
        ("[CLS] [SEP]", ("only special tokens",)),
        ("film " * 70, ("72 tokens", "takes 64", "xai.explain_long", "truncate=True")),
    ),
)
def test_texts_that_cannot_be_explained(bert, texts, words):
    with pytest.raises(InputError) as error:
        bert[1](texts)
    assert all(word in str(error.value) for word in words), error.value


def test_a_long_text_is_cut_only_when_asked_to(bert):
    model, processor = bert
    cut = processor("film " * 70 + "end", truncate=True)
    assert cut["input_ids"].shape == (1, 64)
    words = xai.explain(model, cut, "attnlrp").words()[0]
    assert words.labels == ("film",) * 62  # what was cut off has no score


@pytest.mark.parametrize(
    "spoil, words",
    (
        (lambda x: {"input_ids": x["input_ids"].float()}, ("torch.float32", "integers")),
        (lambda x: {"input_ids": x["input_ids"][0]}, ("(16,)", "(batch, tokens)")),
        (lambda x: {"input_ids": x["input_ids"][:, :0]}, ("empty",)),
        (lambda x: {"input_ids": x["input_ids"] + 500}, ("vocabulary", "another model")),
        (lambda x: {"input_ids": -x["input_ids"]}, ("-", "vocabulary")),
        (
            lambda x: x.data | {"attention_mask": x["attention_mask"][:, :3]},
            ("(4, 3)", "(4, 16)"),
        ),
        (lambda x: x.data | {"attention_mask": x["attention_mask"] * 2}, ("1 for tokens",)),
        (lambda x: x.data | {"attention_mask": x["attention_mask"] * 0}, ("empty text",)),
        (lambda x: torch.zeros(1, 3, 8, 8), ("'input_ids'", "'pixel_values'")),
        (
            lambda x: x.data | {"special_tokens_mask": torch.ones_like(x["input_ids"])},
            ("Text 0", "only special tokens"),
        ),
        (lambda x: {"input_ids": x["input_ids"].repeat(1, 8)}, ("128 tokens", "explain_long")),
    ),
)
def test_inputs_that_cannot_be_explained(bert, spoil, words):
    model, processor = bert
    with pytest.raises(InputError) as error:
        xai.explain(model, spoil(processor(list(TEXTS))), "attnlrp")
    assert all(re.search(re.escape(word), str(error.value)) for word in words), error.value


def test_what_belongs_to_images_says_so(bert):
    model, processor = bert
    att = xai.explain(model, processor("good film"), "attnlrp")
    with pytest.raises(MethodNotApplicableError, match=r"att\.words"):
        att.heatmap()
    with pytest.raises(OptionError, match="baseline"):
        xai.explain(model, processor("good film"), "integrated_gradients", baseline="[PAD]")


def test_a_tokenizer_that_is_not_fast_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(InputError, match="AutoTokenizer"):
        TextProcessor(Slow())


def test_a_model_that_counts_positions_from_the_padding_is_padded_at_the_right(tmp_path):
    model, processor = small_bert()
    processor.tokenizer.padding_side = "left"
    for part in (model, processor.tokenizer):
        part.save_pretrained(tmp_path)
    loaded, processor = xai.load(tmp_path)
    batch = xai.explain(loaded, processor(list(TEXTS)), "attnlrp", target=1)
    alone = xai.explain(loaded, processor(TEXTS[3]), "attnlrp", target=1)
    torch.testing.assert_close(batch.logits[3:], alone.logits, rtol=0, atol=1e-5)
    assert processor.tokenizer.padding_side == "right"


def test_a_batch_needs_a_padding_token():
    processor = byte_level(ODD_TEXTS)
    processor.tokenizer.pad_token = None
    assert processor("good")["input_ids"].shape == (1, 6)
    with pytest.raises(InputError, match="pad_token"):
        processor(["good", "better"])


def test_a_model_without_attention_is_refused():
    class Bag(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.EmbeddingBag(100, 3)

        def forward(self, input_ids):
            return self.table(input_ids)

    with pytest.raises(UnsupportedModelError, match="attention"):
        xai.explain(Bag(), {"input_ids": torch.tensor([[1, 2]])}, "attnlrp")


# -- memory --------------------------------------------------------------------------------------


def live_tensors():
    gc.collect()
    return sum(type(thing) is torch.Tensor for thing in gc.get_objects())


@pytest.fixture
def only_new_objects():
    """Let the collector see what a test makes alone: the libraries have a million objects."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("only_new_objects")
@pytest.mark.parametrize("method", METHODS)
def test_nothing_outlives_an_explanation(bert, method):
    """A tensor whose attributes lead back to itself is kept by its graph, and with it the graph."""
    model, processor = bert
    xai.explain(model, processor(TEXTS[0]), method, target=1)
    before = live_tensors()
    for text in TEXTS[:3]:
        xai.explain(model, processor(text), method, target=1)
    assert live_tensors() <= before
