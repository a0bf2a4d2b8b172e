"""The explorers of images with texts, of questions, and of heads: what is shown is xai.explain's.

As tests/test_widgets.py, it runs on ipywidgets 7.7 and 8.
"""

import re
from base64 import b64decode
from html import unescape

import pytest
import torch
from asking_models import ANSWERS, KINDS, question_samples, question_world
from small_berts import TEXTS as REVIEWS
from small_berts import small_bert
from small_clips import TEXTS, pair_processor, random_clip
from small_vits import random_vit

import xai_lib as xai
from xai_lib.errors import InputError, OptionError, TargetError
from xai_lib.models import Processor
from xai_lib.widgets import session as session_module

pytestmark = pytest.mark.usefixtures("one_thread")
IMAGES = {"<i>one": question_samples()[0].image, "two": question_samples()[1].image}


def told(explorer):
    return unescape(explorer.controls.message.value)


@pytest.fixture
def explained(monkeypatch):
    """Return the list of (method, target) that were really computed."""
    calls = []

    def spy(model, inputs, method, target, **options):
        calls.append((method, target))
        return xai.explain(model, inputs, method, target, **options)

    monkeypatch.setattr(session_module, "explain", spy)
    return calls


@pytest.fixture
def clip(explained):
    model, processor = random_clip(), pair_processor()
    return xai.widgets.CLIPExplorer(model, processor, IMAGES, TEXTS, "generic_attention")


@pytest.fixture(params=KINDS)
def vqa(request, explained):
    model, processor = question_world(request.param)
    return xai.widgets.VQAExplorer(model, processor, question_samples())


# -- images with texts


def test_clip_shows_the_text_that_fits_best_with_all_scores(clip, explained):
    session = clip.session
    inputs = session.processor([IMAGES["<i>one"]], TEXTS)
    with torch.no_grad():
        chances = session.model(**inputs).logits_per_image[0].softmax(-1)
    best = int(chances.argmax())
    assert explained == [("generic_attention", best)]
    (row,) = clip.rows()
    assert dict(row.chances) == pytest.approx(dict(zip(TEXTS, chances.tolist(), strict=True)))
    att = xai.explain(session.model, inputs, "generic_attention", best)
    torch.testing.assert_close(row.scores.scores, att.words()[0].scores)
    assert [panel.title for panel in clip.panels()] == ["input", "A"]
    assert clip.panels()[1].high == pytest.approx(float(att.heatmap().max()))
    assert "<i>" not in clip.controls.message.value and f"P({TEXTS[best]})" in told(clip)


def test_clip_contrasts_two_texts_and_mixes_their_maps(clip, explained):
    a = clip.session.target(clip.choice)
    b = next(value for _, value in clip.controls.against.options if value is not None)
    assert clip.controls.mix.disabled
    clip.controls.against.value = b
    assert explained[1:] == [("generic_attention", b), ("generic_attention", (a, b))]
    assert not clip.controls.mix.disabled
    assert [p.title for p in clip.panels()][1:] == ["A", "B", "A − B", "100% A + 0% B"]
    before = clip.controls.picture.value
    clip.controls.mix.value = 0.5
    assert clip.controls.picture.value != before and len(explained) == 3
    inputs = clip.session.processor([IMAGES["<i>one"]], TEXTS)
    model = clip.session.model
    maps = [xai.explain(model, inputs, "generic_attention", t).heatmap() for t in (a, b, (a, b))]
    highs = [panel.high for panel in clip.panels()[1:]]
    mixed = (maps[0] + maps[1]) / 2
    assert highs == pytest.approx([float(m.abs().max()) for m in (*maps, mixed)])
    assert [row.title for row in clip.rows()] == ["A", "B", "A − B: A", "A − B: B"]
    # The text that is compared with cannot be the one that is explained.
    clip.controls.target.value = b
    assert clip.choice.against is None and clip.controls.against.value is None


def test_clip_texts_images_and_methods_change(clip, explained):
    clip.controls.texts.value = "a red star\n\n  <b>ring</b>  \n"
    assert clip.choice.source.texts == ("a red star", "<b>ring</b>")
    assert len(clip.controls.target.options) == 2 and "<b>ring" not in clip.controls.page.value
    clip.controls.image.value = "two"
    clip.controls.method.value = "raw_attention"
    clip.controls.target.value = 1
    # No score changes this map, but each text has one of its own.
    first = clip.rows()[0].scores.texts
    clip.controls.target.value = 0
    assert {first, clip.rows()[0].scores.texts} == {("a red star",), ("<b>ring</b>",)}
    choice = clip.choice
    clip.controls.texts.value = "   "
    assert "There is no text to score" in told(clip) and clip.choice == choice
    clip.controls.texts.value = "star " * 60
    assert "tokens" in told(clip) and clip.choice == choice
    clip.controls.search.value = "nowhere"
    assert "No class has 'nowhere'" in told(clip)


def test_clip_bad_arguments():
    model, processor = random_clip(), pair_processor()
    make = xai.widgets.CLIPExplorer
    for error, says, changes in (
        (InputError, "expected a PairProcessor", {"processor": processor.images}),
        (InputError, "There is no text", {"texts": ""}),
        (InputError, "no image to explore", {"images": {}}),
        (TargetError, "'moon' is none of the texts", {"target": "moon"}),
        (TargetError, "the explained text itself", {"target": 1, "against": 1}),
        (OptionError, "Did you mean 'rollout'", {"method": "rolout"}),
        (OptionError, "opacity is 3", {"opacity": 3}),
    ):
        given = {"processor": processor, "images": IMAGES, "texts": TEXTS} | changes
        with pytest.raises(error, match=says):
            make(model, **given)


# -- questions


def test_vqa_shows_the_explanation_of_the_predicted_answer(vqa, explained):
    model, processor = vqa.session.model, vqa.session.processor
    att = xai.explain(model, processor.of(question_samples()[0]), "generic_attention")
    best = int(att.target[0])
    assert explained == [("generic_attention", best)]
    (row,) = vqa.rows()
    torch.testing.assert_close(row.scores.scores, att.words()[0].scores)
    shown = {ANSWERS[i]: float(p) for i, p in enumerate(att.probabilities()[0])}
    assert dict(row.chances) == pytest.approx(shown)
    (panel,) = vqa.panels()
    assert panel.high == pytest.approx(float(att.streams["image"].abs().max()))
    listed = [label.rsplit("  ", 1)[0] for label, _ in vqa.controls.target.options]
    assert listed == sorted(ANSWERS, key=lambda a: -shown[a])
    assert "<b>$blue" not in vqa.controls.page.value + vqa.controls.message.value


def test_vqa_explains_other_answers_questions_and_images(vqa, explained):
    worst = vqa.controls.target.options[-1][1]
    vqa.controls.target.value = worst
    assert explained[-1] == ("generic_attention", worst)
    vqa.controls.question.value = "is the ring left ?"
    assert vqa.rows()[0].scores.texts == ("is the ring left ?",) and vqa.choice.target is None
    assert vqa.choice.source.sample == "<i>question 0"
    seen, count = {vqa.controls.picture.value}, len(explained)
    for control, value in (("mode", "masked"), ("ranks", 0)):
        getattr(vqa.controls, control).value = value
        assert vqa.controls.picture.value not in seen
        seen.add(vqa.controls.picture.value)
    vqa.controls.level.value = "token"
    assert "[CLS]" in vqa.controls.page.value and len(explained) == count
    vqa.controls.sample.value = "<i>question 1"
    assert vqa.controls.question.value == question_samples()[1].question
    assert vqa.rows()[0].scores.texts == (question_samples()[1].question,)
    choice = vqa.choice
    vqa.controls.question.value = "what " * 30
    assert "ask it in fewer words" in told(vqa) and vqa.choice == choice


def test_vqa_refusals_are_told_and_nothing_stale_is_shown(explained):
    model, processor = question_world("lxmert")
    vqa = xai.widgets.VQAExplorer(model, processor, question_samples())
    vqa.controls.method.value = "bi_head"
    if "streams" in told(vqa):
        assert vqa.rows() == [] and vqa.controls.page.value == ""
        assert [panel.title for panel in vqa.panels()] == ["input"]
    vqa.controls.method.value = "rollout"
    assert "rollout, the same for every class" in told(vqa) and len(vqa.rows()) == 1
    for error, says, changes in (
        (InputError, "expected a QuestionProcessor", {"processor": None}),
        (InputError, "no question to explore", {"samples": []}),
        (InputError, "expected QuestionSamples", {"samples": ["what ?"]}),
        (TargetError, "moon", {"target": "moon"}),
        (OptionError, "top is 0", {"top": 0}),
    ):
        given = {"processor": processor, "samples": question_samples()} | changes
        with pytest.raises(error, match=says):
            xai.widgets.VQAExplorer(model, **given)


# -- heads


def of_kind(kind):
    """Return model, processor, samples and the inputs of the first."""
    if kind == "vit":
        names = ("cat", "dog", "bird", "fish")
        model, processor = (
            random_vit(dtype=torch.float32, depth=3),
            Processor((16, 16), (0.5,) * 3, (0.5,) * 3, names),
        )
        return model, processor, IMAGES, processor(IMAGES["<i>one"])
    if kind == "bert":
        model, processor = small_bert(classes=3, dtype=torch.float32)
        return model, processor, list(REVIEWS), processor(REVIEWS[0])
    model, processor = question_world(kind)
    samples = question_samples()
    return model, processor, samples, processor.of(samples[0])


@pytest.mark.parametrize("kind", ["vit", "bert", *KINDS])
def test_heads_are_pruned_by_slider_by_click_and_restored(kind, explained):
    model, processor, samples, inputs = of_kind(kind)
    heads = xai.widgets.HeadExplorer(model, processor, samples)
    scores = xai.head_scores(model, inputs)
    target = int(scores.target[0, 0])
    assert explained == [("generic_attention", target)] and not heads.choice.pruned
    assert set(heads.grid.buttons) == {(s.call, h) for s in scores.sites for h in range(s.heads)}
    heads.controls.fraction.value = 0.5
    mask = scores.mask(0.5, "negative", per_sample=True)
    expected = {
        (call, head)
        for call, row in mask.keep.items()
        for head in (row[0] == 0).nonzero()[:, 0].tolist()
    }
    assert heads.choice.pruned == expected
    marked = {place for place, b in heads.grid.buttons.items() if b.description.startswith("✕")}
    assert marked == expected
    head = min(set(heads.ranked.heads(heads.choice)) - expected)
    heads.grid.buttons[head].click()
    assert heads.choice.pruned == expected | {head} and heads.choice.fraction is None
    assert heads.grid.buttons[head].description == f"✕ {head[1]}"
    assert "pruned, click to restore" in heads.grid.buttons[head].tooltip
    with xai.prune_heads(model, heads.mask()):
        att = xai.explain(model, inputs, "generic_attention", target)
    view = heads.session.view(heads.choice)
    torch.testing.assert_close(view.att.relevance, att.relevance)
    chance = float(att.probabilities()[0, target])
    assert f"{len(expected) + 1} of {len(heads.ranked.heads(heads.choice))} heads" in told(heads)
    assert "by hand" in told(heads) and f"= {chance:.1%}" in told(heads)
    heads.grid.buttons[head].click()
    assert heads.choice.pruned == expected
    heads.controls.restore.click()
    assert not heads.choice.pruned and heads.controls.fraction.value == 0
    assert [p.title for p in heads.panels()][-1] == "probability"
    # The model is whole again, whatever was pruned.
    torch.testing.assert_close(
        xai.explain(model, inputs, "generic_attention").logits, scores.logits
    )


def test_colours_follow_the_score_and_the_last_head_stays(explained):
    model, processor, samples, inputs = of_kind("bert")
    heads = xai.widgets.HeadExplorer(model, processor, samples, order="positive")
    scores = xai.head_scores(model, inputs)
    values = dict(zip(heads.grid.buttons, scores.values[0].tolist(), strict=True))
    strongest = max(values, key=lambda place: abs(values[place]))
    colour = heads.grid.buttons[strongest].style.button_color
    red, blue = int(colour[1:3], 16), int(colour[5:7], 16)
    assert red > blue if values[strongest] > 0 else blue > red
    heads.controls.score.value = "taylor"
    assert heads.grid.buttons[strongest].tooltip.startswith("text ")
    heads.controls.fraction.value = 0.75
    (last,) = heads.ranked.heads(heads.choice) - heads.choice.pruned
    choice = heads.choice
    heads.grid.buttons[last].click()
    assert "leave at least one" in told(heads) and heads.choice == choice


def test_heads_of_other_samples_classes_and_methods(explained):
    model, processor, samples, _ = of_kind("lxmert")
    heads = xai.widgets.HeadExplorer(model, processor, samples, fraction=0.3, target="two")
    assert explained[-1] == ("generic_attention", 2)
    unread = [s for s in heads.ranked.scores(heads.choice).sites if not s.reached]
    assert unread and all(heads.grid.buttons[s.call, 0].disabled for s in unread)
    heads.controls.target.value = 0
    heads.controls.method.value = "raw_attention"
    heads.controls.sample.value = "<i>question 1"
    inputs = processor.of(samples[1])
    scores = xai.head_scores(model, inputs)
    mask = scores.mask(0.3, "negative", per_sample=True)
    found = heads.mask().keep
    assert all(torch.equal(found[call], row[0]) for call, row in mask.keep.items())
    with xai.prune_heads(model, mask):
        att = xai.explain(model, inputs, "raw_attention", int(scores.target[0, 0]))
    shown = heads.session.view(heads.choice).att
    torch.testing.assert_close(shown.relevance, att.relevance)
    assert [p.title for p in heads.panels()] == ["whole model", "pruned model", "probability"]
    assert "<i>" not in heads.controls.message.value
    for error, says, changes in (
        (InputError, "expected one of xai.load", {"processor": None}),
        (OptionError, "Unknown head score 'lpr'", {"score": "lpr"}),
        (OptionError, "Unknown order 'up'", {"order": "up"}),
        (OptionError, "fraction is 1.5", {"fraction": 1.5}),
        (OptionError, "top is 0", {"top": 0}),
    ):
        given = {"processor": processor, "samples": samples} | changes
        with pytest.raises(error, match=re.escape(says)):
            xai.widgets.HeadExplorer(model, **given)


def test_a_map_that_no_class_changes_is_told_of_the_class_that_is_shown(explained):
    model, processor, samples, inputs = of_kind("bert")
    heads = xai.widgets.HeadExplorer(model, processor, samples, "raw_attention", fraction=0.5)
    chances = xai.explain(model, inputs, "raw_attention").probabilities()[0]
    for target in range(3):
        heads.controls.target.value = target
        whole, pruned = heads.rows()
        assert whole.target == pruned.target == heads.session.class_name(REVIEWS[0], target)
        assert whole.probability == pytest.approx(float(chances[target]))
        with xai.prune_heads(model, heads.mask()):
            att = xai.explain(model, inputs, "raw_attention", target)
        assert pruned.probability == pytest.approx(float(att.probabilities()[0, target]))


@pytest.mark.parametrize("kind", ["clip", "vqa", "heads"])
def test_bundles_have_the_widget_and_a_static_picture(kind, explained):
    model, processor, samples, _ = of_kind("visual_bert")
    explorer = {
        "clip": lambda: xai.widgets.CLIPExplorer(random_clip(), pair_processor(), IMAGES, TEXTS),
        "vqa": lambda: xai.widgets.VQAExplorer(model, processor, samples),
        "heads": lambda: xai.widgets.HeadExplorer(model, processor, samples, fraction=0.5),
    }[kind]()
    data, metadata = explorer._repr_mimebundle_()
    assert b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert metadata["image/png"]["width"] > 600
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.box.model_id
    assert data["text/plain"].startswith(type(explorer).__name__)
