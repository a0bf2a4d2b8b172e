"""What must hold for every small vision transformer, whatever its weights and shape."""

import pytest
import torch
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from small_vits import METHODS, random_pixels, random_vit, relative_error, tolerance

import xai_lib as xai

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

few = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@st.composite
def vits(draw, **fixed):
    """Draw a ViT: size, depth, heads, image shape, prefix tokens, pooling, LayerScale, QK norm."""
    heads = draw(st.integers(1, 3))
    class_token = draw(st.booleans())
    config = {
        "seed": draw(st.integers(0, 10_000)),
        "img_size": (8 * draw(st.integers(1, 3)), 8 * draw(st.integers(2, 3))),
        "num_heads": heads,
        "embed_dim": heads * draw(st.sampled_from((4, 8))),
        "depth": draw(st.integers(1, 3)),
        "class_token": class_token,
        "reg_tokens": draw(st.integers(0, 2)),
        "global_pool": draw(st.sampled_from(("token", "avg"))) if class_token else "avg",
        "init_values": draw(st.sampled_from((None, 0.5))),
        "qk_norm": draw(st.booleans()),
        "no_embed_class": draw(st.booleans()),
    }
    model = random_vit(**config | fixed)
    note(str(config | fixed))
    return model


def explained(model, inputs, method, **options):
    """Return a method's full answer, flat: relevance and pixels, (samples, values)."""
    found = xai.explain(model, inputs, method, **METHODS[method] | options)
    parts = [found.relevance.flatten(-1)]
    if found.pixels is not None:
        parts.append(found.pixels.flatten(-2))
    return torch.cat(parts, -1)


def assert_close(found, expected, method, times=1):
    error = relative_error(found, expected).max()
    assert error <= times * tolerance(method), error


@pytest.mark.parametrize("method", METHODS)
@few
@given(model=vits())
def test_a_batch_equals_its_samples(method, model):
    inputs = random_pixels(model, batch=3)
    together = explained(model, inputs, method)
    alone = torch.cat([explained(model, x[None], method) for x in inputs])
    assert torch.isfinite(together).all()
    assert_close(together, alone, method)


@pytest.mark.parametrize("method", METHODS)
@few
@given(model=vits())
def test_fused_attention_equals_eager(method, model):
    inputs = random_pixels(model)
    answers = []
    for fused in (True, False):
        for block in model.blocks:
            block.attn.fused_attn = fused
        answers.append(explained(model, inputs, method))
    # The rules' 1e-9 meets QKᵀ before it is scaled in the one and after it in the other.
    assert_close(*answers, method, times=10)


@pytest.mark.parametrize("method", METHODS)
@few
@given(model=vits())
def test_several_targets_share_a_forward_and_equal_single_ones(method, model):
    inputs = random_pixels(model)
    # The first call examines the model.
    explained(model, inputs, method)
    forwards = []
    handle = model.register_forward_hook(lambda *_: forwards.append(1))
    targets = [2, [1, 0], 3]
    together = explained(model, inputs, method, targets=targets)
    shared = len(forwards)
    for target, found in zip(targets, together, strict=True):
        forwards.clear()
        assert_close(found, explained(model, inputs, method, target=target), method)
        assert len(forwards) == shared
    handle.remove()


@pytest.mark.parametrize("method", METHODS)
def test_the_predicted_class_is_the_default_target(method):
    model = random_vit()
    inputs = random_pixels(model, batch=4)
    predicted = model(inputs).argmax(-1)
    found = xai.explain(model, inputs, method, **METHODS[method])
    assert torch.equal(found.target, predicted)
    chosen = explained(model, inputs, method, target=predicted)
    assert torch.equal(explained(model, inputs, method), chosen)


@few
@given(model=vits(class_token=True, global_pool="token", embed_dim=48))
def test_lrp_conserves_relevance_down_to_the_token_embeddings(model):
    """The head, sums, products and linear maps all keep ΣR; it starts as 1 at the logit.

    z+ drops what no input agrees with in sign: a unit of a very narrow layer, or in a mean pool a
    channel whose tokens are all negative. Hence 48 channels and a class token here.
    """
    found = xai.explain(model, random_pixels(model), "lrp")
    torch.testing.assert_close(found.relevance.sum(1), torch.ones(2).double(), rtol=0, atol=1e-6)


@few
@given(model=vits(class_token=True, global_pool="token", pos_embed="none"))
def test_lrp_conserves_relevance_from_each_token_to_its_pixels(model):
    """Without position embeddings a patch's relevance goes to its pixels whole."""
    found = xai.explain(model, random_pixels(model), "lrp")
    patches = found.layout.patch_sums(found.pixels)[:, found.layout.prefix :]
    expected = found.relevance[:, found.layout.prefix :]
    torch.testing.assert_close(patches, expected, rtol=1e-6, atol=1e-6)


@few
@given(model=vits())
def test_rollout_rows_are_distributions(model):
    found = xai.explain(model, random_pixels(model), "rollout").relevance
    assert (found >= 0).all()
    torch.testing.assert_close(found.sum(1), torch.ones(2).double())


@few
@given(model=vits())
def test_integrated_gradients_are_complete(model):
    inputs = random_pixels(model)
    baseline = torch.full_like(inputs[0], 0.1)
    found = xai.explain(
        model, inputs, "integrated_gradients", target=1, steps=400, baseline=baseline, chunk=400
    )
    with torch.no_grad():
        gap = (model(inputs) - model(baseline[None]))[:, 1]
    torch.testing.assert_close(found.pixels.sum((1, 2)), gap, rtol=1e-5, atol=1e-5)


@few
@given(model=vits())
def test_pixel_methods_sum_to_their_patches(model):
    found = xai.explain(model, random_pixels(model), "gradient_x_input")
    rows, columns = found.grid
    patches = found.pixels.reshape(2, rows, 8, columns, 8).sum((2, 4))
    torch.testing.assert_close(found.patches, patches)
    assert not found.relevance[:, : found.layout.prefix].any()


@few
@given(model=vits())
def test_shapes_and_content(model):
    found = xai.explain(model, random_pixels(model))
    rows, columns = (size // 8 for size in model.patch_embed.img_size)
    prefix = model.num_prefix_tokens
    assert found.relevance.shape == (2, prefix + rows * columns)
    assert found.grid == (rows, columns)
    assert found.content.tolist() == [[False] * prefix + [True] * rows * columns] * 2
    assert found.streams.keys() == {"image"}
    assert found.streams["image"] is found.relevance
    assert found.heatmap().shape == (2, 8 * rows, 8 * columns)
