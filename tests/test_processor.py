"""The processor: every kind of image gives the same pixels, and bad ones give one clear error."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from xai_lib.errors import InputError, OptionError
from xai_lib.models.processors.image import Processor

SIZE = (12, 20)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture
def processor():
    return Processor(SIZE, MEAN, STD, ("cat", "dog"))


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)


def image_of(processor, image):
    return processor.denormalize(processor(image)["pixel_values"])[0]


def test_normalisation_is_the_formula_and_denormalize_undoes_it(processor, pixels):
    out = processor(pixels)["pixel_values"]
    expected = (pixels / 255 - np.array(MEAN)) / np.array(STD)
    assert out.shape == (1, 3, *SIZE) and out.dtype == torch.float32
    np.testing.assert_allclose(out[0].permute(1, 2, 0), expected, atol=1e-5)
    np.testing.assert_allclose(
        processor.denormalize(out)[0].permute(1, 2, 0), pixels / 255, atol=1e-6
    )


def test_path_pil_array_and_tensor_agree(processor, pixels, tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(pixels).save(path)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    kinds = [path, str(path), Image.fromarray(pixels), pixels, tensor, tensor / 255, pixels / 255]
    kinds.append(pixels.astype(np.int64))
    batch = processor(kinds)["pixel_values"]
    assert batch.shape == (len(kinds), 3, *SIZE)
    torch.testing.assert_close(batch, batch[:1].expand_as(batch), atol=1e-5, rtol=0)


def test_four_dimensional_batches(processor, pixels):
    arrays = np.stack([pixels, 255 - pixels])
    tensors = torch.from_numpy(arrays).permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(
        processor(arrays)["pixel_values"], processor(tensors)["pixel_values"], atol=1e-5, rtol=0
    )


def test_resizing_squashes_without_crop(processor):
    """A bright frame around the image survives on all four sides; a crop would lose two of them."""
    array = np.zeros((60, 60, 3), np.uint8)
    array[:6], array[-6:], array[:, :6], array[:, -6:] = 255, 255, 255, 255
    for image in (Image.fromarray(array), torch.from_numpy(array).permute(2, 0, 1) / 255):
        out = image_of(processor, image)[0]
        assert min(out[0].min(), out[-1].min(), out[:, 0].min(), out[:, -1].min()) > 0.9
        assert out[4:8, 6:14].max() < 0.05


def test_bicubic_of_tensors_matches_pil(processor):
    rng = np.random.default_rng(1)
    smooth = Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8)).resize((90, 70))
    tensor = torch.from_numpy(np.array(smooth)).permute(2, 0, 1) / 255
    difference = (image_of(processor, smooth) - image_of(processor, tensor)).abs().max()
    assert difference < 2 / 255


def test_exif_orientation_is_applied(processor, tmp_path):
    array = np.zeros((20, 12, 3), np.uint8)
    array[:10] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show rotated by 90 degrees clockwise
    Image.fromarray(array).save(tmp_path / "turned.png", exif=exif)
    out = image_of(processor, tmp_path / "turned.png")[0]
    assert out[:, 15].min() > 0.99 and out[:, 4].max() < 0.01


def test_grey_transparent_palette_and_sixteen_bit(processor, tmp_path):
    ramp = np.linspace(0, 255, SIZE[0] * SIZE[1]).astype(np.uint8).reshape(SIZE)
    expected = torch.from_numpy(ramp / 255).float().expand(3, -1, -1)
    deep = ramp.astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    palette = Image.fromarray(ramp).convert("P")
    kinds = {
        "grey": Image.fromarray(ramp),
        "grey array": ramp,
        "grey array with channel": ramp[..., None],
        "16 bit": tmp_path / "deep.png",
        "16 bit array": deep,
        "16 bit tensor": torch.from_numpy(deep),
        "float PIL": Image.fromarray((ramp / 255).astype(np.float32)),
        "palette": palette,
        "one-channel tensor": torch.from_numpy(ramp)[None],
    }
    for name, kind in kinds.items():
        assert (image_of(processor, kind) - expected).abs().max() < 1e-5, name


def test_transparency_lies_over_white(processor):
    rgba = np.zeros((*SIZE, 4), np.uint8)
    rgba[:, :10, 3] = 255
    for image in (Image.fromarray(rgba), rgba, torch.from_numpy(rgba).permute(2, 0, 1) / 255):
        out = image_of(processor, image)
        assert out[:, :, :10].max() < 1e-6 and out[:, :, 10:].min() > 1 - 1e-6


def test_boolean_masks_are_black_and_white(processor):
    mask = np.zeros(SIZE, bool)
    mask[:6] = True
    for image in (mask, torch.from_numpy(mask)):
        torch.testing.assert_close(image_of(processor, image)[0], torch.from_numpy(mask).float())


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([], "image"),
        (None, "NoneType"),
        ("no/such/file.png", "no/such/file.png"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\)"),
        (np.zeros((3, 8, 8), np.uint8), "channels last"),
        (torch.zeros(8, 8, 3), "channels first"),
        (torch.full((3, 8, 8), float("nan")), "NaN"),
        (torch.full((3, 8, 8), 2.5), r"\[0, 1\]"),
        (np.full((8, 8, 3), 300), "0..255"),
        (torch.zeros(3, 8, 8, dtype=torch.complex64), "complex64"),
        (np.full((8, 8), "x"), None),
        ([np.zeros((8, 8), np.uint8), "gone.png"], "Image 1 of 2.*gone.png"),
    ],
)
def test_bad_images_are_input_errors(processor, bad, message):
    with pytest.raises(InputError, match=message):
        processor(bad)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tiff"])
def test_truncated_and_foreign_files(processor, pixels, tmp_path, suffix):
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(pixels).resize((200, 120)).save(path)
    assert processor(path)["pixel_values"].isfinite().all()
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"this is text, not an image"):
        path.write_bytes(broken)
        with pytest.raises(InputError, match=f"image.{suffix}"):
            processor(path)


def test_a_directory_is_no_image(processor, tmp_path):
    with pytest.raises(InputError):
        processor(tmp_path)


@pytest.mark.parametrize("size", [(224, 224), (96, 60)])
@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
def test_squash_is_torchvisions_resize_of_pil_images(size, resample):
    """The papers' evaluation: Resize((224, 224)) with bilinear, then ToTensor; no crop."""
    from torchvision.transforms import Compose, InterpolationMode, Resize, ToTensor

    array = np.random.default_rng(2).integers(0, 256, (150, 333, 3), np.uint8)
    theirs = Compose([Resize(size, InterpolationMode(resample)), ToTensor()])(
        Image.fromarray(array)
    )
    processor = Processor(size, MEAN, STD, resample=resample)
    for image in (array, Image.fromarray(array)):
        assert torch.equal(processor.squash(image), theirs)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    torch.testing.assert_close(processor(array)["pixel_values"][0], (theirs - mean) / std)


def test_the_filter_changes_tensors_too_and_is_checked():
    image = torch.rand(3, 40, 50, generator=torch.Generator().manual_seed(0))
    bicubic = Processor(SIZE, MEAN, STD)
    bilinear = replace(bicubic, resample="bilinear")
    expected = torch.nn.functional.interpolate(
        image[None], SIZE, mode="bilinear", antialias=True, align_corners=False
    )[0]
    assert torch.equal(bilinear.squash(image), expected)
    assert not torch.equal(bicubic.squash(image), expected)
    with pytest.raises(OptionError, match="Did you mean 'bilinear'"):
        Processor(SIZE, MEAN, STD, resample="bilinar")


@pytest.mark.parametrize("shape", [(500, 375), (7, 9), (224, 224), (1, 1), (333, 1000)])
def test_squash_mask_is_pils_nearest(shape):
    mask = np.random.default_rng(3).integers(-1, 2, shape).astype(np.int8)
    got = Processor((224, 96), MEAN, STD).squash_mask(torch.from_numpy(mask))
    pil = Image.fromarray(mask.astype(np.int32)).resize((96, 224), Image.Resampling.NEAREST)
    assert got.dtype == torch.int8 and np.array_equal(got, np.array(pil))
    rows = (2 * np.arange(224) + 1) * shape[0] // (2 * 224)
    columns = (2 * np.arange(96) + 1) * shape[1] // (2 * 96)
    assert np.array_equal(got, mask[rows][:, columns])
