"""Pictures: colours mean what they should, and every panel draws what it is given."""

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

import xai_lib as xai
from xai_lib.datasets import sample_images
from xai_lib.errors import InputError, OptionError
from xai_lib.models import for_profile
from xai_lib.plots import (
    Style,
    attention_panel,
    colours,
    displayable,
    method_panel,
    overlay,
    panel,
)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return VisionTransformer(
        img_size=(24, 32), patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=4
    ).eval()


@pytest.fixture(scope="module")
def att(model):
    torch.manual_seed(1)
    return xai.explain(model, torch.randn(2, 3, 24, 32), method="transformer_attribution")


def test_one_signed_map_runs_from_weakest_to_strongest():
    _, strength = colours(torch.tensor([[2.0, 3.0, 4.0]]))
    assert strength.tolist() == [[0.0, 0.5, 1.0]]


def test_signed_map_is_symmetric_around_zero():
    rgb, strength = colours(torch.tensor([[-2.0, 0.0, 1.0]]))
    assert strength.tolist() == [[1.0, 0.0, 0.5]]
    against, neutral, for_it = rgb[0]
    assert against[2] > against[0] and for_it[0] > for_it[2], "blue against, red for"
    assert np.ptp(neutral) < 0.05 and neutral.min() > 0.9, "zero is white"


def test_constant_map_has_no_strength():
    assert not colours(torch.full((2, 2), 3.0))[1].any()
    assert not colours(torch.zeros(2, 2), Style(signed=True))[1].any()


def test_overlay_covers_the_strongest_place_most():
    image = np.zeros((1, 2, 3))
    covered = overlay(image, torch.tensor([[0.0, 1.0]]), Style(opacity=1.0))
    assert covered[0, 1].sum() > covered[0, 0].sum()
    assert np.array_equal(overlay(image, torch.ones(1, 2), Style(opacity=0.0)), image)


def test_displayable_undoes_the_processor():
    _, processor = xai.load("vit-digits")
    picture = sample_images("vit-digits").list()[0]
    shown = displayable(processor(picture)["pixel_values"][0], processor)
    assert np.abs(shown - picture.permute(1, 2, 0).numpy()).max() < 1e-6


def test_figures_hold_one_picture_for_each_map(model, att):
    assert len(att.show().axes) == 4  # two samples, each with its input
    several = xai.explain(model, att.inputs, targets=[0, 1, 2])
    assert len(several.show().axes) == 8
    atts = {"a": att, "b": att}
    evidence = torch.zeros(1, 24, 32, dtype=torch.bool)
    evidence[0, 4:12, 4:12] = True
    figure = method_panel(atts, evidence=evidence, columns=2)
    assert [axes.get_title() for axes in figure.axes[:3]] == ["input", "a", "b"]
    assert all(axes.collections for axes in figure.axes[:3]), "evidence is outlined"
    assert len(panel({"x": np.zeros((2, 2, 3))}).axes) == 1


def test_attention_panel_has_a_row_per_layer_and_a_column_per_head(model, att):
    with torch.no_grad(), xai.trace(model) as trace:
        model(att.inputs)
    figure = attention_panel(trace.sites, att.grid, att.layout.prefix)
    assert len(figure.axes) == 2 * 3
    late = attention_panel(trace.sites[1:], att.grid, att.layout.prefix)
    assert late.axes[0].get_ylabel() == "layer 1"
    drawn = figure.axes[-1].images[0].get_array()
    assert np.allclose(drawn, trace.sites[1].probs[0, 2, 0, 1:].reshape(3, 4))


def test_heatmap_sizes(att):
    assert att.heatmap().shape == (2, 24, 32)
    assert att.heatmap(10).shape == (2, 10, 10)
    assert torch.equal(att.heatmap((3, 4)), att.patches)
    with pytest.raises(OptionError, match=r"height, width"):
        att.heatmap(0)


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg", ".safetensors"])
def test_save_writes_the_file_and_nothing_else(att, tmp_path, suffix):
    path = att.save(tmp_path / f"map{suffix}")
    assert path.stat().st_size > 0 and list(tmp_path.iterdir()) == [path]


def test_saved_numbers_come_back(att, tmp_path):
    from safetensors.torch import load_file

    saved = load_file(att.save(tmp_path / "map.safetensors"))
    assert torch.equal(saved["relevance"], att.relevance)
    assert torch.equal(saved["target"], att.target)


def test_bad_saves_leave_nothing(att, tmp_path):
    with pytest.raises(OptionError, match=r"\.png"):
        att.save(tmp_path / "map.gif")
    with pytest.raises(InputError):
        att.save(tmp_path / "no" / "map.png")
    assert not list(tmp_path.iterdir())


def test_samples_carry_their_evidence():
    scenes = sample_images("vit-scenes")
    assert len(scenes.pictures) == len(scenes.evidence) == 4
    assert " and " in scenes.names[0] and scenes.evidence[scenes.names[0]].any((1, 2)).all()
    assert sample_images("anything", image="my/cat.png").names == ["cat.png"]
    assert sample_images("timm:whatever").evidence is None


def test_profiles():
    assert for_profile("vit-scenes", "embedded") == "vit-scenes"
    assert for_profile("vit-scenes", "paper").startswith("timm:vit_base_patch16_224.orig")
    assert for_profile("my/folder", "paper") == "my/folder"
    with pytest.raises(OptionError, match=r"embedded.*paper"):
        for_profile("vit-scenes", "papers")
