"""The Visual Genome detector equals the published one stage by stage; its files load or say why."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import detection

from xai_lib.errors import CheckpointError, InputError, OptionError, UnsupportedModelError
from xai_lib.models.regions import (
    DetectorConfig,
    RegionDetector,
    load_detector,
    torchvision_regions,
)
from xai_lib.models.regions.boxes import cell_anchors, decode_boxes, first_sufficient
from xai_lib.models.regions.preprocess import preprocess, read_rgb, resized_size

pytestmark = pytest.mark.usefixtures("one_thread")

GOLDENS = Path(__file__).parent / "goldens" / "mm"
GOLDEN = dict(np.load(GOLDENS / "frcnn_seed0.npz"))
PUBLISHED = json.loads(str(GOLDEN["meta/config_json"]))
STATE = {
    key.removeprefix("state/"): torch.from_numpy(value)
    for key, value in GOLDEN.items()
    if key.startswith("state/")
}
PICTURE = np.ascontiguousarray(GOLDEN["in/image_hwc_bgr_uint8"][:, :, ::-1])
SIZE = (96, 138)


def assert_golden(ours, key, row=...):
    """Compare with a golden array: 1e-8 of its maximum, numbers of classes exactly."""
    golden = torch.from_numpy(GOLDEN[key])[row]
    assert ours.shape == golden.shape, key
    if not golden.is_floating_point():
        assert torch.equal(ours, golden), key
    else:
        error = (ours.double() - golden.double()).abs().max() / golden.double().abs().max()
        assert error <= 1e-8, f"{key}: {error}"


def published(**changes):
    """Return the golden's config with some values set; a None takes the value away."""
    content = json.loads(json.dumps(PUBLISHED))
    for name, value in changes.items():
        *section, key = name.split("__")
        place = content[section[0]] if section else content
        if value is None:
            del place[key]
        else:
            place[key] = value
    return content


@pytest.fixture(scope="module")
def detector():
    model = RegionDetector(PUBLISHED)
    model.load_state_dict(STATE)
    return model.double().eval()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(PUBLISHED))
    torch.save(STATE, tmp_path / "pytorch_model.bin")
    return tmp_path


@torch.no_grad()
def test_every_stage_equals_the_published_detector(detector):
    pixels = torch.from_numpy(GOLDEN["pre/images"]).double()
    features = detector.backbone(pixels)
    assert_golden(features, "mid/res4")

    generator, heads = detector.proposal_generator, detector.roi_heads
    logits, deltas = generator.rpn_head(features)
    assert_golden(logits, "mid/rpn_logits")
    assert_golden(deltas, "mid/rpn_deltas")
    assert_golden(generator.anchor_generator(features), "mid/anchors", (0, 0))
    (proposals,) = generator(features, [SIZE])
    assert_golden(proposals.boxes, "mid/proposal_boxes")
    assert_golden(proposals.logits, "mid/proposal_logits")

    outputs = heads(features, proposals.boxes)
    assert_golden(outputs.features, "mid/feature_pooled")
    assert_golden(outputs.class_logits, "mid/obj_logits")
    assert_golden(outputs.attribute_logits, "mid/attr_logits")
    assert_golden(outputs.deltas, "mid/box_deltas")
    candidates = heads.candidates(outputs, proposals.boxes, SIZE)
    counts = torch.tensor([len(kept) for kept in heads.survivors(candidates)])
    assert_golden(counts, "mid/nms_counts_per_threshold")

    found = detector.detect(pixels)
    count = int(GOLDEN["out/preds_per_image"][0])
    scales = torch.from_numpy(GOLDEN["pre/scales_yx"][0]).double()
    assert_golden(found.boxes * scales.flip(0).repeat(2), "out/boxes", (0, slice(count)))


def test_an_image_gives_the_published_answer(detector):
    found = detector(PICTURE, regions=18)
    assert_golden(found.features, "out/roi_features")
    assert_golden(found.boxes, "out/normalized_boxes")
    assert_golden(found.classes, "out/obj_ids")
    assert_golden(found.scores, "out/obj_probs")
    assert_golden(found.attributes, "out/attr_ids")
    assert_golden(found.attribute_scores, "out/attr_probs")
    assert found.present.tolist() == [[True] * 16 + [False] * 2]
    # The published boxes went through scales in float32, hence this coarser bound.
    assert torch.allclose(found.pixel_boxes, torch.from_numpy(GOLDEN["out/boxes"]), rtol=1e-7)
    features, boxes = found.of(0)
    assert features.shape == (16, 128) and boxes.shape == (16, 4)


def test_preprocessing_is_the_published_one_bit_by_bit(detector):
    (image,) = read_rgb(PICTURE)
    assert torch.equal(
        preprocess(image, detector.config)[None], torch.from_numpy(GOLDEN["pre/images"])
    )
    rgb = replace(detector.config, channels="RGB", mean=detector.config.mean[::-1])
    assert torch.equal(preprocess(image, rgb).flip(0), torch.from_numpy(GOLDEN["pre/images"])[0])


@pytest.mark.parametrize(
    "height, width, expected",
    [(600, 800, (600, 800)), (480, 640, (600, 800)), (100, 400, (250, 1000)), (9, 6, (900, 600))],
)
def test_the_shortest_side_is_resized_unless_the_longest_grows_too_long(height, width, expected):
    assert resized_size(height, width, 600, 1000) == expected


def test_keys_are_those_of_the_published_file(detector):
    lines = (GOLDENS / "frcnn_state_dict_keys.txt").read_text().splitlines()[1:]
    names = [line.split()[0] for line in lines]
    # Counters of training steps, which frozen norms do not have.
    assert list(detector.state_dict()) == [n for n in names if not n.endswith("batches_tracked")]


def test_the_published_size_has_the_published_widths():
    content = published(
        RESNETS=PUBLISHED["RESNETS"]
        | {"DEPTH": 101, "STEM_OUT_CHANNELS": 64, "WIDTH_PER_GROUP": 64, "RES2_OUT_CHANNELS": 256},
        ROI_HEADS__NUM_CLASSES=1600,
        ROI_BOX_HEAD__NUM_ATTRS=400,
    )
    with torch.device("meta"):
        model = RegionDetector(content)
    assert model.config.features == 2048 and len(model.backbone.res4) == 23
    predictor = model.roi_heads.box_predictor
    assert predictor.cls_score.weight.shape == (1601, 2048)
    assert predictor.bbox_pred.weight.shape == (6400, 2048)
    assert predictor.fc_attr.weight.shape == (512, 2304)
    assert predictor.attr_score.weight.shape == (401, 512)


def test_anchors_and_offsets_by_hand():
    anchors = cell_anchors([10], [1.0, 4.0])
    assert torch.allclose(anchors, torch.tensor([[-5.0, -5, 5, 5], [-2.5, -10, 2.5, 10]]))
    box = torch.tensor([[0.0, 0, 10, 20]])
    # Right by a tenth of the width, twice as high; then an offset that explodes is held back.
    moved = decode_boxes(torch.tensor([[1.0, 0, 0, 2 * math.log(2)]]), box, (10, 10, 2, 2))
    assert torch.allclose(moved, torch.tensor([[1.0, -10, 11, 30]]), atol=1e-5)
    grown = decode_boxes(torch.tensor([[0.0, 0, 50, 0]]), box, (1, 1, 1, 1))
    assert torch.allclose(grown[:, 2] - grown[:, 0], torch.tensor([10 * 1000 / 16]))


def test_the_first_sufficient_threshold_counts_and_else_the_last():
    kept = [torch.arange(2), torch.arange(5), torch.arange(9)]
    assert first_sufficient(kept, 2, 9).tolist() == [0, 1]
    assert first_sufficient(kept, 3, 4).tolist() == [0, 1, 2, 3]
    assert first_sufficient(kept, 10, 36).tolist() == list(range(9))


def test_too_few_detections_are_returned_where_no_threshold_suffices():
    model = RegionDetector(published(MIN_DETECTIONS=21, MAX_DETECTIONS=30))
    model.load_state_dict(STATE)
    found = model.double()(PICTURE)
    assert found.present.sum() == GOLDEN["mid/nms_counts_per_threshold"][-1] == 20
    assert found.features.shape[1] == 30 and not found.features[~found.present].any()


def test_an_image_does_not_depend_on_its_neighbours(detector, tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(PICTURE).save(path)
    small = Image.fromarray(PICTURE).resize((90, 120))
    together = detector([path, small, PICTURE])
    assert len(together) == 3 and together.sizes.tolist() == [[130, 187], [120, 90], [130, 187]]
    for name in ("features", "boxes", "scores", "attributes"):
        both = getattr(together, name)
        assert torch.equal(both[0], both[2])
        assert torch.equal(both[1], getattr(detector(small), name)[0])
    assert (together.boxes >= 0).all() and (together.boxes <= 1).all()
    assert detector(PICTURE, regions=3).scores.shape == (1, 3)


def test_both_weight_formats_and_both_configs_load(folder, detector):
    from_pickle = load_detector(folder)
    assert not from_pickle.training and from_pickle.class_names == ()
    # Files as old as the published one are no zip archives yet.
    torch.save(STATE, folder / "old.bin", _use_new_zipfile_serialization=False)
    by_file = load_detector(folder / "old.bin")
    (folder / "pytorch_model.bin").unlink()
    save_file(STATE, folder / "model.safetensors")
    (folder / "config.yaml").unlink()
    # The published yaml has its keys in lower case in some copies.
    lower = {
        key.lower(): {k.lower(): v for k, v in value.items()} if isinstance(value, dict) else value
        for key, value in PUBLISHED.items()
    }
    (folder / "config.json").write_text(json.dumps(lower))
    (folder / "objects_vocab.txt").write_text("\n".join(f"thing {i}" for i in range(10)))
    (folder / "attributes_vocab.txt").write_text("\n".join(f"kind {i}" for i in range(6)) + "\n")
    from_safetensors = load_detector(str(folder))
    assert from_safetensors.class_names[3] == "thing 3"
    assert from_safetensors.attribute_names[-1] == "kind 5"
    for model in (from_pickle, by_file, from_safetensors):
        assert model.config == detector.config
        found = model(PICTURE).features
        assert found.dtype == torch.float32
        assert torch.equal(found, from_pickle(PICTURE).features)


def test_weights_of_another_model_are_named(folder):
    key = "roi_heads.box_predictor.attr_score.bias"
    damaged = {
        "without": ({k: v for k, v in STATE.items() if k != key}, key),
        "other": (STATE | {"backbone.res2.3.conv1.weight": torch.zeros(1)}, r"res2\.3\.conv1"),
        "shape": (STATE | {key: torch.zeros(401)}, rf"{key} \(401,\)"),
        "nan": (STATE | {key: torch.full((7,), np.nan)}, f"{key}.*copy it again"),
        "nested": ({"model": STATE}, r"save model\.state_dict\(\)"),
        "code": ({"model": Path("x")}, "save_file"),
    }
    for content, message in damaged.values():
        torch.save(content, folder / "pytorch_model.bin")
        with pytest.raises(CheckpointError, match=message):
            load_detector(folder)


def test_missing_and_truncated_files_are_named(folder, tmp_path):
    with pytest.raises(CheckpointError, match=r"give the folder .*pytorch_model\.bin"):
        load_detector(tmp_path / "nowhere")
    with pytest.raises(OptionError, match="path is None"):
        load_detector(None)
    for size in (0, 100, 20_000):
        whole = torch.save(STATE, folder / "cut.bin") or (folder / "cut.bin").read_bytes()
        (folder / "cut.bin").write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"cut\.bin"):
            load_detector(folder / "cut.bin")
    (folder / "objects_vocab.txt").write_text("cat\ndog\n")
    with pytest.raises(CheckpointError, match="Copy the right one"):
        load_detector(folder)
    (folder / "config.yaml").write_text("a: [1")
    with pytest.raises(CheckpointError, match=r"config\.yaml.* copy it again"):
        load_detector(folder)
    (folder / "config.yaml").write_text("no mapping")
    with pytest.raises(CheckpointError, match=r"config\.yaml.* copy it again"):
        load_detector(folder)
    (folder / "config.yaml").unlink()
    with pytest.raises(CheckpointError, match=r"config\.yaml"):
        load_detector(folder)
    (folder / "config.yaml").write_text(yaml.safe_dump(PUBLISHED))
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        load_detector(folder)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"RESNETS": None, "INPUT__FORMAT": None}, r"lacks RESNETS\.DEPTH.*INPUT\.FORMAT"),
        ({"RESNETS__DEPTH": 18}, "DEPTH is one of"),
        ({"RESNETS__DEPTH": "deep"}, "expected a whole number"),
        ({"RESNETS__NORM": "GN"}, "NORM.*'BN' or 'FrozenBN'"),
        ({"ROI_BOX_HEAD__ATTR": False}, "ATTR.*True"),
        ({"ROI_BOX_HEAD__RES5HALVE": 1}, "expected true or false"),
        ({"MODEL__PIXEL_STD": [1.0, 0.0, 1.0]}, "PIXEL_STD"),
        ({"ROI_HEADS__NMS_THRESH_TEST": []}, "NMS_THRESH_TEST"),
        ({"MIN_DETECTIONS": 37, "MAX_DETECTIONS": 36}, "MIN_DETECTIONS <= MAX_DETECTIONS"),
        ({"INPUT__MIN_SIZE_TEST": 0}, "MIN_SIZE_TEST"),
        ({"RPN__BBOX_REG_WEIGHTS": [1.0, 1.0]}, "four positive numbers"),
        ({"ROI_HEADS__NUM_CLASSES": 0}, "at least 1"),
    ],
)
def test_a_config_that_describes_no_detector_is_refused(change, message):
    with pytest.raises(CheckpointError, match=message):
        DetectorConfig.from_published(published(**change))


def test_bad_images_and_options_are_named(detector):
    with pytest.raises(OptionError, match="config is int"):
        RegionDetector(3)
    with pytest.raises(InputError, match="int"):
        detector(3)
    with pytest.raises(InputError):
        detector([])
    with pytest.raises(InputError, match=r"1 of 2.*nowhere\.png"):
        detector([PICTURE, "nowhere.png"])
    with pytest.raises(InputError, match="less narrow"):
        detector(np.zeros((400, 8, 3), np.uint8))
    with pytest.raises(OptionError, match="regions is 0"):
        detector(PICTURE, regions=0)


def test_an_image_without_a_region_is_named():
    model = RegionDetector(published(PROPOSAL_GENERATOR__MIN_SIZE=500))
    model.load_state_dict(STATE)
    with pytest.raises(InputError, match="image 0 of 2"):
        model([PICTURE, PICTURE])


def small_faster_rcnn(**options):
    torch.manual_seed(0)
    return detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=4,
        min_size=64,
        max_size=128,
        box_score_thresh=0.0,
        **options,
    ).eval()


@torch.no_grad()
def test_a_torchvision_detector_supplies_boxes_and_features():
    model = small_faster_rcnn()
    seen = []
    model.roi_heads.box_head.register_forward_hook(lambda _m, _i, output: seen.append(output))
    tall = PICTURE.transpose(1, 0, 2)
    found = torchvision_regions(model, [PICTURE, tall], regions=5)
    assert found.features.shape == (2, 5, 1024) and found.attributes is None
    assert (found.scores.diff(dim=1) <= 0).all() and found.present.all()
    # The boxes are the model's own, and the features those of its box head at these very boxes.
    image = torch.from_numpy(PICTURE).permute(2, 0, 1) / 255
    (direct,) = model([image])
    assert torch.allclose(found.pixel_boxes[0], direct["boxes"][:5], atol=1e-3)
    assert torch.equal(found.classes[0], direct["labels"][:5])
    assert torch.equal(found.features[0], seen[1]) and not torch.equal(seen[1][0], seen[1][1])
    assert not model.backbone._forward_hooks and not model.transform._forward_hooks


def test_a_detector_without_a_box_head_pools_its_largest_map():
    torch.manual_seed(0)
    model = detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=4, score_thresh=0.0
    ).eval()
    maps = []
    model.backbone.register_forward_hook(lambda _m, _i, output: maps.append(output))
    found = torchvision_regions(model, PICTURE, regions=3)
    largest = maps[0]["0"]
    assert found.features.shape == (1, 3, largest.shape[1])
    # A box's feature lies within what its map holds, channel by channel.
    low, high = largest.amin((2, 3)), largest.amax((2, 3))
    assert ((found.features[0] >= low - 1e-5) & (found.features[0] <= high + 1e-5)).all()


def test_what_is_no_torchvision_detector_or_finds_nothing_is_named():
    model = small_faster_rcnn()
    with pytest.raises(InputError, match=r"image 0 of 1: lower min_score"):
        torchvision_regions(model, PICTURE, min_score=1.0)
    with pytest.raises(OptionError, match="min_score is 2"):
        torchvision_regions(model, PICTURE, min_score=2)
    with pytest.raises(OptionError, match=r"regions is 1\.5"):
        torchvision_regions(model, PICTURE, regions=1.5)
    with pytest.raises(OptionError, match=r"model\.eval\(\)"):
        torchvision_regions(model.train(), PICTURE)
    with pytest.raises(UnsupportedModelError, match=r"Linear.*Give one"):
        torchvision_regions(torch.nn.Linear(2, 2), PICTURE)
