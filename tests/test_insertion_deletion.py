"""Insertion and deletion: against a plain loop, on planted evidence, and what has no number."""

import numpy as np
import pandas as pd
import pytest
import torch
from fixed_maps import SPEC, batch_of, choose_maps, subject_of
from hypothesis import given, settings
from hypothesis import strategies as st
from small_vits import random_vit
from torchvision.transforms.v2.functional import gaussian_blur

import xai_lib as xai
from xai_lib.datasets.worlds.scenes import Scenes
from xai_lib.errors import InputError, OptionError, TargetError
from xai_lib.evaluators import Subject, create, parse_methods
from xai_lib.evaluators.insertion_deletion import ORDERS, blurred
from xai_lib.evaluators.maps import explained

pytestmark = pytest.mark.usefixtures("one_thread")


def frame_of(subject, batch, methods, **options):
    return pd.DataFrame(create("insertion_deletion", **options).rows(subject, batch, methods))


def random_images(n, size=16, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, size, size, generator=draw, dtype=torch.float64)


class Square(torch.nn.Module):
    """Class 1 is the brightness of the upper left quarter, class 0 a constant."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, x):
        half = x.shape[-1] // 2
        bright = 8 * x[:, :, :half, :half].mean((1, 2, 3))
        return torch.stack([torch.full_like(bright, 1.0), bright], 1)


def plain_loop(model, image, ranking, start, end, steps):
    """Change the pixels of `ranking` one after the other; return the predicted class's curve."""
    chosen = int(model(image[None])[0].argmax())
    now, pixels, done, curve = start.clone(), image[0].numel(), 0, []
    for i in range(steps + 1):
        while done < pixels * i // steps:
            row, column = divmod(ranking[done], image.shape[-1])
            now[:, row, column] = end[:, row, column]
            done += 1
        with torch.no_grad():
            curve.append(model(now[None])[0].softmax(0)[chosen].item())
    return curve


@pytest.mark.parametrize("steps", (1, 5, 28))
def test_curves_are_those_of_a_plain_loop(steps):
    model = random_vit()
    images = random_images(3)
    subject = subject_of(model, (16, 16), 5, mean=0.4, std=0.3)
    methods = parse_methods("generic_attention,gradient_x_input")
    frame = frame_of(subject, batch_of(images), methods, steps=steps)
    assert len(frame) == 3 * 2 * 2 and frame["error"].isna().all()
    clean = subject.normalize(images)
    starts = {"deletion": clean, "insertion": blurred(clean)}
    ends = {"deletion": torch.zeros_like(clean), "insertion": clean}
    for spec in methods:
        values = explained(subject, batch_of(images), spec).values
        for _, row in frame[frame["method"] == spec.label].iterrows():
            i, order = row["index"], row["order"]
            # A stable sort of what is negated: the most relevant first, ties row by row.
            ranking = np.argsort(-values[i].flatten().numpy(), kind="stable").tolist()
            curve = plain_loop(model, clean[i], ranking, starts[order][i], ends[order][i], steps)
            np.testing.assert_allclose(row["probabilities"], curve, rtol=0, atol=1e-12)
            area = np.trapezoid(curve, np.linspace(0, 1, steps + 1))
            assert row["auc"] == pytest.approx(area, abs=1e-12)


def test_the_evidence_first_beats_the_evidence_last(monkeypatch):
    images = torch.full((1, 3, 32, 32), 0.9, dtype=torch.float64)
    # Something for the blur to take away.
    images[:, :, 1::2, :16:2] = 0.55
    evidence = torch.zeros(1, 32, 32)
    evidence[:, :16, :16] = 1.0
    area = {}
    for name, values in (("found", evidence), ("missed", 1 - evidence)):
        choose_maps(monkeypatch, "insertion_deletion", values)
        frame = frame_of(subject_of(Square(), (32, 32)), batch_of(images), [SPEC])
        area[name] = frame.set_index("order")["auc"]
        probability = frame.set_index("order")["probabilities"]
        # With the evidence gone, what is left is one class at 0 and one at 1.
        assert probability["deletion"][-1] == pytest.approx(1 / (1 + np.e))
        assert probability["insertion"][-1] == pytest.approx(probability["deletion"][0])
    assert area["found"]["deletion"] < area["missed"]["deletion"] - 0.3
    # The evidence is a quarter of the image: after 7 of 28 parts nothing changes any more.
    choose_maps(monkeypatch, "insertion_deletion", evidence)
    frame = frame_of(subject_of(Square(), (32, 32)), batch_of(images), [SPEC])
    curve = np.array(frame["probabilities"][0])
    assert (np.diff(curve[:8]) < 0).all() and np.ptp(curve[7:]) < 1e-12


def test_the_probability_is_that_of_the_class_that_the_map_explains(monkeypatch):
    """In half precision a method that computes in float32 may predict another class."""
    images = torch.full((2, 3, 16, 16), 0.9, dtype=torch.float64)
    explained = torch.tensor([1, 0])
    choose_maps(monkeypatch, "insertion_deletion", random_images(2)[:, 0], predicted=explained)
    subject = subject_of(Square(), (16, 16))
    frame = frame_of(subject, batch_of(images), [SPEC], steps=2)
    whole = Square()(subject.normalize(images)).softmax(1)
    assert whole.argmax(1).tolist() == [1, 1], "this test could not fail"
    for _, row in frame[frame["order"] == "deletion"].iterrows():
        expected = whole[row["index"], explained[row["index"]]].item()
        assert row["probabilities"][0] == pytest.approx(expected, abs=1e-12)


def test_what_does_not_depend_on_the_method_runs_once():
    sizes = []
    model = random_vit()
    model.register_forward_pre_hook(
        lambda module, args: (
            sizes.append(len(args[0])) if torch.is_inference_mode_enabled() else None
        )
    )
    batch = batch_of(random_images(3))
    frame_of(subject_of(model, (16, 16), 4), batch, parse_methods("rollout,raw_attention"), steps=6)
    # Clean and blurred images and one of nothing; five inner points of two curves and two methods.
    total = 3 + 3 + 1 + 2 * 2 * 5 * 3
    assert sizes == [4] * (total // 4) + [total % 4]


def test_blur_is_the_published_one_at_the_published_size_and_in_proportion():
    images = random_images(2, 224)
    assert torch.equal(blurred(images), gaussian_blur(images, [11, 11], [5.0, 5.0]))
    small = random_images(2, 96)
    assert torch.equal(blurred(small), gaussian_blur(small, [5, 5], [5 * 96 / 224] * 2))
    tiny = random_images(1, 8)
    assert blurred(tiny).var() < tiny.var()
    grey = torch.full((1, 3, 20, 30), 0.3, dtype=torch.float64)
    torch.testing.assert_close(blurred(grey), grey)


def test_a_batch_is_its_samples():
    subject = subject_of(random_vit(1), (16, 16), 4)
    batch = batch_of(random_images(4, seed=1))
    methods = parse_methods("generic_attention")
    whole = frame_of(subject, batch, methods).sort_values(["index", "order"])
    parts = pd.concat([frame_of(subject, batch[[i]], methods) for i in range(4)])
    assert whole["index"].tolist() == parts["index"].tolist()
    assert whole["order"].tolist() == parts["order"].tolist()
    for column in ("probabilities", "auc"):
        found, expected = (np.array(frame[column].tolist()) for frame in (whole, parts))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


@pytest.mark.slow
@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.integers(0, 1000), st.floats(0.01, 100), st.floats(-10, 10))
def test_scaling_and_shifting_a_map_changes_nothing(seed, factor, shift):
    values = random_images(2, seed=seed)[:, 0]
    found = []
    for v in (values, factor * values + shift):
        with pytest.MonkeyPatch.context() as patch:
            choose_maps(patch, "insertion_deletion", v)
            frame = frame_of(subject_of(Square(), (16, 16)), batch_of(random_images(2)), [SPEC])
        found.append(frame["auc"].tolist())
    assert found[0] == found[1]


def test_what_cannot_be_scored_is_an_error_row(monkeypatch):
    images = random_images(3)
    images[1, 0, 0, 0] = torch.nan
    subject = subject_of(random_vit(), (16, 16), 4)
    frame = frame_of(subject, batch_of(images), parse_methods("rollout,generic_attention"))
    bad = frame["index"] == 1
    assert len(frame) == 12 and frame.loc[~bad, "error"].isna().all()
    assert frame.loc[bad, "error"].str.contains("NaN or Inf pixels").all()
    assert frame.loc[bad, ["probabilities", "auc"]].isna().all(axis=None)
    reasons = ["no map"] * 3
    choose_maps(monkeypatch, "insertion_deletion", random_images(3)[:, 0], reasons)
    frame = frame_of(subject_of(Square(), (16, 16)), batch_of(random_images(3)), [SPEC])
    assert frame["error"].tolist() == ["no map"] * 6


def test_nan_logits_of_an_edited_image_are_an_error_row(monkeypatch):
    class Fragile(Square):
        def forward(self, x):
            # Deletion leaves 0 behind, which only the first sample cannot take.
            broken = (x[:, 0] > 5).any((1, 2)) & (x == 0).any(3).any(2).any(1)
            return super().forward(x).masked_fill(broken[:, None], torch.nan)

    images = random_images(2).clamp(0.6)
    images[0, 0, 15, 15] = 9.0
    values = torch.arange(512.0).reshape(2, 16, 16).flip(1, 2)
    choose_maps(monkeypatch, "insertion_deletion", values)
    frame = frame_of(subject_of(Fragile(), (16, 16)), batch_of(images), [SPEC])
    failed = frame[frame["error"].notna()]
    assert list(zip(failed["index"], failed["order"], strict=True)) == [(0, "deletion")]
    assert failed["error"].str.contains("logits hold NaN or Inf for an edited image").all()


@pytest.mark.parametrize("options", ({"steps": 0}, {"steps": 2.5}, {"maps": "x"}, {"step": 3}))
def test_wrong_options_are_refused(options):
    with pytest.raises(OptionError):
        create("insertion_deletion", **options)


def test_a_model_of_one_class_is_refused():
    subject = subject_of(random_vit(num_classes=1), (16, 16))
    with pytest.raises(TargetError, match="need two classes at least"):
        frame_of(subject, batch_of(random_images(1)), [SPEC])


def test_images_that_the_model_refuses_are_named():
    subject = subject_of(random_vit(), (24, 24))
    with pytest.raises(InputError, match=r"refused images .*3, 24, 24\): .*doesn't match"):
        frame_of(subject, batch_of(random_images(1, 24)), [SPEC])


def test_six_scenes_end_to_end():
    model, processor = xai.load("vit-scenes")
    scenes = Scenes(6, seed=3)[0:6]
    model.train()
    frame = frame_of(Subject(model, processor, 8), batch_of(scenes.image),
                     parse_methods("rollout,lrp"), steps=4)  # fmt: skip
    assert model.training and all(p.requires_grad for p in model.parameters())
    assert len(frame) == 6 * 2 * 2 and frame["error"].isna().all()
    assert set(frame["order"]) == set(ORDERS)
    means = frame.groupby(["method", "order"])["auc"].mean().unstack()
    assert (means["deletion"] < means["insertion"]).all()
