"""The explorer: what it computes, what its controls drive, and what it leaves in a notebook.

Runs on ipywidgets 7.7 and 8. To run it on the version that is not installed:
    pip install --target OLD --no-deps 'ipywidgets==7.7.*' 'ipython_genutils'
    PYTHONPATH=OLD python -m pytest tests/test_widgets.py
"""

import io
import subprocess
import sys
from base64 import b64decode
from html import unescape

import ipywidgets
import numpy as np
import pytest
import timm
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from small_vits import random_vit
from support.catalogue import CATALOGUE

import xai_lib as xai
from xai_lib.errors import (
    InputError,
    MethodNotApplicableError,
    OptionError,
    TargetError,
    UnsupportedModelError,
)
from xai_lib.models import Processor
from xai_lib.streams.patches import TokenLayout
from xai_lib.streams.texts import TextLayout
from xai_lib.widgets import session as session_module
from xai_lib.widgets.choice import Choice
from xai_lib.widgets.gallery import decoded, named_images, uploaded
from xai_lib.widgets.reading import _on_tokens, read
from xai_lib.widgets.session import Session
from xai_lib.widgets.sources import Images

pytestmark = pytest.mark.usefixtures("one_thread")
OLD = ipywidgets.__version__.startswith("7.")
NAMES = ("cat", "dog, hound", "<b>$bird$</b>", "fish")


def picture(seed, size=(20, 30)):
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)


def png_bytes(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def model():
    return random_vit(dtype=torch.float32, depth=3)


@pytest.fixture
def processor():
    return Processor((16, 16), (0.5,) * 3, (0.5,) * 3, NAMES)


@pytest.fixture
def explained(monkeypatch):
    """Return the list of (method, target, options) that were really computed."""
    calls = []

    def spy(model, inputs, method, target, **options):
        calls.append((method, target, options))
        return xai.explain(model, inputs, method, target, **options)

    monkeypatch.setattr(session_module, "explain", spy)
    return calls


@pytest.fixture
def explorer(model, processor, explained):
    images = {"one": picture(1), "two": picture(2)}
    return xai.widgets.ImageExplorer(model, processor, images, method="generic_attention")


def of_picture(model, processor, **options):
    return Session(model, Images(processor, picture(1)), options)


def told(explorer):
    return unescape(explorer.controls.message.value)


def upload(explorer, name, content):
    """Do what the front end does when a file was chosen."""
    control = explorer.controls.upload
    if OLD:
        control.set_state({"metadata": [{"name": name}], "data": [memoryview(content)]})
        control.set_state({"_counter": control._counter + 1})
    else:
        file = {"name": name, "type": "", "size": len(content), "last_modified": 0}
        control.set_state({"value": [file | {"content": memoryview(content)}]})


# -- state, without widgets


def test_names_of_images(tmp_path):
    assert list(named_images({"a": 1, 2: 3})) == ["a", "2"]
    paths = [tmp_path / "x.png", str(tmp_path / "sub" / "x.jpg"), picture(0)]
    assert list(named_images(paths)) == ["x", "x (2)", "image 2"]
    assert list(named_images("one/file.png")) == ["file"]
    batch = torch.rand(2, 3, 4, 4)
    assert torch.equal(named_images(batch)["image 1"], batch[1])
    assert list(named_images(batch[0])) == ["image 0"]
    with pytest.raises(InputError, match="no image to explore"):
        named_images([])


def test_upload_values_of_both_versions():
    old = {"a.png": {"metadata": {"name": "a.png", "size": 2}, "content": b"xy"}}
    new = ({"name": "a.png", "type": "image/png", "size": 2, "content": memoryview(b"xy")},)
    assert uploaded(old) == uploaded(new) == [("a.png", b"xy")]
    assert uploaded({}) == uploaded(()) == []


@pytest.mark.parametrize("content", [b"", b"no image", png_bytes(picture(0))[:300]])
def test_files_that_are_no_image(content):
    with pytest.raises(InputError, match=r"Cannot read 'f\.png' as an image, it is .*: save it"):
        decoded("f.png", content)
    assert np.array_equal(decoded("f.png", png_bytes(picture(0))), picture(0))


def test_classes_are_ranked_and_found_by_name_or_number(model, processor):
    session = of_picture(model, processor)
    ranked = session.ranked("image 0")
    logits = model(processor(picture(1))["pixel_values"])[0]
    assert ranked == logits.argsort(descending=True).tolist()
    torch.testing.assert_close(session.probabilities("image 0"), logits.softmax(-1))
    assert session.ranked("image 0", "HOUND") == [1] and session.ranked("image 0", " 3 ") == [3]
    assert session.ranked("image 0", "nothing") == []
    assert session.ranked("image 0", limit=2) == ranked[:2]


@pytest.mark.parametrize("config", [{}, {"class_token": False, "global_pool": "avg"}])
def test_head_maps_are_the_rows_that_the_prediction_reads(processor, config):
    model = random_vit(dtype=torch.float32, depth=3, **config)
    session = of_picture(model, processor)
    reading = session.reading("image 0")
    with torch.no_grad(), xai.trace(model) as t:
        logits = model(session.inputs("image 0")["pixel_values"])
    torch.testing.assert_close(reading.logits, logits[0])
    for site, maps in zip(t.sites, reading.heads, strict=True):
        expected = site.probs[0].mean(1) if config else site.probs[0, :, 0, 1:]
        torch.testing.assert_close(maps[:, reading.layout.patches], expected)
    pixels = session.inputs("image 0")["pixel_values"]
    att = xai.explain(model, pixels, "raw_attention", layer=1)
    torch.testing.assert_close(reading.attention(1, None), att.relevance[0])
    view = session.view(Choice("image 0", "rollout", layer=1))
    torch.testing.assert_close(view.heat, att.heatmap()[0])


@pytest.mark.parametrize("name", ["timm cait_xxs24_224", "timm vit_base_patch16_siglip_224"])
def test_head_maps_where_layers_have_other_rows_than_the_readout(name):
    """Layers below a late class token or a pooling probe: all of their rows are read in the end."""
    (entry,) = (entry for entry in CATALOGUE if entry.name == name)
    model = entry.model()
    reading = read(model, entry.pixels(1))
    with torch.no_grad(), xai.trace(model) as t:
        model(entry.pixels(1))
    assert reading.layout.grid == entry.grid
    assert {maps.shape[1] for maps in reading.heads} == {reading.layout.tokens}
    patches = entry.grid[0] * entry.grid[1]
    for site, maps in ((t.sites[0], reading.heads[0]), (t.sites[-1], reading.heads[-1])):
        expected = site.probs[0].mean(1)[:, -patches:].float()
        torch.testing.assert_close(maps[:, reading.layout.patches], expected)


def test_keys_become_tokens_wherever_other_tokens_stand():
    layout = TokenLayout(tokens=6, prefix=1, grid=(2, 2), size=(4, 4))
    maps = torch.arange(1.0, 13).view(2, 6)
    assert _on_tokens(layout, maps) is maps
    patches = _on_tokens(layout, maps[:, 1:5])
    assert torch.equal(patches, torch.nn.functional.pad(maps[:, 1:5], (1, 1)))
    with pytest.raises(MethodNotApplicableError, match="other tokens than those of the image"):
        _on_tokens(layout, maps[:, :3])
    with pytest.raises(MethodNotApplicableError, match="grid"):
        _on_tokens(TokenLayout(6, 0, None, (4, 4)), maps)
    ids, whole = torch.zeros(1, 6, dtype=torch.int64), torch.ones(1, 6, dtype=torch.bool)
    with pytest.raises(MethodNotApplicableError, match="other tokens than those of the text"):
        _on_tokens(TextLayout(ids, whole, ~whole), maps[:, :3])


def test_views_agree_with_explain_and_are_computed_once(model, processor, explained):
    session = of_picture(model, processor, steps=3)
    choice = Choice("image 0", "bi_head", target=2, start=1)
    view = session.view(choice)
    att = xai.explain(
        model, session.inputs("image 0")["pixel_values"], "bi_head", 2, steps=3, start_layer=1
    )
    torch.testing.assert_close(view.heat, att.heatmap()[0])
    assert session.view(Choice("image 0", "bi_head", 2, 1)) is view
    assert explained == [("bi_head", 2, {"steps": 3, "start_layer": 1})]
    # The default of an option is the option; a map that no class changes is one map.
    first = session.view(Choice("image 0", "rollout", 1))
    assert session.view(Choice("image 0", "rollout", 2, start=0)) is first
    assert len(explained) == 2


def test_memory_is_bounded(model, processor, explained, monkeypatch):
    monkeypatch.setattr(session_module, "REMEMBERED", 2)
    session = of_picture(model, processor)
    for target in (0, 1, 2, 2, 1, 0):
        session.view(Choice("image 0", "attn_gradcam", target))
    assert [target for _, target, _ in explained] == [0, 1, 2, 0]


# -- the widgets


def test_first_view_is_the_predicted_class(explorer, explained):
    choice = explorer.choice
    assert (choice.source, choice.method, choice.target) == ("one", "generic_attention", None)
    predicted = explorer.session.ranked("one")[0]
    assert explained == [("generic_attention", predicted, {})]
    select = explorer.controls.target
    assert select.value == predicted and select.index == 0 and len(select.options) == 4
    assert f"P({NAMES[predicted]}) = " in told(explorer)


def test_controls_drive_the_picture(explorer, explained):
    controls, seen = explorer.controls, {explorer.controls.picture.value}

    def new_picture():
        seen.add(controls.picture.value)
        return len(seen)

    controls.target.value = 2
    assert explained[-1][1] == 2 and new_picture() == 2
    controls.start.value = 1
    assert explained[-1] == ("generic_attention", 2, {"start_layer": 1}) and new_picture() == 3
    controls.method.value = "raw_attention"
    assert explained[-1] == ("raw_attention", 2, {}) and new_picture() == 4
    assert controls.start.description == "In layer" and controls.start.value is None
    controls.method.value = "lrp"
    assert controls.start.disabled and new_picture() == 5
    computed = len(explained)
    controls.layer.value = 1
    assert new_picture() == 6 and not controls.head.disabled
    controls.head.value = 1
    assert new_picture() == 7 and len(explained) == computed
    controls.image.value = "two"
    assert explorer.choice == Choice("two", "lrp", None, None, 1, 1) and new_picture() == 8
    controls.layer.value = None
    assert explorer.choice.head is None and controls.head.disabled and controls.head.value is None
    assert explained[-1][:2] == ("lrp", explorer.session.ranked("two")[0])


def test_a_method_or_start_layer_ends_the_look_at_attention(explorer):
    for control, value in (("method", "rollout"), ("start", 1)):
        explorer.controls.layer.value = 2
        assert explorer.choice.layer == 2
        getattr(explorer.controls, control).value = value
        assert explorer.choice.layer is None and explorer.controls.layer.value is None


def test_restyling_computes_nothing(explorer, explained, monkeypatch):
    forwards = []
    explorer.session.model.register_forward_hook(lambda *_: forwards.append(1))
    before = explorer.controls.picture.value
    explorer.controls.opacity.value = 0.2
    faint = explorer.controls.picture.value
    explorer.controls.colour_map.value = "viridis"
    assert len({before, faint, explorer.controls.picture.value}) == 3
    assert len(explained) == 1 and not forwards
    explorer.controls.image.value = "two"
    explorer.controls.image.value = "one"
    assert len(explained) == 2 and len(forwards) == 2
    assert explorer.style.opacity == 0.2 and explorer.style.colour_map == "viridis"


def test_search_keeps_the_class_until_one_is_chosen(explorer, explained):
    controls = explorer.controls
    before = explorer.session.target(explorer.choice)
    controls.search.value = "nowhere"
    assert controls.target.options == () and explorer.session.target(explorer.choice) == before
    assert "No class" in told(explorer)
    other = next(i for i in (0, 3) if i != before)
    controls.search.value = NAMES[other]
    assert [value for _, value in controls.target.options] == [other]
    assert controls.target.value is None and len(explained) == 1
    controls.target.value = other
    assert explained[-1][1] == other
    controls.search.value = ""
    assert controls.target.value == other and len(controls.target.options) == 4


def test_upload(explorer):
    upload(explorer, "two", png_bytes(picture(7)))
    assert explorer.choice.source == "two (2)" == explorer.controls.image.value
    assert explorer.controls.image.options == ("one", "two", "two (2)")
    expected = explorer.session.processor(picture(7))["pixel_values"]
    assert torch.equal(explorer.session.inputs("two (2)")["pixel_values"], expected)
    upload(explorer, "two", png_bytes(picture(7)))
    assert explorer.choice.source == "two (3)"


def test_bad_upload_is_one_sentence_and_loses_nothing(explorer):
    explorer.controls.layer.value = 1
    choice, shown = explorer.choice, explorer.controls.picture.value
    for _ in range(2):
        explorer.controls.message.value = ""
        upload(explorer, "<img src=x>.png", b"not an image")
        assert "Cannot read '<img src=x>.png' as an image" in told(explorer)
        assert "<img" not in explorer.controls.message.value
    assert explorer.choice == choice and explorer.controls.picture.value == shown
    assert explorer.controls.image.options == ("one", "two")
    upload(explorer, "good.png", png_bytes(picture(7)))
    assert explorer.choice.source == "good.png" and "Cannot" not in told(explorer)


def test_refused_method_is_a_sentence_and_others_go_on(processor, explained):
    torch.manual_seed(0)
    swin = timm.create_model(
        "swin_tiny_patch4_window7_224",
        img_size=32,
        embed_dim=8,
        depths=(1, 1),
        num_heads=(1, 2),
        window_size=2,
        num_classes=4,
    ).eval()
    processor = Processor((32, 32), processor.mean, processor.std, NAMES)
    explorer = xai.widgets.ImageExplorer(swin, processor, picture(1), "rollout")
    assert "attends within windows" in told(explorer) and "Traceback" not in told(explorer)
    assert explorer.controls.layer.disabled and explorer.controls.start.disabled
    refused = explorer.controls.picture.value
    explorer.controls.method.value = "gradient"
    assert "attends" not in told(explorer) and explorer.controls.picture.value != refused
    explorer.controls.method.value = "rollout"
    assert "attends within windows" in told(explorer)
    assert [method for method, *_ in explained] == ["rollout", "gradient"]


def test_unexpected_error_is_told_and_raised(explorer, monkeypatch):
    shown = explorer.controls.picture.value

    def broken(*_, **__):
        raise ZeroDivisionError("<deliberate>")

    monkeypatch.setattr(session_module, "explain", broken)
    with pytest.raises(ZeroDivisionError):
        explorer.controls.method.value = "rollout"
    assert "ZeroDivisionError: <deliberate>" in told(explorer)
    assert explorer.controls.picture.value == shown


def test_names_are_text_not_markup(model, processor):
    explorer = xai.widgets.ImageExplorer(
        model, processor, {"<i>&": picture(1)}, "rollout", target=NAMES[2], opacity=1
    )
    assert "<i>" not in explorer.controls.message.value and "<b>" not in (
        explorer.controls.message.value
    )
    assert f"<i>&: rollout, the same for every class; P({NAMES[2]})" in told(explorer)
    texts = [text for axes in explorer.figure().axes for text in axes.get_yticklabels()]
    assert {t.get_text() for t in texts} >= {"<b>$bird$</b>", "dog"}


@pytest.mark.parametrize("method", ["generic_attention", "integrated_gradients"])
def test_figure_has_no_overlaps(explorer, method):
    explorer.controls.method.value = method
    figure = explorer.figure()
    FigureCanvasAgg(figure).draw()
    page = figure.bbox
    boxes = []
    for axes in figure.axes:
        for text in (axes.title, *axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels()):
            if text.get_text():
                boxes.append((text.get_text(), text.get_window_extent()))
        for child in axes.child_axes:
            labels = [child.xaxis.label, *child.get_xticklabels()]
            boxes += [(t.get_text(), t.get_window_extent()) for t in labels if t.get_text()]
    assert len(boxes) >= 12
    for i, (name, box) in enumerate(boxes):
        inside = page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0
        assert inside and box.y1 <= page.y1, name
        for other, there in boxes[:i]:
            assert not box.overlaps(there), (name, other)


def test_bundle_has_the_widget_and_a_static_picture(explorer):
    data, metadata = explorer._repr_mimebundle_()
    image = Image.open(io.BytesIO(b64decode(data["image/png"])))
    assert image.format == "PNG" and image.width > 900
    shown = metadata["image/png"]
    assert abs(image.width / image.height - shown["width"] / shown["height"]) < 0.01
    assert data["text/plain"].startswith("ImageExplorer: one: generic_attention, for “")
    view = data["application/vnd.jupyter.widget-view+json"]
    assert view["model_id"] == explorer.box.model_id
    # IPython would prefer a display method of the object, which would lose the picture.
    assert not hasattr(explorer, "_ipython_display_")


def test_what_is_asked_for_first(model, processor):
    explorer = xai.widgets.ImageExplorer(
        model,
        processor,
        [picture(1)],
        "transformer_attribution",
        "fish",
        start_layer=1,
        colour_map="plasma",
        top=1,
    )
    assert explorer.choice == Choice("image 0", "transformer_attribution", 3, 1)
    assert explorer.controls.start.value == 1 and explorer.controls.target.value == 3
    assert explorer.controls.colour_map.value == "plasma"


@pytest.mark.parametrize(
    ("error", "match", "arguments"),
    [
        (OptionError, "Did you mean 'rollout'", {"method": "rolout"}),
        (OptionError, "Unknown option of 'rollout'", {"method": "rollout", "steps": 3}),
        (OptionError, "opacity is 2", {"opacity": 2}),
        (OptionError, "Did you mean .*viridis", {"colour_map": "virdis"}),
        (OptionError, "top is 0", {"top": 0}),
        (TargetError, "has 4 classes", {"target": 4}),
        (InputError, "no image to explore", {"images": {}}),
        (InputError, "No image file at", {"images": "missing.png"}),
    ],
)
def test_bad_arguments(model, processor, error, match, arguments):
    with pytest.raises(error, match=match):
        xai.widgets.ImageExplorer(model, processor, **{"images": picture(1)} | arguments)


def test_model_without_attention(processor):
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16 * 16 * 3, 4))
    with pytest.raises(UnsupportedModelError, match="no attention"):
        xai.widgets.ImageExplorer(plain, processor, picture(1))


def test_model_is_given_back(explorer):
    model = explorer.session.model.train()
    explorer.controls.method.value = "attn_gradcam"
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())


def test_import_does_no_work():
    code = (
        "import sys, xai_lib\n"
        "assert 'ipywidgets' not in sys.modules\n"
        "xai_lib.widgets.ImageExplorer\n"
        "import ipywidgets\n"
        "heavy = {'matplotlib.pyplot', 'timm', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert not getattr(ipywidgets.Widget, 'widgets', {})"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
