"""Bad input gets one typed error that says what was wrong, what was expected and what to do."""

import re
import warnings

import numpy as np
import pytest
import timm
import torch
from small_vits import METHODS, random_pixels, random_vit
from torch import nn

import xai_lib as xai
from xai_lib.errors import (
    InputError,
    MethodNotApplicableError,
    OptionError,
    TargetError,
    UnsupportedModelError,
    XAIError,
)
from xai_lib.explainers.registry import all_methods

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("tabby, cat", "dog", "cab", "cow")


@pytest.fixture(scope="module")
def vit():
    return random_vit(dtype=torch.float32)


@pytest.fixture(scope="module")
def named_vit():
    model = random_vit(dtype=torch.float32)
    model.pretrained_cfg = {"label_names": list(NAMES)}
    return model


@pytest.fixture(scope="module")
def pixels(vit):
    return random_pixels(vit)


class SmallCNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.conv(x).relu().mean((2, 3)))


def refused(error, *words):
    """Expect exactly this type of error, with all the words in its message."""
    return pytest.raises(error, match="".join(f"(?s:(?=.*{re.escape(word)}))" for word in words))


# -- targets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target", (4, -1))
def test_class_out_of_range(vit, pixels, method, target):
    with refused(TargetError, f"target is {target}", "4 classes", "expected 0 to 3"):
        xai.explain(vit, pixels, method, target, **METHODS[method])


@pytest.mark.parametrize(
    ("target", "words"),
    (
        ([0], ("1 entries", "batch of 2", "targets=[...]")),
        ([0, 1, 2], ("3 entries", "batch of 2", "targets=[...]")),
        (torch.tensor([0, 1, 2]), ("3 entries", "batch of 2")),
        ([0, 7], ("target is 7", "expected 0 to 3")),
        ([0, None], ("target is None", "expected a class number or name")),
        (1.5, ("target is 1.5", "class number from 0 to 3")),
        (True, ("target is True", "class number from 0 to 3")),
        ({}, ("target is {}", "class number")),
        (torch.tensor([0.0, 1.0]), ("target is 0.0", "expected a class number")),
        ("cat", ("'cat'", "no class names", "class number from 0 to 3")),
    ),
)
def test_bad_target(vit, pixels, target, words):
    with refused(TargetError, *words):
        xai.explain(vit, pixels, "rollout", target)


@pytest.mark.parametrize("targets", ([], 5, "cat"))
def test_bad_targets(vit, pixels, targets):
    with refused(TargetError, f"targets is {targets!r}", "expected a list"):
        xai.explain(vit, pixels, "rollout", targets=targets)


def test_target_and_targets(vit, pixels):
    with refused(TargetError, "Both target and targets"):
        xai.explain(vit, pixels, "rollout", target=0, targets=[1])


@pytest.mark.parametrize(
    ("names", "target"),
    (
        (("crane", "dog", "crane", "cow"), "crane"),
        (("crane, bird", "dog", "crane, machine", "cow"), "crane"),
    ),
)
def test_a_name_of_two_classes_is_no_target(pixels, names, target):
    model = random_vit(dtype=torch.float32)
    model.pretrained_cfg = {"label_names": list(names)}
    with refused(TargetError, "'crane'", "classes 0 and 2", "Pass the number"):
        xai.explain(model, pixels, "rollout", target)
    assert xai.explain(model, pixels, "rollout", 2).target.tolist() == [2, 2]


def test_unknown_class_name_suggests_the_nearest(named_vit, pixels):
    with refused(TargetError, "Unknown class 'dgo'", "Did you mean 'dog'?", "Known: "):
        xai.explain(named_vit, pixels, "rollout", "dgo")


@pytest.mark.parametrize(
    ("target", "expected"),
    (
        ("dog", [1, 1]),
        ("cat", [0, 0]),
        ("tabby, cat", [0, 0]),
        (["cow", 2], [3, 2]),
        (2, [2, 2]),
        ([2, 0], [2, 0]),
        ((2, 0), [2, 2]),
        ([(2, 0), (1, 3)], [2, 1]),
        (torch.tensor([3, 1]), [3, 1]),
        (torch.tensor(3), [3, 3]),
        (np.int64(2), [2, 2]),
        (np.array([1, 3]), [1, 3]),
    ),
)
def test_targets_that_are_understood(named_vit, pixels, target, expected):
    assert xai.explain(named_vit, pixels, "rollout", target).target.tolist() == expected


# -- inputs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "words"),
    (
        (lambda x: x[:, :1], ("1 channels", "expects 3", "convert('RGB')")),
        (lambda x: x.repeat(1, 2, 1, 1), ("6 channels", "expects 3")),
        (lambda x: x.repeat(1, 1, 2, 2), ("(2, 3, 32, 32)", "processor(image)")),
        (lambda x: x[..., :4, :4], ("(4, 4)", "smaller than one patch (8, 8)", "Resize")),
        (lambda x: x[0], ("(3, 16, 16)", "expected (batch, channels", "inputs[None]")),
        (lambda x: x[None], ("(1, 2, 3, 16, 16)", "expected (batch, channels")),
        (lambda x: x[:0], ("empty batch", "at least one image")),
        (lambda x: x.long(), ("torch.int64", "expected floating point", "processor(image)")),
        (lambda x: x.byte(), ("torch.uint8", "expected floating point", "processor(image)")),
        (lambda x: x.double(), ("torch.float32", "torch.float64", "inputs.to(torch.float32)")),
        (lambda x: x.bfloat16(), ("torch.bfloat16", "inputs.to(torch.float32)")),
        (lambda x: x * float("nan"), ("NaN or Inf", "expected finite")),
        (lambda x: x / 0, ("NaN or Inf", "expected finite")),
        (lambda x: x.to("meta"), ("on cpu", "on meta", "inputs.to('cpu')")),
        (lambda x: x.numpy(), ("ndarray", "expected a float tensor", "processor(image)")),
        (lambda x: x.tolist(), ("list", "expected a float tensor", "processor(image)")),
        (lambda x: None, ("NoneType", "expected a float tensor", "processor(image)")),
        (lambda x: "cat.jpg", ("'cat.jpg'", "processor(path)")),
        (lambda x: {}, ("keys []", "expected 'pixel_values'")),
        (lambda x: {"image": x}, ("['image']", "expected 'pixel_values'")),
        (lambda x: {"pixel_values": x[0]}, ("(3, 16, 16)", "inputs[None]")),
    ),
)
def test_bad_inputs(vit, pixels, spoil, words):
    with refused(InputError, *words):
        xai.explain(vit, spoil(pixels), "rollout")


def test_a_single_bad_pixel_is_found(vit, pixels):
    spoilt = pixels.clone()
    spoilt[1, 2, 3, 4] = float("nan")
    with refused(InputError, "NaN or Inf"):
        xai.explain(vit, spoilt, "rollout")


def test_weights_that_give_no_number(pixels):
    model = random_vit(dtype=torch.float32)
    model.head.weight.data.fill_(float("nan"))
    with refused(InputError, "logits hold NaN or Inf", "check its weights"):
        xai.explain(model, pixels, "rollout")


def test_a_processors_dict_is_understood(vit, pixels):
    expected = xai.explain(vit, pixels, "rollout").relevance
    found = xai.explain(vit, {"pixel_values": pixels}, "rollout").relevance
    assert torch.equal(found, expected)


class Keywords(nn.Module):
    """Takes pixel_values and, per sample, how strongly to see them."""

    def __init__(self):
        super().__init__()
        self.vit = random_vit(dtype=torch.float32)

    def forward(self, pixel_values, gain=None):
        return self.vit(pixel_values if gain is None else pixel_values * gain[:, None, None, None])


class Local(Keywords):
    """Calls a local variable `pixel_values`, which is no parameter."""

    def forward(self, x):
        pixel_values = x * 1
        return self.vit(pixel_values)


@pytest.mark.parametrize("method", METHODS)
def test_entries_of_the_dict_follow_each_sample(pixels, method):
    gain = torch.tensor([0.5, 2.0])
    model, options = Keywords(), METHODS[method] | {"target": 1}
    both = {"pixel_values": pixels, "gain": gain}
    found = xai.explain(model, both, method, **options)
    torch.testing.assert_close(found.logits, model(pixels, gain).detach())
    if method == "smoothgrad":  # its noise follows the range of each picture as it came
        return
    for i in range(2):
        alone = {"pixel_values": pixels[i : i + 1], "gain": gain[i : i + 1]}
        expected = xai.explain(model, alone, method, **options).relevance[0]
        torch.testing.assert_close(found.relevance[i], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("model", (random_vit(dtype=torch.float32), Keywords(), Local()))
def test_entries_that_the_model_cannot_take(pixels, model):
    batch = {"pixel_values": pixels, "mask": torch.ones(2, 4)}
    with refused(InputError, "['mask']", type(model).__name__, "inputs['pixel_values'] alone"):
        xai.explain(model, batch, "rollout")


def test_a_local_variable_is_no_parameter(pixels):
    found = xai.explain(Local(), {"pixel_values": pixels}, "rollout")
    assert torch.equal(found.relevance, xai.explain(Local(), pixels, "rollout").relevance)


# -- models --------------------------------------------------------------------------------------


WITHOUT_ATTENTION = ("gradient", "gradient_x_input", "integrated_gradients", "smoothgrad")
WITHOUT_ATTENTION += ("gradient_sensitivity", "random")


@pytest.mark.parametrize("method", METHODS)
def test_a_model_without_attention(pixels, method):
    if method in WITHOUT_ATTENTION:
        att = xai.explain(SmallCNN(), pixels, method, **METHODS[method])
        assert att.pixels is None or att.pixels.shape == pixels.shape[:1] + pixels.shape[2:]
        return
    with refused(UnsupportedModelError, "SmallCNN", "no attention", "Explained are"):
        xai.explain(SmallCNN(), pixels, method, **METHODS[method])


@pytest.fixture(scope="module")
def swin():
    torch.manual_seed(0)
    config = {"img_size": 32, "window_size": 4, "embed_dim": 16, "depths": (1, 1)}
    name = "swin_tiny_patch4_window7_224"
    return timm.create_model(name, num_heads=(2, 2), num_classes=3, **config).eval()


@pytest.mark.parametrize("method", [m for m in METHODS if m != "random"])  # it reads no map
def test_windowed_attention_refuses_token_maps_and_explains_pixels(swin, method):
    inputs = torch.randn(1, 3, 32, 32)
    if all_methods()[method].streams == "apart":
        found = xai.explain(swin, inputs, method, **METHODS[method])
        assert found.pixels.shape == (1, 32, 32)
        assert torch.isfinite(found.pixels).all()
        return
    with refused(MethodNotApplicableError, "within windows", "tried on this model", "attnlrp"):
        xai.explain(swin, inputs, method, **METHODS[method])


def test_a_backbone_without_a_head(pixels):
    model = random_vit(dtype=torch.float32, num_classes=0, global_pool="")
    with refused(UnsupportedModelError, "(2, 5, 16)", "(batch, classes)", "classification head"):
        xai.explain(model, pixels, "rollout")


def test_a_torchscript_model(vit, pixels):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.trace(vit, pixels)
    with refused(UnsupportedModelError, "TorchScript", "Pass the eager module"):
        xai.explain(script, pixels)


def test_a_model_with_a_torchscript_part(pixels):
    model = random_vit(dtype=torch.float32)
    tokens = torch.randn(2, 5, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.blocks[1] = torch.jit.trace(model.blocks[1], tokens)
    with refused(UnsupportedModelError, "'blocks.1'", "TorchScript", "Pass the eager module"):
        xai.explain(model, pixels)


@pytest.mark.parametrize("model", (lambda x: x, ("model", "processor"), None, "vit-scenes"))
def test_something_that_is_no_model(pixels, model):
    with refused(UnsupportedModelError, type(model).__name__, "expected a torch.nn.Module"):
        xai.explain(model, pixels)


def test_a_model_made_in_inference_mode(pixels):
    with torch.inference_mode():
        model = random_vit(dtype=torch.float32)
    with refused(UnsupportedModelError, "inference_mode", "Load the model outside"):
        xai.explain(model, pixels)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("wrap", (torch.compile, nn.DataParallel))
def test_compiled_and_parallel_models_are_unwrapped(vit, pixels, method, wrap):
    expected = xai.explain(vit, pixels, method, **METHODS[method])
    found = xai.explain(wrap(vit), pixels, method, **METHODS[method])
    assert torch.equal(found.relevance, expected.relevance)


# -- methods and options -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "nearest"),
    (
        ("rolout", "'rollout'"),
        ("attn lrp", "'attnlrp'"),
        ("grad_x_input", "'gradient_x_input'"),
        ("transformer-attribution", "'transformer_attribution'"),
    ),
)
def test_unknown_method_suggests_the_nearest(vit, pixels, method, nearest):
    with refused(OptionError, f"Unknown method {method!r}", f"Did you mean {nearest}", "Known: "):
        xai.explain(vit, pixels, method)


@pytest.mark.parametrize("method", ("", None, 3, ["rollout"], {}))
def test_method_without_a_near_name_lists_them_all(vit, pixels, method):
    with refused(OptionError, f"Unknown method {method!r}", *METHODS):
        xai.explain(vit, pixels, method)


@pytest.mark.parametrize("method", METHODS)
def test_unknown_option(vit, pixels, method):
    with refused(OptionError, f"Unknown option of {method!r}", "'colour'", "Known: "):
        xai.explain(vit, pixels, method, colour=1)


def test_unknown_option_suggests_the_nearest(vit, pixels):
    with refused(OptionError, "'start_layr'", "Did you mean 'start_layer'?"):
        xai.explain(vit, pixels, "rollout", start_layr=1)


def test_unknown_compat(vit, pixels):
    with refused(OptionError, "Unknown compat 'ref'", "Did you mean 'reference'?"):
        xai.explain(vit, pixels, compat="ref")


BAD_VALUES = (
    *(
        (method, "start_layer", value, (f"expected an integer from {least} to 1",))
        for method in ("rollout", "generic_attention", "transformer_attribution", "lrp_rollout")
        for value, least in ((2, 0), (99, 0), (-3, -2))
    ),
    *(
        (method, "start_layer", value, (f"expected an integer from {least} to 1",))
        for method in ("bi_head", "bi_token")
        for value, least in ((2, 0), (-3, -2))
    ),
    *(
        (method, "start_layer", value, ("expected an integer",))
        for method in ("rollout", "generic_attention", "transformer_attribution", "bi_head")
        for value in ("1", 1.0, True)
    ),
    *(
        ("raw_attention", "layer", value, ("expected an integer from -2 to 1",))
        for value in (2, -3)
    ),
    *(("partial_lrp", "layer", value, ("expected an integer from 0 to 1",)) for value in (2, -2)),
    ("partial_lrp", "layer", "last", ("expected an integer", "default of 'partial_lrp' is -1")),
    *(
        (method, "readout", value, ("expected a token number from 0 to 4", "1 token(s)"))
        for method in ("raw_attention", "rollout", "attn_gradcam", "partial_lrp", "bi_token")
        for value in (5, -1)
    ),
    ("rollout", "readout", "cls", ("expected an integer or None",)),
    ("rollout", "normalize_rows", "yes", ("expected True or False", "is True")),
    *(("lrp", "alpha", value, ("at least 1",)) for value in (0.5, -1, float("nan"), float("inf"))),
    ("lrp", "alpha", "two", ("expected a number", "is 1.0")),
    ("lrp", "rules", "zplus-split", ("Unknown rules", "Did you mean 'zplus_split'")),
    ("transformer_attribution", "rules", "epsilon", ("Unknown rules", "zplus, zplus_split")),
    *(
        (method, "steps", value, ("expected an integer from 2",))
        for method in ("integrated_gradients", "bi_head", "bi_token")
        for value in (1, 0, -5)
    ),
    ("integrated_gradients", "steps", 2.5, ("expected an integer", "is 20")),
    *(
        (method, "chunk", 0, ("expected an integer from 1", "samples per forward pass"))
        for method in ("integrated_gradients", "smoothgrad", "bi_head", "bi_token")
    ),
    ("integrated_gradients", "quadrature", "gauss", ("Did you mean 'gauss_legendre'?",)),
    ("integrated_gradients", "quadrature", "reference", ("Unknown quadrature", "trapezoid")),
    ("integrated_gradients", "baseline", float("nan"), ("expected a finite number",)),
    ("integrated_gradients", "baseline", torch.zeros(3, 5, 5), ("(3, 5, 5)", "(3, 16, 16)")),
    ("integrated_gradients", "baseline", torch.zeros(7, 3, 16, 16), ("(7, 3, 16, 16)",)),
    ("integrated_gradients", "baseline", torch.zeros(1, 3, 16, 16), ("or (2, 3, 16, 16)",)),
    ("integrated_gradients", "baseline", torch.zeros(16), ("(16,)", "expected a finite number")),
    ("integrated_gradients", "baseline", "black", ("'black'", "expected a number or a Tensor")),
    ("gradient", "reduce", "max", ("Unknown reduce 'max'", "Did you mean 'max_abs'?")),
    ("smoothgrad", "reduce", "average", ("Unknown reduce 'average'", "l2, max_abs, sum")),
    ("smoothgrad", "samples", 0, ("expected an integer from 1",)),
    *(("smoothgrad", "noise", v, ("at least 0",)) for v in (-0.1, float("nan"), float("inf"))),
    ("smoothgrad", "seed", -1, ("expected an integer from 0",)),
    ("bi_head", "feedback", "i", ("Unknown feedback 'i'", "Did you mean 'ig'?")),
    ("bi_token", "feedback", None, ("expected a name", "is 'ig'")),
)


@pytest.mark.parametrize(("method", "option", "value", "words"), BAD_VALUES)
def test_bad_option_value(vit, pixels, method, option, value, words):
    with refused(OptionError, option, *words):
        xai.explain(vit, pixels, method, **{option: value})


def test_a_baseline_may_be_one_for_all_or_one_for_each(vit, pixels):
    ask = {"method": "integrated_gradients", "target": 1, "steps": 4}
    start = torch.full_like(pixels, 0.1)
    expected = xai.explain(vit, pixels, **ask, baseline=0.1).relevance
    for baseline in (start, start[0], start[0, 0, 0, 0]):
        assert torch.equal(xai.explain(vit, pixels, **ask, baseline=baseline).relevance, expected)


def test_every_option_refuses_a_value_of_a_wrong_type(vit, pixels):
    for method, chosen in all_methods().items():
        for option in chosen.options:
            with refused(OptionError, f"{option} is ", "expected ", f"The default of {method!r}"):
                xai.explain(vit, pixels, method, **{option: object()})


@pytest.mark.parametrize("size", (0, -1, (0, 4), (4, 4, 4), 2.5, "large"))
def test_bad_heatmap_size(vit, pixels, size):
    with refused(OptionError, "size is ", "expected a positive integer or (height, width)"):
        xai.explain(vit, pixels, "rollout").heatmap(size)


def test_every_error_is_ours_and_a_builtin_too():
    pairs = {InputError: ValueError, TargetError: ValueError, OptionError: ValueError}
    pairs |= {UnsupportedModelError: RuntimeError, MethodNotApplicableError: RuntimeError}
    for error, builtin in pairs.items():
        assert issubclass(error, XAIError) and issubclass(error, builtin)
