"""Sanity: stages in execution order, random parameters, curves, and the model left alone."""

import copy
import gc
import weakref
from dataclasses import replace

import pandas as pd
import pytest
import scipy.stats
import torch
import transformers
from scene_batches import assert_a_batch_is_its_samples, scene_batch, scene_subject
from skimage.metrics import structural_similarity
from small_vits import random_pixels, random_vit
from torch import nn
from torchvision.models import VisionTransformer as TorchvisionViT

import xai_lib as xai
from xai_lib.errors import OptionError, UnsupportedModelError
from xai_lib.evaluators import create, parse_methods, randomisation, sanity
from xai_lib.evaluators.maps import enlarged
from xai_lib.evaluators.randomisation import Cascade, cascade_of, random_like, stages_of
from xai_lib.statistics.summary import curve, summarise

pytestmark = pytest.mark.usefixtures("one_thread")
METHODS = parse_methods("raw_attention,gradient")
STAGES = ["head", "norm", *(f"blocks.{i}" for i in reversed(range(6))), "patch_embed.proj"]


@pytest.fixture(scope="module")
def rows():
    """Two samples, two methods, every depth: computed once."""
    return list(create("sanity").rows(scene_subject(), scene_batch(2), METHODS))


def names(stages):
    return {stage: set(parameters) for stage, parameters in stages.items()}


def test_stages_of_a_timm_model_run_from_the_patches_to_the_head():
    model = scene_subject().model
    stages = names(stages_of(model, torch.zeros(1, 3, 96, 96)))
    assert list(stages) == STAGES[::-1]
    first = {"cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    assert stages["patch_embed.proj"] == first
    assert all(name.startswith("blocks.4.") for name in stages["blocks.4"])
    assert set.union(*stages.values()) == {name for name, _ in model.named_parameters()}


def test_stages_of_other_families_need_no_table():
    torch.manual_seed(0)
    pixels = torch.zeros(1, 3, 16, 16)
    vision = TorchvisionViT(16, 8, 2, 2, 16, 32, num_classes=3).eval()
    blocks = [f"encoder.layers.encoder_layer_{i}" for i in range(2)]
    stages = names(stages_of(vision, pixels))
    assert list(stages) == ["conv_proj", *blocks, "encoder.ln", "heads.head"]
    assert "class_token" in stages["conv_proj"]
    assert "encoder.pos_embedding" in stages[blocks[0]]
    # Read by a fused kernel and never called, it belongs to its block all the same.
    assert f"{blocks[1]}.self_attention.out_proj.weight" in stages[blocks[1]]
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        image_size=16, patch_size=8,
    )  # fmt: skip
    stages = stages_of(transformers.ViTForImageClassification(config).eval(), pixels)
    *_, norm, head = stages
    assert len(stages) == 5 and (norm, head) == ("vit.layernorm", "classifier")
    assert "vit.embeddings.cls_token" in next(iter(stages.values()))


def test_a_number_around_the_whole_model_is_no_stage():
    model = scene_subject().model
    wrapped = nn.Sequential(nn.Identity(), nn.Sequential(model))
    stages = stages_of(wrapped, torch.zeros(1, 3, 96, 96))
    assert list(stages) == [f"1.0.{stage}" for stage in STAGES[::-1]]
    assert "1.0.cls_token" in stages["1.0.patch_embed.proj"]


def test_every_parameter_of_a_stage_is_random_and_no_other():
    model = random_vit()
    pixels = random_pixels(model)
    cascade = Cascade(model, pixels)
    original = dict(model.named_parameters())
    groups = stages_of(model, pixels)
    for depth in range(len(cascade.stages) + 1):
        random = set(cascade.stages[:depth])
        with cascade.randomised(depth) as lent:
            for name, parameter in lent.named_parameters():
                stage = next(stage for stage in groups if name in groups[stage])
                assert torch.equal(parameter, original[name]) == (stage not in random), name
    with cascade.randomised(0) as lent:
        assert torch.equal(lent(pixels), model(pixels))


def test_random_numbers_have_the_parameters_moments_and_depend_on_name_and_seed():
    weight = torch.randn(300, 200) * 0.3 + 2
    drawn = random_like(weight, "a.weight")
    assert drawn.mean() == pytest.approx(2, abs=0.01)
    assert drawn.std() == pytest.approx(0.3, abs=0.01)
    assert scipy.stats.kstest((drawn.flatten() - 2) / 0.3, "norm").pvalue > 0.01
    # Nothing of the weights is left but their moments.
    torch.testing.assert_close(drawn, random_like(weight.flip(0), "a.weight"))
    assert not torch.equal(drawn, random_like(weight, "b.weight"))
    assert not torch.equal(drawn, random_like(weight, "a.weight", seed=1))
    assert torch.equal(random_like(torch.zeros(5), "bias"), torch.zeros(5))
    assert random_like(weight.half(), "a.weight").dtype == torch.half


def test_the_copy_is_made_once_follows_the_weights_and_dies_with_the_model():
    model = random_vit()
    pixels = random_pixels(model)
    first = cascade_of(model, pixels)
    assert cascade_of(model, pixels) is first
    assert cascade_of(nn.DataParallel(model), pixels) is first
    assert cascade_of(model, pixels, seed=1) is not first
    with torch.no_grad():
        model.head.weight.mul_(2)
    trained = cascade_of(model, pixels)
    with trained.randomised(0) as lent:
        assert torch.equal(lent.head.weight, model.head.weight)
    # What an averaging of weights does: neither address nor version of the tensor changes.
    model.head.weight.data.mul_(2)
    averaged = cascade_of(model, pixels)
    with averaged.randomised(0) as lent:
        assert torch.equal(lent.head.weight, model.head.weight)
    with averaged.randomised(2):
        assert cascade_of(model, pixels) is averaged
    gone = weakref.ref(averaged)
    del model, first, trained, averaged, lent
    gc.collect()
    assert gone() is None


def test_the_copy_is_whole_again_after_an_error():
    model = random_vit()
    cascade = Cascade(model, random_pixels(model))
    with pytest.raises(KeyError), cascade.randomised(3):
        raise KeyError
    with cascade.randomised(0) as lent:
        assert_same_bits(lent, model)


def assert_same_bits(a, b):
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_a_model_that_cannot_be_copied_is_refused():
    model = random_vit()
    model.cached = model.head.weight * 2
    with pytest.raises(UnsupportedModelError, match="cannot be copied"):
        Cascade(model, random_pixels(model))


def test_rows_hold_curves_named_by_their_stages(rows):
    assert [(r["method"], r["index"]) for r in rows] == [
        (m.label, i) for m in METHODS for i in (10, 11)
    ]
    for row in rows:
        assert row["error"] is None and row["stages"] == STAGES
        for name in sanity.CURVES:
            entries = row[name]
            assert len(entries) == len(STAGES) and all(-1 <= e <= 1 for e in entries)
            assert row[f"{name}_full"] == entries[-1]
            assert row[f"{name}_mean"] == pytest.approx(sum(entries) / len(entries))
        assert row["rank_correlation"] == row["rank_correlation_abs"]


def test_images_that_the_model_refuses_are_error_rows():
    batch = replace(scene_batch(2), images=torch.zeros(2, 3, 64, 64), masks=None)
    refused = list(create("sanity").rows(scene_subject(), batch, METHODS))
    assert len(refused) == 4 and all("doesn't match model" in row["error"] for row in refused)
    assert all(row[c] is None for row in refused for c in (*sanity.COLUMNS, "stages"))


def test_a_flipped_sign_is_seen_by_the_signed_correlation_alone():
    maps = torch.randn(2, 9, 9, generator=torch.Generator().manual_seed(0)).double()
    for rank, absolute, similarity in sanity.likeness(maps, -maps):
        assert (rank, absolute) == (pytest.approx(-1), pytest.approx(1)) and similarity < 0


def test_what_no_head_decides_does_not_change_with_the_head(rows):
    """Attention of the last block is computed before the norm and the head are."""
    for row in rows:
        if row["method"] == "raw_attention":
            assert row["rank_correlation"][:2] == pytest.approx([1, 1])
            assert row["ssim"][:2] == pytest.approx([1, 1])
        else:
            assert max(row["rank_correlation"][:2]) < 0.99
        assert row["rank_correlation"][-1] < 0.9


def test_the_curves_are_those_of_a_model_randomised_by_hand(rows):
    subject, batch = scene_subject(), scene_batch(2)
    model = copy.deepcopy(subject.model)
    pixels = subject.normalize(batch.images)
    target = subject.model(pixels).argmax(-1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(("head", "norm", "blocks.5")):
                parameter.copy_(random_like(parameter, name))
    for method in ("raw_attention", "gradient"):
        before, after = (
            xai.explain(m, pixels, method, target=target) for m in (subject.model, model)
        )
        if before.pixels is None:
            maps = [enlarged(found.patches, (96, 96)) for found in (before, after)]
        else:
            maps = [found.pixels for found in (before, after)]
        expected = [row for row in rows if row["method"] == method]
        for a, b, row in zip(*(m.double().numpy() for m in maps), expected, strict=True):
            rho = scipy.stats.spearmanr(a.ravel(), b.ravel()).statistic
            assert row["rank_correlation"][2] == pytest.approx(rho, abs=1e-5)
            a, b = ((x - x.min()) / (x.max() - x.min()) for x in (a, b))
            similarity = structural_similarity(a, b, data_range=1.0)
            assert row["ssim"][2] == pytest.approx(similarity, abs=1e-5)


def test_a_batch_is_its_samples_and_the_model_is_untouched(rows):
    assert_a_batch_is_its_samples(create("sanity"), METHODS, n=2, rows=rows)


def test_seeds_differ_and_repeat(rows):
    subject, batch = scene_subject(), scene_batch(1)
    other = list(create("sanity", seed=1).rows(subject, batch, METHODS[1:]))
    again = list(create("sanity", seed=1).rows(subject, batch, METHODS[1:]))
    assert other == again and other[0]["ssim"] != rows[2]["ssim"]


def test_randomising_nothing_changes_nothing(monkeypatch):
    """With every parameter "drawn" as it is, all depths are the original model."""
    monkeypatch.setattr(randomisation, "random_like", lambda p, name, seed: p.detach().clone())
    subject = replace(scene_subject(), model=copy.deepcopy(scene_subject().model))
    for row in create("sanity").rows(subject, scene_batch(1), METHODS):
        for name in sanity.CURVES:
            assert row[name] == pytest.approx([1] * len(STAGES))


def test_a_random_model_without_a_map_leaves_that_depth_open(monkeypatch):
    explained = sanity.explained

    def spoiled(subject, batch, spec, *args, **options):
        found = explained(subject, batch, spec, *args, **options)
        if not options.get("keep", True) and spoiled.calls in (1, 8):
            found.values[:] = 0.5 if spoiled.calls == 1 else torch.nan
        spoiled.calls += not options.get("keep", True)
        return found

    spoiled.calls = 0
    monkeypatch.setattr(sanity, "explained", spoiled)
    rows = list(create("sanity").rows(scene_subject(), scene_batch(2), METHODS[1:]))
    for row in rows:
        rho = row["rank_correlation"]
        assert [i for i, value in enumerate(rho) if value is None] == [1, 8]
        assert row["rank_correlation_full"] is None and row["error"] is None
        assert row["rank_correlation_mean"] == pytest.approx(sum(filter(None, rho)) / 7)
        assert [i for i, value in enumerate(row["ssim"]) if value is None] == [8]
    table = summarise(pd.DataFrame(rows), sanity.Sanity.metrics).set_index("metric")
    assert table.loc["rank_correlation_full", "n"] == 0
    assert table.loc["rank_correlation_full", "failed"] == 2
    steps = curve(pd.DataFrame(rows), "rank_correlation")
    assert list(steps["n"]) == [2, 0, 2, 2, 2, 2, 2, 2, 0]


def test_constant_maps_and_bad_images_are_error_rows(monkeypatch):
    explained = sanity.explained

    def spoiled(subject, batch, spec, *args, **options):
        found = explained(subject, batch, spec, *args, **options)
        if options.get("keep", True) and spec.label == "gradient":
            found.values[0] = 0.1
        return found

    monkeypatch.setattr(sanity, "explained", spoiled)
    batch = scene_batch(3)
    batch.images[1, 0, 0, 0] = torch.nan
    rows = list(create("sanity").rows(scene_subject(), batch, METHODS))
    errors = {(row["method"], row["index"]): row["error"] for row in rows}
    assert "ranks nothing" in errors["gradient", 10] and errors["raw_attention", 10] is None
    assert "NaN" in errors["gradient", 11] and "NaN" in errors["raw_attention", 11]
    assert errors["gradient", 12] is None and errors["raw_attention", 12] is None
    for row in rows:
        assert (row["ssim"] is None) == (row["error"] is not None)
        assert row.keys() == rows[0].keys()


def test_unknown_maps_are_refused():
    with pytest.raises(OptionError, match="native"):
        create("sanity", maps="pixels")
