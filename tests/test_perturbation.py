"""Perturbation and its stream: the published numbers, ties, what is run and what is not."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from fixed_maps import SPEC, batch_of, choose_maps, subject_of
from hypothesis import given, settings
from hypothesis import strategies as st
from small_vits import golden, golden_model, random_vit

import xai_lib as xai
from xai_lib.datasets.worlds.scenes import Scenes
from xai_lib.errors import InputError, OptionError, TargetError
from xai_lib.evaluators import Batch, Subject, create, parse_methods
from xai_lib.evaluators.maps import explained, min_max, ranks
from xai_lib.evaluators.measures import CURVES, MEANS, label_scores
from xai_lib.evaluators.packing import PixelEdits, packed
from xai_lib.evaluators.perturbation import STEPS, pixel_counts
from xai_lib.evaluators.removal import ORDERS

pytestmark = pytest.mark.usefixtures("one_thread")

FILE = golden("metrics_perturbation")
MAPS = ("random_tiefree", "transformer_attribution", "rollout")
SHORT = {"positive": "pos", "negative": "neg"}
quickly = settings(max_examples=20, deadline=None, derandomize=True)


def golden_subject(batch_size=3):
    model, _, _ = golden_model("vit_a_seed0")
    assert json.loads(str(FILE["config"])) == json.loads(str(golden("vit_a_seed0")["config"]))
    return subject_of(model, (32, 32), batch_size)


def golden_batch():
    images = torch.from_numpy(FILE["image"]).double()
    return batch_of(images, torch.from_numpy(FILE["target"]))


def golden_masks(name, order):
    """Return the pixels that the published code set to black: (9, 8, 32, 32)."""
    packed = FILE[f"{name}/{SHORT[order]}/mask_packed"]
    return torch.from_numpy(np.unpackbits(packed, axis=-1).reshape(9, 8, 32, 32)).bool()


def assert_published(found, name, order):
    """Compare curves and means of all eight images with the file."""
    arrays = {
        key.rsplit("/", 1)[1]: value
        for key, value in FILE.items()
        if key.startswith(f"{name}/{SHORT[order]}/")
    }
    expected = {
        "hits": np.vstack([arrays["model_hits"], arrays["perturbations_hits"]]).T,
        "log_odds": np.vstack(
            [arrays["model_dissimilarities"], arrays["perturbations_dissimilarities"]]
        ).T,
        "logit_change": arrays["perturbations_logit_diff"].T,
        "probability_change": arrays["perturbations_prob_diff"].T,
    }
    assert set(expected) == set(CURVES)
    for column, numbers in expected.items():
        np.testing.assert_allclose(found[column], numbers, rtol=0, atol=1e-12, err_msg=column)
    accuracy = np.mean(found["hits"], 0)
    np.testing.assert_allclose(accuracy[1:], arrays["accuracy"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(np.mean(found["auc_tmlr23"]), arrays["auc"], rtol=0, atol=1e-12)
    area = np.trapezoid([arrays["model_hits"].mean(), *arrays["accuracy"]], [0, *STEPS])
    np.testing.assert_allclose(np.mean(found["auc_cvpr21"]), area, rtol=0, atol=1e-12)


def frame_of(subject, batch, methods, **options):
    return pd.DataFrame(create("perturbation", **options).rows(subject, batch, methods))


def without_names(frame):
    return frame.drop(columns=["method", "index", "key", "error"]).reset_index(drop=True)


class Passes:
    """How many images each pass of a model took, in the stream and while explaining."""

    def __init__(self, model):
        self.streamed, self.explained = [], []
        model.register_forward_pre_hook(self._note)

    def _note(self, module, args):
        streaming = torch.is_inference_mode_enabled()
        (self.streamed if streaming else self.explained).append(len(args[0]))


@pytest.mark.parametrize("batch_size", (3, 7))
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", MAPS)
def test_published_numbers_given_the_masks(name, order, batch_size):
    subject, batch = golden_subject(batch_size), golden_batch()
    clean = subject.normalize(batch.images)
    black = subject.normalize(torch.zeros(1, 3, 1, 1, dtype=torch.float64))[0]
    # A mask is a ranking of two places; before all of them, the image as it is.
    masks = torch.cat([torch.zeros(1, 8, 32, 32).bool(), golden_masks(name, order)])
    edits = [
        PixelEdits(image, (~mask).int(), torch.tensor([1]), black, [(place, step)])
        for step, of_step in enumerate(masks)
        for place, (image, mask) in enumerate(zip(clean, of_step, strict=True))
    ]
    logits = torch.cat(packed(subject, edits)).unflatten(0, masks.shape[:2])
    np.testing.assert_allclose(logits[0], FILE["logits"], rtol=0, atol=1e-13)
    tables = [label_scores(logits[:, i], int(batch.labels[i]), STEPS) for i in range(8)]
    found = {key: np.array([table[key] for table in tables]) for key in tables[0]}
    assert_published(found, name, order)


def test_published_numbers_with_our_own_masks(monkeypatch):
    values = torch.from_numpy(FILE["random_tiefree/vis"])[:, 0]
    choose_maps(monkeypatch, "perturbation", values)
    frame = frame_of(golden_subject(), golden_batch(), [SPEC])
    assert len(frame) == 8 * 4 and frame["error"].isna().all()
    for (_, order), rows in frame.groupby(["explained", "order"]):
        found = {name: np.array(rows[name].tolist()) for name in (*CURVES, *MEANS)}
        assert_published(found, "random_tiefree", order)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", MAPS)
def test_our_masks_are_as_large_and_as_relevant_as_the_published(name, order):
    """They are the same but for the order of ties, where nothing defines one."""
    values = torch.from_numpy(FILE[f"{name}/vis"])[:, 0]
    places = ranks(values, least_first=order == "negative")
    counts = pixel_counts((32, 32), STEPS)
    theirs = golden_masks(name, order)
    for k, mask in zip(counts, theirs, strict=True):
        mine = places < k
        assert (mine.flatten(1).sum(1) == k).all() and (mask.flatten(1).sum(1) == k).all()
        for i in range(8):
            assert torch.equal(values[i][mine[i]].sort()[0], values[i][mask[i]].sort()[0])
        assert name != "random_tiefree" or torch.equal(mine, mask)
    assert [*counts] == FILE[f"{name}/{SHORT[order]}/n_masked"][:, 0].tolist()


@pytest.mark.parametrize("name", MAPS[1:])
def test_our_maps_are_the_published(name):
    (spec,) = parse_methods(f"{name}:start_layer=1")
    found = explained(golden_subject(), golden_batch(), spec)
    expected = torch.from_numpy(FILE[f"{name}/vis"])[:, 0]
    np.testing.assert_allclose(min_max(found.values), expected, rtol=0, atol=1e-6)
    assert found.predicted.tolist() == FILE["pred"].tolist()


def test_equal_relevance_goes_row_by_row_in_both_orders():
    values = torch.tensor([[[1.0, 2.0, 1.0], [2.0, 1.0, 0.0]]])
    assert ranks(values).tolist() == [[[2, 0, 3], [1, 4, 5]]]
    assert ranks(values, least_first=True).tolist() == [[[1, 4, 2], [5, 3, 0]]]
    assert ranks(torch.zeros(1, 40, 50)).flatten().tolist() == [*range(2000)]


@quickly
@given(st.integers(0, 2**31 - 1), st.integers(1, 9), st.lists(st.integers(0, 5), max_size=4))
def test_stream_is_every_edit_alone_in_full_batches(seed, batch_size, sizes):
    """Whatever the sizes of its elements, none at all included."""
    draw = torch.Generator().manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3)).double()
    passes = Passes(model)
    edits, expected = [], []
    for place, n in enumerate(sizes):
        image = torch.randn(3, 4, 4, generator=draw, dtype=torch.float64)
        values = torch.rand(1, 4, 4, generator=draw)
        counts = torch.randint(0, 17, (n,), generator=draw)
        shape = (3, 1, 1) if n % 2 else (3, 4, 4)
        fill = torch.randn(shape, generator=draw, dtype=torch.float64)
        keys = [(place, step) for step in range(n)]
        edits.append(PixelEdits(image, ranks(values)[0], counts, fill, keys))
        order = values.flatten().argsort(descending=True)
        for count in counts.tolist():
            keep = torch.ones(16, dtype=torch.bool)
            keep[order[:count]] = False
            expected.append(torch.where(keep.view(4, 4), image, fill))
    found = packed(subject_of(model, (4, 4), batch_size), iter(edits))
    full, rest = divmod(sum(sizes), batch_size)
    assert passes.streamed == [batch_size] * full + [rest] * (rest > 0)
    assert [len(logits) for logits in found] == (sizes if expected else [])
    if expected:
        wanted = model(torch.stack(expected)).detach()
        torch.testing.assert_close(torch.cat(found), wanted, rtol=0, atol=1e-12)


def test_equal_copies_run_once_and_get_the_same_numbers():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3)).double()
    passes = Passes(model)
    image, rank = torch.rand(3, 4, 4, dtype=torch.float64), torch.arange(16).view(4, 4)
    counts, black = torch.tensor([0, 5]), torch.zeros(3, 1, 1, dtype=torch.float64)
    edits = [PixelEdits(image, rank, counts, black, ["clean", n]) for n in (1, 1, 2)]
    found = packed(subject_of(model, (4, 4), 8), edits)
    assert passes.streamed == [3]
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def planted(seed=0, n=5):
    """Return a subject, and a batch of whose labels some are not what the model predicts."""
    model = random_vit(seed)
    draw = torch.Generator().manual_seed(seed)
    images = torch.rand(n, 3, 16, 16, generator=draw, dtype=torch.float64)
    subject = subject_of(model, (16, 16), 4)
    labels = model(subject.normalize(images)).argmax(1)
    labels[1::2] = (labels[1::2] + 1) % 4
    return subject, batch_of(images, labels)


def test_nothing_runs_twice():
    """One map where label and prediction agree or the method knows no class; full batches."""
    subject, batch = planted()
    passes = Passes(subject.model)
    methods = parse_methods("rollout,generic_attention")
    frame = frame_of(subject, batch, methods)
    # Clean images; five maps of each method in both orders; two more maps of the wrong predictions.
    total = 5 + (5 + 5 + 2) * 2 * len(STEPS)
    assert passes.streamed == [4] * (total // 4) + [1] * (total % 4)
    # Before the first maps two samples are examined and one shows where its patches are; before
    # those of another number of samples two are examined again.
    assert passes.explained == [2, 5, 1, 5, 2, 2]
    assert len(frame) == 5 * 2 * 4
    columns = [*CURVES, *MEANS]
    pairs = {
        of: rows.set_index(["method", "order", "index"])[columns]
        for of, rows in frame.groupby("explained")
    }
    same = (pairs["predicted"] == pairs["target"]).all(axis=1)
    assert same["rollout"].all()
    assert same["generic_attention"].groupby("index").all().tolist() == [True, False] * 2 + [True]


def test_target_maps_are_those_of_the_label():
    subject, batch = planted()
    (spec,) = parse_methods("generic_attention")
    frame = frame_of(subject, batch, [spec])
    alone = explained(subject, batch, spec, batch.labels).values
    clean = subject.normalize(batch.images)
    black = torch.full_like(clean, -1.0)
    for _, row in frame[frame["explained"] == "target"].iterrows():
        i = row["index"]
        places = ranks(alone[[i]], least_first=row["order"] == "negative")
        for step, f in enumerate(STEPS):
            keep = places >= int(256 * f)
            logits = subject.model(torch.where(keep[:, None], clean[[i]], black[[i]]))[0]
            assert row["hits"][step + 1] == float(logits.argmax() == batch.labels[i])


def test_a_batch_is_its_samples():
    subject, batch = planted(1)
    methods = parse_methods("raw_attention,generic_attention,gradient_x_input")
    whole = frame_of(subject, batch, methods)
    parts = [frame_of(subject, batch[[i]], methods) for i in range(len(batch))]
    keys = ["method", "explained", "order", "index"]
    whole, parts = (frame.sort_values(keys) for frame in (whole, pd.concat(parts)))
    assert (
        whole[[*keys, "key", "hits"]].to_numpy().tolist()
        == parts[[*keys, "key", "hits"]].to_numpy().tolist()
    )
    for column in (*CURVES, *MEANS):
        np.testing.assert_allclose(
            np.array(whole[column].tolist()), np.array(parts[column].tolist()), atol=1e-9
        )


@quickly
@given(st.integers(0, 2**31 - 1), st.floats(0.01, 100), st.floats(-10, 10))
def test_scaling_and_shifting_a_map_keeps_the_order(seed, factor, shift):
    values = torch.rand(2, 9, 7, generator=torch.Generator().manual_seed(seed)).double()
    # Few levels, so that there are ties.
    values = (8 * values).floor()
    for least in (False, True):
        assert torch.equal(ranks(factor * values + shift, least), ranks(values, least))


def test_areas_are_those_of_the_curve():
    draw = torch.Generator().manual_seed(0)
    steps = (0.05, 0.3, 0.31, 0.8)
    for label in (0, 1, 2, 3):
        logits = torch.randn(5, 4, generator=draw)
        found = label_scores(logits, label, steps)
        curve = found["hits"]
        assert found["auc_cvpr21"] == pytest.approx(np.trapezoid(curve, [0, *steps]))
        assert found["auc_tmlr23"] == pytest.approx(np.trapezoid([*curve, 0], [0, *steps, 1]))
        p = logits.double().softmax(1).numpy()
        second = np.sort(p, axis=1)[:, -2]
        np.testing.assert_allclose(found["log_odds"], np.log(p[:, label] / second))
        top = p.max(1)
        np.testing.assert_allclose(found["probability_change"], top[1:] - top[0], atol=1e-12)
        assert found["mean_log_odds"] == pytest.approx(np.mean(found["log_odds"][1:]))


def test_extreme_logits_have_finite_log_odds():
    clean = torch.tensor([[900.0, -900.0, 0.0]])
    found = label_scores(torch.cat([clean, clean]), 1, (0.5,))
    assert found["log_odds"] == [-900.0, -900.0]


def test_a_sample_without_a_map_costs_only_itself():
    subject, batch = planted(2)
    batch.images[3, 0, 0, 0] = torch.nan
    methods = parse_methods("generic_attention,rollout")
    frame = frame_of(subject, batch, methods)
    bad = frame["index"] == 3
    assert frame.loc[bad, "error"].str.contains("NaN or Inf pixels").all()
    assert frame.loc[bad, [*CURVES, *MEANS]].isna().all(axis=None)
    rest = frame_of(subject, batch[[0, 1, 2, 4]], methods)
    pd.testing.assert_frame_equal(without_names(frame[~bad]), without_names(rest), atol=1e-9)


def test_nan_relevance_is_an_error_row():
    """attn_gradcam of the published code is 0/0 where no weight is positive."""
    arrays = golden("vit_a_seed0")
    model, inputs, _ = golden_model("vit_a_seed0")
    wrong = int(arrays["target"][2, 1])
    assert np.isnan(arrays["out/attn_gradcam/default"][2, 1]).all()
    batch = batch_of(inputs, torch.full((3,), wrong))
    (spec,) = parse_methods("attn_gradcam:compat=reference")
    frame = frame_of(subject_of(model, (32, 32), mean=0.0, std=1.0), batch, [spec])
    failed = frame[frame["error"].notna()]
    assert set(zip(failed["index"], failed["explained"], strict=True)) == {(2, "target")}
    assert failed["error"].str.contains("attn_gradcam:compat=reference.*NaN or Inf").all()


def test_nan_logits_of_a_perturbed_image_are_an_error_row(monkeypatch):
    class Fragile(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(48, 3).double()

        def forward(self, x):
            # Black lies at -1: the first sample has no such pixel until it is perturbed.
            broken = (x[:, 0] > 5).any((1, 2)) & (x == -1).any(3).any(2).any(1)
            return torch.where(broken[:, None], torch.nan, self.layer(x.flatten(1)))

    images = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    images[0, 0, 3, 3] = 9.0
    values = torch.arange(32.0).reshape(2, 4, 4).flip(1, 2)
    choose_maps(monkeypatch, "perturbation", values)
    batch = batch_of(images, torch.tensor([0, 0]))
    frame = frame_of(subject_of(Fragile(), (4, 4)), batch, [SPEC])
    bad = (frame["index"] == 0) & (frame["order"] == "positive")
    assert frame.loc[bad, "error"].str.contains("logits hold NaN or Inf for a perturbed").all()
    assert frame.loc[frame["index"] == 1, "error"].isna().all()


@pytest.mark.parametrize(
    "steps", ([], [0.5, 0.2], [0.0, 0.5], [0.5, 1.0], [0.5, 0.5], ["0.1"], [float("nan")])
)
def test_wrong_steps_are_refused(steps):
    with pytest.raises(OptionError, match="rising fractions between 0 and 1"):
        create("perturbation", steps=steps)


def test_wrong_labels_and_models_are_refused():
    subject, batch = planted()
    methods = parse_methods("rollout")
    for label in (4, -1):
        wrong = Batch(batch.index, batch.key, batch.images, torch.full((5,), label))
        with pytest.raises(
            TargetError, match=f"label {label}, but the model has the classes 0 to 3"
        ):
            frame_of(subject, wrong, methods)
    with pytest.raises(OptionError, match="needs labels"):
        frame_of(subject, batch_of(batch.images), methods)
    single = subject_of(random_vit(num_classes=1), (16, 16))
    with pytest.raises(TargetError, match="two at least"):
        frame_of(single, batch_of(batch.images, torch.zeros(5).long()), methods)
    with pytest.raises(OptionError, match="Unknown maps"):
        create("perturbation", maps="")


def test_other_steps_and_kept_maps():
    subject, batch = planted()
    kept = []
    subject.keep = lambda *entry: kept.append(entry)
    frame = frame_of(subject, batch, parse_methods("generic_attention"), steps=[0.25])
    assert {len(hits) for hits in frame["hits"]} == {2}
    # Of the predicted class only, one a sample.
    assert [(label, index) for label, index, _ in kept] == [
        ("generic_attention", i) for i in range(5)
    ]
    expected = xai.explain(subject.model, subject.normalize(batch.images), "generic_attention")
    assert torch.equal(torch.stack([patches for *_, patches in kept]), expected.patches)


def test_the_model_comes_back_as_it_was_even_after_an_error():
    subject, batch = planted()
    model = subject.model
    model.train()
    model.blocks[0].eval()
    model.head.weight.requires_grad_(False)
    before = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
    frame_of(subject, batch, parse_methods("generic_attention"))
    image = subject.normalize(batch.images)[0]
    edits = PixelEdits(
        image, torch.zeros(16, 16, dtype=torch.int32), torch.tensor([0]), image, ["clean"]
    )

    def broken():
        yield edits
        raise InputError("no more")

    with pytest.raises(InputError, match="no more"):
        packed(subject, broken())
    after = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
    assert before == after
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    # What it returns can be computed with, and dropout was off.
    logits = packed(subject, [edits])[0]
    assert not logits.is_inference() and torch.equal(logits, packed(subject, [edits])[0])


def test_six_scenes_end_to_end():
    model, processor = xai.load("vit-scenes")
    scenes = Scenes(6, seed=3)[0:6]
    batch = batch_of(scenes.image, scenes.labels[:, 0])
    methods = parse_methods("rollout,lrp")
    frame = frame_of(Subject(model, processor, 8), batch, methods, steps=[0.2, 0.5, 0.8])
    assert len(frame) == 6 * 2 * 4 and frame["error"].isna().all()
    means = frame.groupby(["method", "order"])["mean_log_odds"].mean().unstack()
    # Taking the evidence away hurts more than taking the rest away.
    assert (means["positive"] < means["negative"]).all()
