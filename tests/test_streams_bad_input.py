"""Inputs of models of several streams that cannot be explained: one clear error each."""

import copy

import pytest
import torch
from small_streams import FEATURES, random_inputs, random_model

import xai_lib as xai
from xai_lib.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")


def rows(x, count):
    """Return the first `count` rows of x, repeated where it has fewer."""
    return x.repeat(count, *[1] * (x.dim() - 1))[:count]


def changed(name, change):
    """Return inputs of a model after `change`, a function of the dict."""
    inputs = random_inputs(name)
    change(inputs)
    return inputs


def set_to(key, value):
    return lambda inputs: inputs.update({key: value(inputs[key])})


def sized(prefix, count):
    """Return a change that gives all inputs of a stream `count` rows."""

    def change(inputs):
        for key in [key for key in inputs if key.startswith(prefix)]:
            inputs[key] = rows(inputs[key], count)

    return change


BAD = {
    "three images for two questions": ("lxmert", sized("visual", 3), None),
    "one image for two questions": ("lxmert", sized("visual", 1), None),
    "one image for two texts of one sequence": (
        "visualbert",
        sized("visual", 1),
        None,
    ),
    "one picture for two texts": ("blip", sized("pixel", 1), None),
    "no images": ("lxmert", sized("visual", 0), None),
    "features without regions": (
        "lxmert",
        set_to("visual_feats", lambda x: x[:, 0]),
        "visual_feats.*shape",
    ),
    "features of whole numbers": (
        "visualbert",
        set_to("visual_embeds", lambda x: x.long()),
        "float features",
    ),
    "features of another detector": (
        "lxmert",
        set_to("visual_feats", lambda x: x[..., :-1]),
        f"takes {FEATURES}",
    ),
    "features that are not finite": (
        "lxmert",
        set_to("visual_feats", lambda x: x / 0),
        "NaN or Inf",
    ),
    "boxes of other regions": (
        "lxmert",
        set_to("visual_pos", lambda x: x[:, :-1]),
        "visual_pos.*boxes of shape",
    ),
    "boxes of three numbers": (
        "lxmert",
        set_to("visual_pos", lambda x: x[..., :-1]),
        "visual_pos.*boxes of shape",
    ),
    "boxes in pixels": (
        "lxmert",
        set_to("visual_pos", lambda x: x * 640),
        "parts of the image's width",
    ),
    "a mask of other regions": (
        "lxmert",
        set_to("visual_attention_mask", lambda x: x[:, :-1]),
        "visual_attention_mask",
    ),
    "an image without regions": (
        "visualbert",
        set_to("visual_attention_mask", lambda x: x * 0),
        "without regions",
    ),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("method", ["generic_attention", "gradient_x_input"])
def test_bad_input_is_one_error_and_the_model_is_restored(case, method):
    name, change, message = BAD[case]
    model, inputs = random_model(name), changed(name, change)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=message):
        xai.explain(model, inputs, method)
    assert all(torch.equal(x, before[key]) for key, x in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(m.training or m._forward_hooks for m in model.modules())
    # And it still explains what is right.
    assert xai.explain(model, random_inputs(name), method).relevance.isfinite().all()


@pytest.mark.parametrize("name", ["lxmert", "visualbert", "blip"])
def test_a_question_longer_than_the_model(name):
    inputs = random_inputs(name)
    for key in ("input_ids", "attention_mask"):
        inputs[key] = inputs[key].repeat(1, 100)
    with pytest.raises(InputError, match=r"600|512"):
        xai.explain(random_model(name), inputs, "generic_attention")
