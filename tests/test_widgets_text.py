"""The explorer of texts: what it computes, what its controls drive, and what it leaves behind.

As tests/test_widgets.py, it runs on ipywidgets 7.7 and 8.
"""

import io
import re
from base64 import b64decode
from html import unescape

import pytest
import torch
from figure_checks import check_legible
from PIL import Image
from scored_texts import NASTY
from small_berts import TEXTS, small_bert

import xai_lib as xai
from xai_lib.errors import InputError, OptionError, TargetError, UnsupportedModelError
from xai_lib.models import Processor
from xai_lib.plots.text.rows import printable
from xai_lib.widgets import session as session_module
from xai_lib.widgets.choice import Choice
from xai_lib.widgets.named import named_texts
from xai_lib.widgets.reading import read
from xai_lib.widgets.session import Session
from xai_lib.widgets.sources import Texts
from xai_lib.widgets.text_explorer import text_row

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = ("negative", "<b>$neutral$</b>", "positive")
TEXT, OTHER = TEXTS[0], TEXTS[1]


@pytest.fixture
def bert():
    return small_bert(classes=3, layers=3, names=NAMES, dtype=torch.float32)


@pytest.fixture
def explained(monkeypatch):
    """Return the list of (text, method, target, options) that were really computed."""
    calls = []

    def spy(model, inputs, method, target, **options):
        calls.append((inputs.texts[0][0], method, target, options))
        return xai.explain(model, inputs, method, target, **options)

    monkeypatch.setattr(session_module, "explain", spy)
    return calls


@pytest.fixture
def explorer(bert, explained):
    return xai.widgets.TextExplorer(*bert, list(TEXTS), "generic_attention")


def told(explorer):
    return unescape(explorer.controls.message.value)


def shown(explorer):
    """Return the texts of the page, pane by pane."""
    page = explorer.controls.page.value
    found = re.findall(r'<div dir="auto"[^>]*>(.*?)</div>', page, re.S)
    return [unescape(re.sub(r"<[^>]+>", "", text)) for text in found]


# -- state, without widgets


def test_names_of_texts():
    assert named_texts("a  b\nc") == {"a b c": "a  b\nc"}
    assert named_texts({"x": "one", 2: "two"}) == {"x": "one", "2": "two"}
    assert list(named_texts(["same", "same", "w" * 60])) == ["same", "same (2)", "w" * 39 + "…"]
    for wrong in ([], {}, 3, b"x", [3], {"a": None}):
        with pytest.raises(InputError, match="texts"):
            named_texts(wrong)


def test_head_rows_are_what_the_prediction_reads(bert):
    model, processor = bert
    reading = read(model, processor(TEXT))
    with torch.no_grad(), xai.trace(model) as t:
        logits = model(**processor(TEXT)).logits
    torch.testing.assert_close(reading.logits, logits[0])
    assert len(reading.heads) == 3
    for site, maps in zip(t.sites, reading.heads, strict=True):
        torch.testing.assert_close(maps, site.probs[0, :, 0])
    att = xai.explain(model, processor(TEXT), "raw_attention", layer=1)
    torch.testing.assert_close(reading.attention(1, None), att.relevance[0])


@pytest.mark.parametrize(("level", "reduce"), [("word", "max"), ("word", "sum"), ("token", "max")])
def test_rows_agree_with_explain_and_are_computed_once(bert, explained, level, reduce):
    model, processor = bert
    session = Session(model, Texts(processor, TEXT), {"steps": 3})
    choice = Choice(TEXT, "bi_head", target=2, start=1)
    row = text_row(session, choice, level, reduce, top=2)
    att = xai.explain(model, processor(TEXT), "bi_head", 2, steps=3, start_layer=1)
    (expected,) = att.words(reduce) if level == "word" else att.tokens(specials=True)
    torch.testing.assert_close(row.scores.scores, expected.scores)
    assert row.scores.labels == expected.labels and row.scores.spans == expected.spans
    assert row.title == "bi_head (steps 3, start_layer 1)" and row.target == "positive"
    assert row.probability == pytest.approx(float(att.probabilities()[0, 2]))
    text_row(session, choice, "token" if level == "word" else "word", "mean", top=3)
    assert explained == [(TEXT, "bi_head", 2, {"steps": 3, "start_layer": 1})]


def test_the_explained_class_is_among_the_bars(bert):
    session = Session(bert[0], Texts(bert[1], TEXT))
    least = session.ranked(TEXT)[-1]
    row = text_row(session, Choice(TEXT, "rollout", least), "word", "max", top=1)
    assert [name for name, _ in row.chances] == [NAMES[session.ranked(TEXT)[0]], NAMES[least]]


def test_memory_of_typed_texts_is_bounded(bert, explained, monkeypatch):
    monkeypatch.setattr(session_module, "REMEMBERED", 2)
    session = Session(bert[0], Texts(bert[1], TEXT))
    for text in ("good", "bad", "best", "best", "bad", "good"):
        session.view(Choice(text, "attn_gradcam", 1))
        assert len(session._readings) <= 2
    assert [text for text, *_ in explained] == ["good", "bad", "best", "good"]


# -- the widgets


def test_first_view_is_the_predicted_class(explorer, explained):
    assert explorer.choice == Choice(TEXT, "generic_attention")
    predicted = explorer.session.ranked(TEXT)[0]
    assert explained == [(TEXT, "generic_attention", predicted, {})]
    assert explorer.controls.target.value == predicted
    assert shown(explorer) == [TEXT] and f"P({NAMES[predicted]}) = " in told(explorer)
    assert not explorer.controls.text.continuous_update


def test_controls_drive_the_page(explorer, explained):
    controls, seen = explorer.controls, {explorer.controls.page.value}

    def new_page():
        seen.add(controls.page.value)
        return len(seen)

    controls.target.value = 2
    assert explained[-1][2] == 2 and new_page() == 2
    controls.start.value = 1
    assert explained[-1][3] == {"start_layer": 1} and new_page() == 3
    controls.method.value = "raw_attention"
    assert explained[-1][1:] == ("raw_attention", 2, {}) and new_page() == 4
    assert "same for every class" in controls.page.value
    controls.method.value = "integrated_gradients"
    assert controls.start.disabled and new_page() == 5 and "Signed: " in controls.page.value
    computed = len(explained)
    controls.layer.value = 1
    assert new_page() == 6 and not controls.head.disabled
    assert "attention of layer 1 (mean over heads)" in controls.page.value
    controls.head.value = 1
    assert new_page() == 7 and "(head 1)" in controls.page.value
    controls.level.value = "token"
    assert new_page() == 8 and "[CLS]" in shown(explorer)[0] and controls.reduce.disabled
    controls.level.value = "word"
    controls.reduce.value = "mean"
    assert new_page() == 9 and len(explained) == computed


def test_a_typed_text_is_explained_for_its_own_prediction(explorer, explained):
    controls = explorer.controls
    controls.target.value = 2
    controls.text.value = "a great   film\nbut sad"
    assert shown(explorer) == ["a great   film\nbut sad"] and controls.example.value is None
    assert explorer.choice.target is None
    assert explained[-1][0] == "a great   film\nbut sad"
    controls.example.value = OTHER
    assert controls.text.value == OTHER and shown(explorer) == [OTHER]
    before = len(explained)
    controls.text.value = TEXT
    assert controls.example.value == TEXT and len(explained) == before + (
        explorer.session.target(explorer.choice) not in {t for x, _, t, _ in explained if x == TEXT}
    )


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("good " * 100, r"has 102 tokens, the model takes 64\. Explain it in windows"),
    ],
)
@pytest.mark.parametrize("control", ["text", "second"])
def test_a_bad_text_is_one_sentence_and_loses_nothing(explorer, text, match, control):
    explorer.controls.layer.value = 1
    explorer.controls.second.value = "good"
    choice, page = explorer.choice, explorer.controls.page.value
    getattr(explorer.controls, control).value = text
    if control == "second" and not text.strip():
        # No second text is none to compare with.
        assert len(explorer.panes()) == 1 and "empty" not in told(explorer)
        return
    assert re.search(match, told(explorer)) and "Traceback" not in told(explorer)
    assert explorer.choice == choice and explorer.controls.page.value == page
    getattr(explorer.controls, control).value = OTHER
    assert OTHER in shown(explorer) and not re.search(match, told(explorer))


def test_two_texts_and_two_methods_side_by_side(explorer, explained):
    controls = explorer.controls
    controls.second.value = OTHER
    assert shown(explorer) == [TEXT, OTHER]
    controls.other.value = "lrp"
    assert shown(explorer) == [TEXT, OTHER, TEXT, OTHER]
    assert {(text, method) for text, method, *_ in explained} == {
        (text, method) for text in (TEXT, OTHER) for method in ("generic_attention", "lrp")
    }
    # Each text for its own predicted class, until one is chosen for all.
    for text, _, target, _ in explained:
        assert target == explorer.session.ranked(text)[0]
    controls.target.value = 1
    assert [row.target for row in explorer.rows()] == [NAMES[1]] * 4
    assert {target for *_, target, _ in explained[4:]} == {1}
    controls.layer.value = 0
    titles = [row.title for row in explorer.rows()]
    assert titles == ["attention of layer 0 (mean over heads)"] * 2 + ["lrp"] * 2
    assert [pane.source for pane in explorer.panes()] == [TEXT, OTHER] * 2
    assert "grid-template-columns:repeat(2," in controls.page.value
    controls.second.value, controls.other.value = "", None
    assert shown(explorer) == [TEXT]


def test_classes_are_searched(explorer):
    explorer.controls.search.value = "nowhere"
    assert "No class" in told(explorer) and explorer.controls.target.options == ()
    explorer.controls.search.value = "POS"
    assert [value for _, value in explorer.controls.target.options] == [2]


def test_refused_method_is_a_sentence_and_others_go_on(explorer, monkeypatch):
    def refusing(model, inputs, method, target, **options):
        if method == "lrp":
            raise xai.errors.MethodNotApplicableError("No rule for <this> layer.")
        return xai.explain(model, inputs, method, target, **options)

    monkeypatch.setattr(session_module, "explain", refusing)
    explorer.controls.method.value = "lrp"
    assert told(explorer).endswith("No rule for <this> layer.</span>")
    assert shown(explorer) == ["No rule for <this> layer."] and explorer.figure() is not None
    explorer.controls.method.value = "rollout"
    assert shown(explorer) == [TEXT] and "No rule" not in told(explorer)


def test_unexpected_error_is_told_and_raised(explorer, monkeypatch):
    page = explorer.controls.page.value

    def broken(*_, **__):
        raise ZeroDivisionError("<deliberate>")

    monkeypatch.setattr(session_module, "explain", broken)
    with pytest.raises(ZeroDivisionError):
        explorer.controls.method.value = "rollout"
    assert "ZeroDivisionError: <deliberate>" in told(explorer)
    assert explorer.controls.page.value == page


def test_markup_is_text_everywhere(explorer):
    explorer.controls.text.value = NASTY[:90] + " </div><script>alert(1)</script>"
    explorer.controls.target.value = 1
    page, message = explorer.controls.page.value, explorer.controls.message.value
    assert not re.search(r"<(script|b>\$|i>)", page) and "<b>$" not in message
    assert "<script" not in message and shown(explorer)[0] == printable(explorer.choice.source)
    assert NAMES[1] in unescape(page)


def test_figure_is_legible(explorer):
    explorer.controls.second.value = OTHER
    explorer.controls.other.value = "integrated_gradients"
    for level in ("word", "token"):
        explorer.controls.level.value = level
        check_legible(explorer.figure())


def test_bundle_has_the_widget_and_a_static_picture(explorer):
    data, metadata = explorer._repr_mimebundle_()
    image = Image.open(io.BytesIO(b64decode(data["image/png"])))
    size = metadata["image/png"]
    assert (
        image.width > 700
        and abs(image.width / image.height - size["width"] / size["height"]) < 0.05
    )
    assert data["text/plain"].startswith("TextExplorer: this movie was")
    view = data["application/vnd.jupyter.widget-view+json"]
    assert view["model_id"] == explorer.box.model_id and not hasattr(explorer, "_ipython_display_")


def test_what_is_asked_for_first(bert):
    explorer = xai.widgets.TextExplorer(
        *bert, {"mine": OTHER}, "transformer_attribution", "positive", level="token", top=1,
        start_layer=1,
    )  # fmt: skip
    assert explorer.choice == Choice(OTHER, "transformer_attribution", 2, 1)
    assert explorer.controls.level.value == "token" and explorer.controls.start.value == 1
    assert "[SEP]" in shown(explorer)[0]


@pytest.mark.parametrize(
    ("error", "match", "arguments"),
    [
        (OptionError, "Did you mean 'rollout'", {"method": "rolout"}),
        (OptionError, "Unknown option of 'rollout'", {"method": "rollout", "steps": 3}),
        (OptionError, "top is 0", {"top": 0}),
        (OptionError, "Did you mean 'word'", {"level": "words"}),
        (TargetError, "has 3 classes", {"target": 3}),
        (InputError, "texts is list and empty", {"texts": []}),
        (InputError, "is empty", {"texts": ["good", " "]}),
    ],
)
def test_bad_arguments(bert, error, match, arguments):
    with pytest.raises(error, match=match):
        xai.widgets.TextExplorer(*bert, **{"texts": TEXT} | arguments)


def test_other_processors_are_named(bert):
    model, processor = bert
    for other in (processor.tokenizer, Processor((8, 8), (0,) * 3, (1,) * 3)):
        with pytest.raises(InputError, match=f"{type(other).__name__}; expected a TextProcessor"):
            xai.widgets.TextExplorer(model, other, TEXT)


def test_model_without_attention(bert):
    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(200, 3)

        def forward(self, input_ids, attention_mask=None):
            return self.table(input_ids).mean(1)

    with pytest.raises(UnsupportedModelError, match="no attention"):
        xai.widgets.TextExplorer(Plain(), bert[1], TEXT)


def test_model_is_given_back(explorer):
    model = explorer.session.model.train()
    explorer.controls.method.value = "attn_gradcam"
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())
