"""Images of other than three channels are shown; which of them can be chosen."""

import matplotlib.figure
import pytest
import timm
import torch

import xai_lib as xai
from xai_lib.errors import InputError, OptionError
from xai_lib.plots.pictures import displayable


def explained(channels):
    torch.manual_seed(0)
    options = {"img_size": 32, "embed_dim": 32, "depth": 1, "num_heads": 2, "num_classes": 5}
    model = timm.create_model("vit_tiny_patch16_224", in_chans=channels, **options).eval()
    return xai.explain(model, torch.randn(1, channels, 32, 32), "gradient_x_input")


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
def test_every_number_of_channels_is_shown(channels, tmp_path):
    att = explained(channels)
    assert isinstance(att.show(), matplotlib.figure.Figure)
    assert isinstance(att.show(bands=channels - 1), matplotlib.figure.Figure)
    att.save(tmp_path / "shown.png")


def test_which_bands():
    pixels = torch.rand(13, 4, 4)
    chosen = displayable(pixels, bands=(3, 2, 1))
    assert (chosen == displayable(pixels[[3, 2, 1]])).all()
    assert (displayable(pixels, bands=7) == displayable(pixels[7:8])).all()
    assert (displayable(pixels) == displayable(pixels.mean(0, keepdim=True))).all()
    for bands in (13, (1, 2), (0, 1, 13), -1, ("red", "green", "blue")):
        with pytest.raises(OptionError, match="12"):
            displayable(pixels, bands=bands)


def test_a_video_is_refused_with_what_to_do():
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, num_classes=5).eval()
    video = torch.randn(2, 4, 3, 32, 32)
    with pytest.raises(InputError) as caught:
        xai.explain(model, video, "rollout")
    assert "inputs.flatten(0, 1)" in str(caught.value)
    assert xai.explain(model, video.flatten(0, 1), "rollout").relevance.shape[0] == 8
