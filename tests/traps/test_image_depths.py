"""Pictures of every PIL mode and dtype: read by their own scale, or refused with tried advice."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from xai_lib.errors import InputError
from xai_lib.files.images import read_image

GREY = np.linspace(0, 255, 48).astype(np.uint8).reshape(6, 8)


def red(image):
    """Return the first channel that is read of an image, in [0, 1]."""
    found = read_image(image)
    if isinstance(found, Image.Image):
        return torch.from_numpy(np.array(found))[..., 0] / 255
    return found[0]


@pytest.mark.parametrize("mode", ["L", "P", "LA", "La", "PA", "RGBA", "RGBa", "CMYK", "HSV", "I"])
def test_every_mode_of_eight_bits_is_read_by_them(mode):
    image = Image.fromarray(GREY)
    through = {"La": "LA", "RGBa": "RGBA"}.get(mode)
    image = (image.convert(through) if through else image).convert(mode)
    torch.testing.assert_close(red(image), torch.from_numpy(GREY) / 255, atol=2e-2, rtol=0)


@pytest.mark.parametrize("dtype", ["int16", "int32", "int64", ">i2", "<i4"])
def test_integers_of_eight_bits_are_read_by_them(dtype):
    torch.testing.assert_close(red(GREY.astype(dtype)), torch.from_numpy(GREY) / 255)


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bits_in_either_order_of_bytes(order):
    torch.testing.assert_close(red(GREY.astype(order) * 257), torch.from_numpy(GREY) / 255)


def test_mode_i_over_eight_bits_is_read_by_sixteen():
    image = Image.fromarray(GREY.astype(np.int32) * 257)
    assert image.mode == "I"
    torch.testing.assert_close(red(image), torch.from_numpy(GREY) / 255)


def narrow(kind):
    array = GREY.astype(np.uint16)
    return {"array": array, "tensor": torch.from_numpy(array), "pil": Image.fromarray(array)}[kind]


@pytest.mark.parametrize("kind", ["array", "tensor", "pil"])
def test_sixteen_bits_that_fill_eight_are_refused_and_the_advice_works(kind):
    """Divided by 65535 they would be black."""
    image = narrow(kind)
    with pytest.raises(InputError, match="uint8"):
        read_image(image)
    torch.testing.assert_close(red(np.asarray(image).astype("uint8")), torch.from_numpy(GREY) / 255)
    assert red(np.asarray(image) / 65535).max() <= 255 / 65535 + 1e-6
    assert (red(np.zeros((4, 4), np.uint16)) == 0).all()


def test_float_grey_of_another_scale_is_refused_and_the_advice_works():
    image = Image.fromarray(GREY).convert("F")
    with pytest.raises(InputError, match=r"convert\('L'\)"):
        read_image(image)
    torch.testing.assert_close(red(image.convert("L")), torch.from_numpy(GREY) / 255)


def test_a_transparent_grey_of_sixteen_bits_lies_over_white():
    image = Image.fromarray(GREY.astype(np.uint16) * 257)
    image.info["transparency"] = 0
    assert red(image)[0, 0] == 1 and 0 < red(image)[0, 1] < 0.1


def test_a_picture_of_too_many_pixels_is_not_called_damaged(tmp_path, monkeypatch):
    Image.fromarray(GREY).save(tmp_path / "big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(InputError, match="MAX_IMAGE_PIXELS"):
        read_image(tmp_path / "big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    torch.testing.assert_close(red(tmp_path / "big.png"), torch.from_numpy(GREY) / 255)


def test_a_truncated_picture_that_pil_has_opened_is_refused():
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    half = file.getvalue()[: len(file.getvalue()) // 2]
    with pytest.raises(InputError, match="truncated"):
        read_image(Image.open(io.BytesIO(half)))
