"""Figures of several streams: the numbers of each, the names around them, and show and save."""

import numpy as np
import pytest
import torch
from asking_models import ANSWERS, KINDS, question_samples, question_world
from figure_checks import check_legible, drawn_texts
from small_clips import TEXTS, pair_processor, random_clip

import xai_lib as xai
from xai_lib.errors import InputError, OptionError
from xai_lib.evaluators.pruned_views import pruned_views
from xai_lib.plots import pair_figure, pruned_visualisation, regions_figure
from xai_lib.plots.pairs import Drawn

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=KINDS)
def asked(request):
    """Return model, processor, samples and inputs of a model of questions."""
    model, processor = question_world(request.param)
    samples = question_samples()
    return model, processor, samples, processor.of(samples)


@pytest.fixture(scope="module")
def clip():
    """Return a model, its processor, and two images with three texts."""
    images = [sample.image for sample in question_samples()]
    processor = pair_processor()
    return random_clip(), processor, processor(images, TEXTS)


def words_of(figure):
    return [text.get_text() for text in drawn_texts(figure)]


def test_regions_and_question_are_those_of_the_explanation(asked):
    model, processor, samples, inputs = asked
    att = xai.explain(model, inputs, "generic_attention", 1)
    for i, sample in enumerate(samples):
        drawn = Drawn(att, processor, sample.image, i=i)
        (row,) = drawn.rows()
        assert row.target == ANSWERS[1] and row.scores.texts == (sample.question,)
        torch.testing.assert_close(row.scores.scores, att.part("text").words()[i].scores)
        chances = att.probabilities()[i]
        assert row.probability == pytest.approx(float(chances[1]))
        assert dict(row.chances)[ANSWERS[1]] == pytest.approx(float(chances[1]))
        # The boxes travel with the inputs, also where the model takes none.
        torch.testing.assert_close(
            att.part("image").layout.boxes[i, : len(sample.boxes)], sample.boxes
        )
        (panel,) = drawn.panels()
        present = att.part("image").layout.present[i]
        assert panel.high == pytest.approx(float(att.streams["image"][i][present].abs().max()))


def test_a_figure_of_questions_is_legible(asked):
    model, processor, samples, inputs = asked
    att = xai.explain(model, inputs, "generic_attention", targets=[0, 2])
    figure = pair_figure(att, processor, images=[s.image for s in samples], title="$a$ <b>")
    words = words_of(figure)
    check_legible(figure)
    assert "$a$ <b>" in words and sum(w == "question" for w in words) == 4
    assert sum("for “red”, P = " in w for w in words) == 2


def test_a_contrast_names_both_answers(asked):
    model, processor, _, inputs = asked
    att = xai.explain(model, inputs, "attn_gradcam", (0, 2))
    assert Drawn(att, processor).rows()[0].heading.startswith("for “red not two”")


def test_show_and_save(asked, tmp_path):
    model, processor, samples, inputs = asked
    att = xai.explain(model, inputs, "generic_attention")
    figure = att.show(processor=processor, images=[s.image for s in samples])
    assert len(figure.axes) == 3
    for name in ("a.png", "a.pdf", "a.safetensors"):
        assert att.save(tmp_path / name).stat().st_size > 300
    with pytest.raises(OptionError, match=r"suffix '\.tex'"):
        att.save(tmp_path / "a.tex")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pdf", "a.png", "a.safetensors"]
    assert att.part("text").show().rows[0].scores.texts == (samples[0].question,)
    assert len(att.part("image").show().axes) == 3
    with pytest.raises(InputError, match="boxes is of 1 samples"):
        regions_figure(att.part("image"), boxes=samples[0].boxes[None])


def test_an_image_and_its_text(clip):
    model, processor, inputs = clip
    att = xai.explain(model, inputs, "generic_attention", 1)
    for i in range(2):
        drawn = Drawn(att, processor, i=i)
        first, heat = drawn.panels()
        assert (first.title, heat.title) == ("input", "image")
        assert heat.high == pytest.approx(float(att.heatmap()[i].max()))
        (row,) = drawn.rows()
        assert row.scores.texts == (TEXTS[1],) and row.heading.startswith("P = ")
        torch.testing.assert_close(row.scores.scores, att.words()[i].scores)
    check_legible(pair_figure(att, processor))


def test_texts_of_several_targets_and_of_a_contrast(clip):
    model, processor, inputs = clip
    att = xai.explain(model, inputs, "generic_attention", targets=[2, 0])
    for k, j in enumerate((2, 0)):
        for i in range(2):
            (row,) = Drawn(att, processor, i=i, k=k).rows()
            alone = xai.explain(model, inputs, "generic_attention", j).words()[i]
            assert row.scores.texts == (TEXTS[j],)
            torch.testing.assert_close(row.scores.scores, alone.scores)
    assert len(pair_figure(att, processor).axes) == 1 + 4 * 2
    att = xai.explain(model, inputs, "generic_attention", (1, 0))
    row, other = Drawn(att, processor).rows()
    assert other.scores.texts == (TEXTS[0],) and other.signed and other.probability is None
    assert (other.scores.scores <= 0).all() and "minus sign" in other.note


def test_numbers_stand_for_a_text_that_nobody_knows(asked):
    model, _, _, inputs = asked
    att = xai.explain(model, dict(inputs), "generic_attention")
    (row,) = Drawn(att, boxes=inputs.boxes, i=1).rows()
    present = inputs["attention_mask"][1].bool()
    assert row.scores.labels == tuple(str(n) for n in inputs["input_ids"][1][present].tolist())
    torch.testing.assert_close(row.scores.scores, att.streams["text"][1][present])


@pytest.mark.parametrize(
    ("error", "says", "given"),
    [
        (InputError, "1 images for 2 samples", {"images": [None]}),
        (InputError, "boxes are of 1 samples", {"boxes": torch.zeros(1, 4, 4)}),
        (OptionError, "Unknown level 'letter'", {"level": "letter"}),
        (OptionError, "answers is -1", {"answers": -1}),
    ],
)
def test_what_cannot_be_drawn_is_refused(asked, error, says, given):
    model, processor, _, inputs = asked
    with pytest.raises(error, match=says):
        pair_figure(xai.explain(model, inputs, "raw_attention"), processor, **given)


def test_pruned_pictures_are_those_of_the_masked_mean(asked):
    model, processor, samples, _ = asked
    figure = pruned_visualisation(
        pruned_views(model, processor, samples[0], (0, 0.5), target="two")
    )
    check_legible(figure)
    words = words_of(figure)
    assert {"0% pruned", "50% pruned"} <= set(words) and len(figure.axes) == 3
    inputs = processor.of(samples[0])
    scores = xai.head_scores(model, inputs, target=2)
    mask = scores.mask(0.5, "negative", per_sample=True)
    att = xai.explain(model, inputs, "generic_attention", 2, head_mask=mask)
    top = f"{att.streams['image'][0].max():.3g}"
    assert top in words, words
    with xai.prune_heads(model, mask):
        answer = xai.explain(model, inputs, "raw_attention")
    chance = float(answer.probabilities()[0].max())
    assert any(f"{chance:.1%}" in word for word in words)
    other = pruned_visualisation(
        pruned_views(model, processor, samples[0], (0.5,), target=2, pruned_pass=True)
    )
    assert np.allclose(other.get_size_inches()[0], 6.9)
    for wrong in ((), (1.0,)):
        with pytest.raises(OptionError):
            pruned_views(model, processor, samples[0], wrong)
    with pytest.raises(InputError, match="expected the QuestionProcessor"):
        pruned_views(model, processor.tokenizer, samples[0])
