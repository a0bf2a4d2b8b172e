"""Segmentation: the published numbers, other libraries' definitions, and what has no number."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from fixed_maps import SPEC, batch_of, choose_maps, subject_of
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, jaccard_score
from small_vits import golden, random_vit
from torchmetrics.functional import classification as torchmetrics

import xai_lib as xai
from xai_lib.datasets.worlds.scenes import Scenes
from xai_lib.errors import OptionError
from xai_lib.evaluators import create, parse_methods
from xai_lib.evaluators.maps import enlarged, min_max
from xai_lib.evaluators.segmentation import (
    COLUMNS,
    average_precision,
    f1_of_rows,
    scores,
)

pytestmark = pytest.mark.usefixtures("one_thread")

FILE = "metrics_segmentation"
GROUPS = sorted({key.split("/")[0] for key in golden(FILE)})
METRICS = {metric.name: metric for metric in create("segmentation").metrics}
seeds = st.integers(0, 2**31 - 1)
quickly = settings(max_examples=25, deadline=None, derandomize=True)


def golden_case(group):
    arrays = {k.split("/")[1]: v for k, v in golden(FILE).items() if k.startswith(f"{group}/")}
    masks = torch.from_numpy(arrays["mask"])
    return arrays, enlarged(torch.from_numpy(arrays["relevance"]), masks.shape[1:]), masks


def random_case(seed, n=3, size=(12, 10), ignored=0.2, levels=None):
    """Return maps (n, H, W) and masks; `levels`: how many different values a map has."""
    draw = torch.Generator().manual_seed(seed)
    values = torch.randn(n, *size, generator=draw, dtype=torch.float64)
    if levels:
        values = values.mul(levels / 6).round()
    masks = (torch.rand(n, *size, generator=draw) < 0.4).to(torch.int8)
    masks[torch.rand(n, *size, generator=draw) < ignored] = -1
    return values, masks


def rows_of(monkeypatch, values, masks, errors=None, **options):
    """Return the records of chosen maps against masks."""
    choose_maps(monkeypatch, "segmentation", values, errors, torch.zeros(len(values)).long())
    batch = batch_of(torch.zeros(len(masks), 3, *masks.shape[1:]), masks=masks)
    subject = subject_of(torch.nn.Identity(), masks.shape[1:])
    return pd.DataFrame(create("segmentation", **options).rows(subject, batch, [SPEC]))


def value(frame, name):
    metric = METRICS[name]
    good = frame[frame["error"].isna()]
    return metric.value(good[list(metric.columns)].to_numpy(float).mean(0))


@pytest.mark.parametrize("group", GROUPS)
def test_published_numbers_of_every_image(group):
    arrays, values, masks = golden_case(group)
    found = dict(zip(COLUMNS, scores(values, masks, rows=True).unbind(1), strict=True))
    expected = {
        "correct": arrays["correct"],
        "labelled": arrays["labeled"],
        "inter_bg": arrays["inter"][:, 0],
        "inter_fg": arrays["inter"][:, 1],
        "union_bg": arrays["union"][:, 0],
        "union_fg": arrays["union"][:, 1],
        "ap": arrays["ap"][:, 0],
        "f1": arrays["f1_mean"],
    }
    assert set(expected) == set(found)
    for column, numbers in expected.items():
        np.testing.assert_allclose(found[column], numbers, rtol=0, atol=1e-12, err_msg=column)


@pytest.mark.parametrize("group", GROUPS)
def test_published_f1_of_every_row_of_pixels(group):
    arrays, values, masks = golden_case(group)
    values = min_max(values)
    guess = values > values.mean((1, 2), keepdim=True)
    rows = f1_of_rows(guess, masks == 1, masks != -1)
    np.testing.assert_allclose(rows, arrays["f1_rows"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("group", GROUPS)
def test_published_totals_over_the_data_set(group, monkeypatch):
    arrays, values, masks = golden_case(group)
    frame = rows_of(monkeypatch, values, masks, compat="reference")
    assert frame["error"].isna().all()
    names = {"pixel_accuracy": "pixAcc", "mIoU": "mIoU", "mAP": "mAP", "mF1": "mF1"}
    for name, theirs in names.items():
        np.testing.assert_allclose(value(frame, name), arrays[f"total_{theirs}"], atol=1e-12)
    sums = frame[["inter_bg", "inter_fg", "union_bg", "union_fg"]].sum().to_numpy()
    np.testing.assert_allclose(sums[:2] / sums[2:], arrays["total_IoU"], atol=1e-12)


@pytest.mark.parametrize("levels", (None, 12, 2))
@pytest.mark.parametrize("ignored", (0.0, 0.3))
def test_average_precision_is_that_of_other_libraries(levels, ignored):
    values, masks = random_case(0, n=20, ignored=ignored, levels=levels)
    flat, truth, counted = values.flatten(1), masks.flatten(1) == 1, masks.flatten(1) != -1
    found = average_precision(flat, truth, counted)
    for i in range(len(values)):
        chosen = flat[i][counted[i]], truth[i][counted[i]]
        sklearns = average_precision_score(chosen[1].numpy(), chosen[0].numpy())
        assert found[i] == pytest.approx(sklearns, abs=1e-14)
        scaled, labels = min_max(values[i : i + 1]).flatten().float(), masks[i].flatten().long()
        # It computes in float32: 1e-6 is its rounding.
        theirs = torchmetrics.binary_average_precision(scaled, labels, ignore_index=-1)
        assert found[i] == pytest.approx(theirs.item(), abs=1e-6)


@pytest.mark.parametrize("levels", (None, 12))
def test_counts_and_f1_are_those_of_other_libraries(levels):
    values, masks = random_case(1, n=20, levels=levels)
    table = pd.DataFrame(scores(values, masks), columns=COLUMNS)
    for i, row in table.iterrows():
        counted = masks[i] != -1
        scaled = min_max(values[i : i + 1])[0]
        both = (masks[i][counted] == 1).numpy(), (scaled > scaled.mean())[counted].numpy()
        assert row.correct / row.labelled == pytest.approx(accuracy_score(*both))
        assert row.inter_fg / row.union_fg == pytest.approx(jaccard_score(*both))
        assert row.inter_bg / row.union_bg == pytest.approx(jaccard_score(*both, pos_label=False))
        assert row.f1 == pytest.approx(f1_score(*both))
        soft = np.concatenate([1 - scaled[counted], scaled[counted]])
        hot = np.concatenate([~both[0], both[0]])
        assert row.ap == pytest.approx(average_precision_score(hot, soft), abs=1e-12)
        pair = (scaled > scaled.mean()).int().flatten(), masks[i].flatten().long()
        for name, mine in (("accuracy", row.correct / row.labelled), ("f1_score", row.f1),
                           ("jaccard_index", row.inter_fg / row.union_fg)):  # fmt: skip
            theirs = getattr(torchmetrics, f"binary_{name}")(*pair, ignore_index=-1)
            assert mine == pytest.approx(theirs.item(), abs=1e-6), name


@quickly
@given(seeds, st.floats(0.01, 100), st.floats(-10, 10))
def test_scaling_and_shifting_a_map_changes_nothing(seed, factor, shift):
    values, masks = random_case(seed)
    torch.testing.assert_close(
        scores(factor * values + shift, masks), scores(values, masks), rtol=0, atol=1e-12
    )


@quickly
@given(seeds, st.booleans())
def test_a_batch_is_its_samples(seed, rows):
    values, masks = random_case(seed, ignored=0.0 if rows else 0.3, levels=6)
    alone = [scores(values[[i]], masks[[i]], rows) for i in range(len(values))]
    assert torch.equal(scores(values, masks, rows), torch.cat(alone))


@quickly
@given(seeds, st.booleans())
def test_a_map_that_is_the_mask_scores_one(seed, shaded):
    _, masks = random_case(seed)
    # Foreground above background everywhere, whatever the shades within each.
    shades = random_case(seed + 1)[0].sigmoid() * 0.1 if shaded else 0.0
    numbers = dict(zip(COLUMNS, scores((masks == 1) + shades, masks).T, strict=True))
    for part, whole in (
        ("correct", "labelled"),
        ("inter_bg", "union_bg"),
        ("inter_fg", "union_fg"),
    ):
        assert torch.equal(numbers[part], numbers[whole])
    assert (numbers["f1"] == 1).all()
    if not shaded:
        torch.testing.assert_close(numbers["ap"], torch.ones_like(numbers["ap"]))


@pytest.mark.parametrize(
    ("grid", "size"), [((14, 14), (224, 224)), ((3, 5), (24, 40)), ((7, 4), (50, 12))]
)
def test_maps_are_enlarged_bilinearly_and_what_is_equal_stays_equal(grid, size):
    draw = torch.Generator().manual_seed(0)
    patches = torch.randn(2, *grid, generator=draw, dtype=torch.float64)
    found = enlarged(patches, size)
    theirs = F.interpolate(patches[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(found, theirs, rtol=0, atol=1e-14)
    assert torch.equal(found[:, -1], found[:, -2]) and torch.equal(found[:, :, 0], found[:, :, 1])
    constant = torch.rand(50, 1, 1, generator=draw).expand(50, *grid)
    assert not min_max(enlarged(constant, size)).any()


def test_constant_map_and_empty_masks_have_defined_values(monkeypatch):
    values, masks = random_case(2, ignored=0.0)
    values[0] = 0.3
    masks[1] = 0
    frame = rows_of(monkeypatch, values, masks)
    assert frame["error"].isna().all()
    constant, empty = frame.iloc[0], frame.iloc[1]
    assert constant.ap == 0.5 and constant.f1 == 0 and constant.inter_fg == 0
    assert constant.correct == (masks[0] == 0).sum()
    assert empty.f1 == 0 and empty.inter_fg == 0 and 0 < empty.ap < 1
    none = rows_of(monkeypatch, values[[0]], masks[[1]])
    assert np.isnan(value(none, "mIoU")) and value(none, "pixel_accuracy") == 1


def test_what_cannot_be_scored_is_an_error_row(monkeypatch):
    values, masks = random_case(3)
    values[0, 2, 3] = torch.nan
    masks[1] = -1
    frame = rows_of(monkeypatch, values, masks, errors=["NaN in here", None, None])
    assert frame["error"][0] == "NaN in here"
    assert "ignores every pixel" in frame["error"][1]
    assert pd.isna(frame["error"][2])
    assert frame.loc[:1, list(COLUMNS)].isna().all(axis=None)
    alone = rows_of(monkeypatch, values, masks, errors=["a", "b", "c"])
    assert alone["error"].tolist() == ["a", "b", "c"]


def test_reference_scores_nan_as_constant_and_refuses_uneven_rows(monkeypatch):
    values, masks = random_case(4, ignored=0.0)
    values[0, 2, 3] = torch.nan
    masks[1, 0, 0] = -1
    found = rows_of(monkeypatch, values, masks, ["NaN", None, None], compat="reference")
    constant = rows_of(monkeypatch, torch.zeros_like(values), masks, compat="reference")
    pd.testing.assert_frame_equal(found.loc[[0]], constant.loc[[0]], check_dtype=False)
    assert found["ap"][0] == 0.5
    assert "do not divide into 12 rows" in found["error"][1]
    assert pd.isna(found["error"][2])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"compat": "refrence"}, "Did you mean 'reference'"),
        ({"maps": "pixels"}, "Unknown maps"),
        ({"explain": "labels"}, "Did you mean 'label'"),
        ({"step": 1}, "Unknown option"),
    ],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(OptionError, match=words):
        create("segmentation", **options)


@pytest.mark.parametrize(("kwargs", "options"), [({}, {}), ({"masks": 0}, {"explain": "label"})])
def test_missing_masks_or_labels_are_refused(kwargs, options):
    model = random_vit()
    images = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    masks = torch.zeros(2, 16, 16, dtype=torch.int8) if kwargs else None
    batch = batch_of(images, masks=masks)
    with pytest.raises(OptionError, match="`xai datasets`"):
        list(create("segmentation", **options).rows(subject_of(model, (16, 16)), batch, [SPEC]))


def test_label_or_predicted_class_is_explained():
    model = random_vit()
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 16, 16, generator=draw, dtype=torch.float64)
    masks = (torch.rand(2, 16, 16, generator=draw) < 0.5).to(torch.int8)
    subject = subject_of(model, (16, 16))
    predicted = model(subject.normalize(images)).argmax(1)
    for spec in parse_methods("generic_attention,rollout"):
        rows = {}
        for label, explain in (
            (predicted, "predicted"),
            (predicted, "label"),
            (1 - predicted, "label"),
        ):
            batch = batch_of(images, label % 4, masks)
            rows[explain, label is predicted] = list(
                create("segmentation", explain=explain).rows(subject, batch, [spec])
            )
        assert rows["label", True] == rows["predicted", True]
        assert (rows["label", False] == rows["predicted", True]) != spec.class_specific


def test_six_scenes_end_to_end():
    model, processor = xai.load("vit-scenes")
    scenes = Scenes(6, seed=3)[0:6]
    state = {name: t.clone() for name, t in model.state_dict().items()}
    model.train()
    batch = batch_of(scenes.image, scenes.labels[:, 0], scenes.evidence.to(torch.int8))
    subject = subject_of(model, processor.size, 4)
    subject.processor = processor
    methods = parse_methods("rollout,lrp,raw_attention")
    frame = pd.DataFrame(create("segmentation").rows(subject, batch, methods))
    assert len(frame) == 18 and frame["error"].isna().all()
    assert frame.groupby("method")["index"].apply(list).map(lambda x: x == [*range(6)]).all()
    assert (frame["labelled"] == 96 * 96).all()
    patches = pd.DataFrame(create("segmentation", maps="patches").rows(subject, batch, methods))
    same = (frame[list(COLUMNS)] == patches[list(COLUMNS)]).all(axis=1)
    assert same[frame["method"] != "lrp"].all() and not same[frame["method"] == "lrp"].any()
    # A trained model looks at the object: far above an all-background guess.
    assert value(frame[frame["method"] == "rollout"], "mIoU") > 0.6
    assert model.training and all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(t, state[name]) for name, t in model.state_dict().items())
