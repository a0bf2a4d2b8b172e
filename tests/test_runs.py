"""Runs: resumed they equal uninterrupted ones to the bit; nothing is lost, doubled or half."""

import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from PIL import Image
from safetensors.torch import load_file

import xai_lib as xai
from xai_lib.datasets import SCENE_CLASSES, open_dataset
from xai_lib.datasets.base import ImageDataset, Sample
from xai_lib.errors import (
    InputError,
    OptionError,
    RunError,
    TargetError,
    UnsupportedModelError,
    XAIError,
)
from xai_lib.files.resumable import differences
from xai_lib.runs import Run, RunConfig, evaluate
from xai_lib.runs.config import cut
from xai_lib.runs.folder import RunFolder

HERE = Path(__file__).parent
RUN = {
    "evaluator": "localisation",
    "model": "vit-scenes",
    "dataset": "scenes",
    "methods": "raw_attention,generic_attention",
    "limit": 12,
    "batch_size": 4,
    "shards": 3,
    "device": "cpu",
    "progress": False,
}
pytestmark = pytest.mark.usefixtures("one_thread")


def start(out, **changes):
    return evaluate(out=out, **RUN | changes)


def assert_same_tables(run, other):
    pd.testing.assert_frame_equal(run.records(), other.records(), check_exact=True)
    for name in ("summary.csv", "comparisons.csv"):
        assert (run.path / name).read_bytes() == (other.path / name).read_bytes()


def shard_events(run):
    return [event["number"] for event in run.folder.events("shard")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    torch.set_num_threads(1)
    return start(tmp_path_factory.mktemp("runs") / "whole", keep_maps=True)


def test_a_run_holds_every_sample_and_all_that_made_it(finished):
    records = finished.records()
    assert len(records) == 12 * 2 and records["error"].isna().all()
    assert records.groupby("index").size().eq(2).all()
    description = json.loads((finished.path / "run.json").read_text())
    assert description["configuration"]["methods"] == ["raw_attention", "generic_attention"]
    assert len(description["model"]["sha256"]) == 64 and description["samples"] == 10_000
    assert description["versions"]["torch"] == torch.__version__.split("+")[0]
    assert {"git", "threads", "seeds", "dataset", "command"} <= set(description)
    summary = pd.read_csv(finished.path / "summary.csv")
    assert (summary["n"] == 12).all() and (summary["low"] <= summary["value"]).all()
    assert shard_events(finished) == [0, 1, 2] and finished.missing == []


def test_records_are_what_the_library_computes(finished):
    model, processor = xai.load("vit-scenes")
    data = open_dataset("scenes")
    index = int(finished.records()["index"].iloc[-1])
    sample = data[index]
    att = xai.explain(model, processor(sample.image), "generic_attention", sample.label)
    heat = att.heatmap()[0]
    hit = sample.mask.flatten()[heat.argmax()] == 1
    row = finished.records().query("method == 'generic_attention' and index == @index").iloc[0]
    assert row["pointing"] == float(hit)


def test_stored_maps_are_the_explanations(finished):
    model, processor = xai.load("vit-scenes")
    data, maps = open_dataset("scenes"), finished.maps("generic_attention")
    assert sorted(maps) == sorted(finished.records()["index"].unique())
    index = max(maps)
    att = xai.explain(model, processor(data[index].image), "generic_attention", data[index].label)
    expected = att.patches[0]
    assert (maps[index] - expected).abs().max() <= expected.abs().max() / 1000
    assert load_file(finished.folder.map_file(0))["generic_attention"].dtype == torch.float16
    with pytest.raises(RunError, match="no maps of 'rollout'"):
        finished.maps("rollout")


def test_a_finished_run_computes_nothing_again(finished):
    before = len(finished.folder.events("shard"))
    again = start(finished.path, keep_maps=True)
    assert len(again.folder.events("shard")) == before
    assert_same_tables(again, finished)


def test_only_missing_shards_are_computed(finished, tmp_path):
    run = start(tmp_path / "run", keep_maps=True)
    run.folder.record_file(1).unlink()
    assert [shard.number for shard in run.missing] == [1]
    again = start(tmp_path / "run", keep_maps=True)
    assert shard_events(again) == [0, 1, 2, 1]
    assert_same_tables(again, finished)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"methods": "raw_attention"}, 'methods: ["raw_attention", "generic_attention"]'),
        ({"limit": 8}, "limit: 12 -> 8"),
        ({"batch_size": 2}, "batch_size: 4 -> 2"),
        ({"model": "deit-scenes"}, "vit-scenes"),
        ({"dataset": "scenes-2"}, "scenes-2"),
        ({"options": {"explain": "predicted"}}, "options.explain"),
    ],
)
def test_another_configuration_is_refused_with_the_difference(finished, change, named):
    before = sorted((p, p.stat().st_mtime_ns) for p in finished.path.rglob("*.parquet"))
    with pytest.raises(RunError) as refusal:
        start(finished.path, keep_maps=True, **change)
    assert named in str(refusal.value)
    assert before == sorted((p, p.stat().st_mtime_ns) for p in finished.path.rglob("*.parquet"))


@pytest.mark.parametrize(
    ("change", "kind", "named"),
    [
        ({"methods": "raw_attention,rollout,atnlrp"}, OptionError, "attnlrp"),
        ({"methods": "rollout:start=3"}, OptionError, "start_layer"),
        ({"methods": "rollout,rollout"}, OptionError, "twice"),
        ({"methods": ""}, OptionError, "No method"),
        ({"methods": "rollout:start_layer=99"}, OptionError, "start_layer"),
        ({"model": "vit-scene"}, OptionError, "vit-scenes"),
        ({"dataset": "scene"}, OptionError, "scenes"),
        ({"evaluator": "localization"}, OptionError, "localisation"),
        ({"options": {"colour": 1}}, OptionError, "colour"),
        ({"batch_size": 0}, OptionError, "positive"),
        ({"dtype": "int8"}, OptionError, "float32"),
        ({"resample": "nearest"}, OptionError, "bilinear"),
        ({"device": "quantum"}, OptionError, "quantum"),
        ({"device": "meta"}, OptionError, "meta"),
        ({"workers": -1}, OptionError, "workers"),
        ({"model": ""}, OptionError, "No model"),
        ({"model": torch.nn.Linear(1, 1)}, OptionError, "pair"),
        ({"limit": True}, OptionError, "positive"),
        ({"options": {"tolerance": {1}}}, OptionError, "tolerance"),
        ({"dataset": "digits"}, TargetError, "no class of the model 'vit-scenes'"),
        ({"cluster": "local:none"}, OptionError, "local:4"),
        ({"cluster": "cluster.txt"}, OptionError, "dask-jobqueue"),
        ({"cluster": "nowhere.yaml"}, OptionError, "nowhere.yaml"),
    ],
)
def test_mistakes_end_before_any_work(tmp_path, change, kind, named):
    with pytest.raises(kind, match=named):
        start(tmp_path / "run", **change)
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_method_that_the_model_cannot_have_ends_before_any_work(tmp_path):
    import timm

    model = timm.create_model("swin_tiny_patch4_window7_224", num_classes=10).eval()
    processor = xai.models.Processor((224, 224), (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(XAIError, match="windows"):
        start(tmp_path / "run", model=(model, processor), methods="attnlrp,rollout")
    assert not (tmp_path / "run").exists()


def test_a_network_without_attention_is_refused(tmp_path):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 96 * 96, 10))
    processor = xai.models.Processor((96, 96), (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(UnsupportedModelError):
        start(tmp_path / "run", model=(model, processor))


def test_own_model_and_data_set_come_back_as_they_were(tmp_path, finished):
    model, processor = xai.load("vit-scenes")
    model.train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    run = start(tmp_path / "run", model=(model, processor), dataset=open_dataset("scenes"))
    assert model.training and all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    pd.testing.assert_frame_equal(run.records(), finished.records(), check_exact=True)
    with pytest.raises(OptionError, match="names or folders"):
        start(tmp_path / "cluster", model=(model, processor), cluster="local:2")


def test_a_model_of_one_s_own_says_its_dtype_and_device(tmp_path):
    model, processor = xai.load("vit-scenes")
    pair = (model.to(torch.bfloat16), processor)
    with pytest.raises(OptionError, match="the model is bfloat16"):
        start(tmp_path / "run", model=pair, dtype="float32")
    with pytest.raises(OptionError, match="the model is on cpu"):
        start(tmp_path / "run", model=pair, device="cuda")
    run = start(tmp_path / "run", model=pair, limit=2)
    assert run.config.dtype == "bfloat16"


def test_another_processor_is_another_run(tmp_path):
    model, processor = xai.load("vit-scenes")
    start(tmp_path / "run", model=(model, processor), limit=2)
    other = dataclasses.replace(processor, mean=(0.1, 0.2, 0.3))
    with pytest.raises(RunError, match=r"model\.mean"):
        start(tmp_path / "run", model=(model, other), limit=2)


def test_labels_of_a_model_without_names(tmp_path):
    """Only numbers can be translated; other names must at least be as many as the classes."""
    model, processor = xai.load("vit-scenes")
    pair = (model, dataclasses.replace(processor, class_names=()))
    with pytest.raises(TargetError, match="10 classes without names"):
        start(tmp_path / "run", model=pair, dataset=Scenes(class_names=("a", "b")))
    assert start(tmp_path / "run", model=pair, dataset=Scenes(class_names=SCENE_CLASSES))
    numbers = tuple(map(str, range(9, -1, -1)))
    run = start(tmp_path / "turned", model=pair, dataset=Scenes(class_names=numbers))
    assert run.description["model"]["class_of_label"] == [*range(9, -1, -1)]


def test_options_are_resumed_whether_list_or_tuple(tmp_path):
    settings = {"evaluator": "perturbation", "options": {"steps": (0.25, 0.5)}, "limit": 2}
    start(tmp_path / "run", **settings)
    assert start(tmp_path / "run", **settings).missing == []


@pytest.mark.slow
def test_many_images_a_batch_need_few_open_files():
    """Each tensor that leaves its process by itself would hold a file in both."""
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))\n"
        "import torch, xai_lib as xai\n"
        "from xai_lib.runs.loading import load_batches\n"
        "data, (_, processor) = xai.datasets.open_dataset('scenes'), xai.load('vit-scenes')\n"
        "places = [tuple(range(i, i + 96)) for i in (0, 96, 192)]\n"
        "parts = [*load_batches(data, processor, places, torch.device('cpu'), 1)]\n"
        "assert [len(part.batch) for part in parts] == [96] * 3\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=ONE_THREAD
    )
    assert done.returncode == 0, done.stderr[-600:]


def test_an_incomplete_run_says_so(tmp_path):
    run = start(tmp_path / "run", keep_maps=True)
    run.folder.map_file(1).unlink()
    assert [shard.number for shard in run.missing] == [1], "its maps are gone"
    for numbers in (run.summary, run.comparisons):
        with pytest.warns(UserWarning, match="1 of 3 shards are missing"):
            numbers()
    again = start(tmp_path / "run", keep_maps=True)
    assert len(again.maps("raw_attention")) == 12


def test_a_line_of_the_log_that_was_cut_off_spoils_no_other(tmp_path):
    folder = RunFolder(tmp_path)
    folder.log("start")
    with (tmp_path / "run.log").open("a") as log:
        log.write('{"event": "sha')
    folder.log("start")
    assert len(folder.events("start")) == 2
    (tmp_path / "run.log").unlink()
    (tmp_path / "run.log").mkdir()
    folder.log("a log that cannot be written ends nothing")


def test_out_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(RunError, match="Cannot write"):
            start(out, limit=2)


def test_decoding_in_processes_changes_nothing(tmp_path, finished):
    run = start(tmp_path / "run", workers=2, keep_maps=True)
    assert_same_tables(run, finished)


def write_images(folder, damage=()):
    """Write nine images in three class folders; the named ones are cut off in the middle."""
    draw = np.random.default_rng(0)
    for place in range(9):
        file = folder / SCENE_CLASSES[place % 3] / f"{place}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (60, 80, 3), np.uint8)).save(file)
        if place in damage:
            file.write_bytes(file.read_bytes()[:400])


def test_unreadable_samples_are_recorded_with_their_reason(tmp_path):
    write_images(tmp_path / "images", damage=(0, 4, 8))
    settings = {"evaluator": "perturbation", "dataset": f"folder:{tmp_path / 'images'}"}
    run = start(tmp_path / "run", methods="raw_attention", limit=None, **settings)
    records = run.records()
    assert records["index"].nunique() == 9
    failed = records[records["error"].notna()]
    assert len(failed) == 3 and failed["error"].str.contains("truncated|damaged").all()
    assert (run.summary()["failed"] == 3).all() and (run.summary()["n"] == 6).all()
    lines = run.failures()
    assert len(lines) == 3 and all(
        line.startswith("1 samples failed: Cannot read") for line in lines
    )


class Scenes(ImageDataset):
    """The first scenes, with labels, failures and names to order."""

    name = "mine"
    has_masks = True

    def __init__(self, label=None, failing=(), class_names=None, n=12):
        self.label, self.failing, self.class_names, self.n = label, failing, class_names, n
        self.scenes = open_dataset("scenes")

    def __len__(self):
        return self.n

    def __getitem__(self, index) -> Sample:
        if index in self.failing:
            raise ZeroDivisionError("a decoder's own mistake")
        sample = self.scenes[index]
        return sample if self.label is None else dataclasses.replace(sample, label=self.label)

    def fingerprint(self):
        return {"kind": "mine"}


def test_any_error_of_reading_is_a_failed_sample(tmp_path):
    run = start(tmp_path / "run", dataset=Scenes(failing=range(4)), keep_maps=True)
    failed = run.records().query("error.notna()")
    assert failed["index"].unique().tolist() == [0, 1, 2, 3] and run.missing == []
    assert failed["error"].str.contains("decoder's own mistake").all()
    assert sorted(run.maps("raw_attention")) == [*range(4, 12)], "of the first shard there are none"
    with pytest.raises(InputError, match="decoder's own"):
        start(tmp_path / "none", dataset=Scenes(failing=range(12)))


class Changed(Scenes):
    """The scenes with one part of every sample replaced."""

    def __init__(self, **parts):
        super().__init__()
        self.parts = parts

    def __getitem__(self, index) -> Sample:
        return dataclasses.replace(super().__getitem__(index), **self.parts)


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        ({"mask": torch.zeros(50, 96, dtype=torch.int8)}, "expected equal sizes"),
        ({"label": "disc"}, "integer"),
        ({"label": 1.5}, "integer"),
        ({"mask": np.zeros((96, 96))}, "cpu"),
    ],
)
def test_samples_with_wrong_parts_are_refused(tmp_path, parts, named):
    with pytest.raises(InputError, match=named):
        start(tmp_path / "run", dataset=Changed(**parts))


def test_keys_and_labels_of_other_types(tmp_path):
    run = start(tmp_path / "run", dataset=Changed(key=7, label=np.int64(3)))
    assert set(run.records()["key"]) == {"7"} and run.records()["error"].isna().all()


def test_a_fingerprint_that_no_file_can_hold(tmp_path):
    data = Scenes()
    data.fingerprint = lambda: {"size": (1, 2)}
    start(tmp_path / "run", dataset=data)
    assert start(tmp_path / "run", dataset=data).missing == [], "a tuple comes back as a list"
    data.fingerprint = lambda: {"size": np.int64(1)}
    with pytest.raises(OptionError, match="fingerprint"):
        start(tmp_path / "other", dataset=data)
    with pytest.raises(OptionError, match="ImageDataset"):
        start(tmp_path / "other", dataset=3)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("label", [-1, 10])
def test_a_label_that_is_no_class_is_refused(tmp_path, label):
    with pytest.raises(TargetError, match="10 classes"):
        start(tmp_path / "run", dataset=Scenes(label))


def test_labels_follow_the_names_of_classes(tmp_path, finished):
    """Sorted folders are a permutation of the model's classes; rows must be those of the names."""
    data, right = open_dataset("scenes"), tmp_path / "right"
    for index in finished.records()["index"].unique():
        sample = data[int(index)]
        file = right / SCENE_CLASSES[sample.label] / f"{index:05d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = (sample.image.permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(pixels).save(file)
    settings = {"evaluator": "perturbation", "methods": "raw_attention", "limit": None}
    run = start(tmp_path / "run", dataset=f"folder:{right}", **settings)
    assert run.records()["hits"].map(lambda hits: hits[0]).mean() > 0.9, "it knows its classes"
    places = [SCENE_CLASSES.index(folder.name) for folder in sorted(right.iterdir())]
    assert run.description["model"]["class_of_label"] == places != sorted(places)
    next(right.iterdir()).rename(right / "sunflower")
    with pytest.raises(TargetError, match="'sunflower' is no class"):
        start(tmp_path / "other", dataset=f"folder:{right}", **settings)


def test_a_set_without_one_readable_sample_is_an_error(tmp_path):
    write_images(tmp_path / "images", damage=range(9))
    settings = {"evaluator": "perturbation", "dataset": f"folder:{tmp_path / 'images'}"}
    with pytest.raises(InputError, match="could not be read"):
        start(tmp_path / "run", limit=None, **settings)
    assert not (tmp_path / "run").exists()


def test_what_fails_for_every_sample_ends_before_any_work(tmp_path):
    class Empty(type(open_dataset("scenes"))):
        def __getitem__(self, index):
            return dataclasses.replace(super().__getitem__(index), mask=torch.zeros(96, 96).char())

    with pytest.raises(InputError, match=r"scored \(8 of 10000\).*foreground"):
        start(tmp_path / "run", dataset=Empty("empty", objects=1))
    assert not (tmp_path / "run").exists()


def test_labels_beyond_the_model_s_classes(tmp_path):
    for label in range(12):
        (tmp_path / "images" / f"{label:02d}").mkdir(parents=True)
        Image.new("RGB", (32, 32), (label, 0, 0)).save(tmp_path / f"images/{label:02d}/a.png")
    settings = {"evaluator": "perturbation", "dataset": f"folder:{tmp_path / 'images'}"}
    with pytest.raises(TargetError, match="10 classes"):
        start(tmp_path / "run", methods="raw_attention", limit=None, **settings)


def test_a_data_set_without_what_the_evaluator_needs(tmp_path):
    write_images(tmp_path / "images")
    with pytest.raises(OptionError, match="needs masks"):
        start(tmp_path / "run", dataset=f"folder:{tmp_path / 'images'}")


class Deadly(ImageDataset):
    """The scenes, but reading sample 4 kills the reader, the first time or always."""

    name = "deadly"
    has_masks = True

    def __init__(self, flag, always):
        self.flag, self.always, self.scenes = flag, always, open_dataset("scenes")

    def __len__(self):
        return 12

    def __getitem__(self, index) -> Sample:
        if index == 4 and (self.always or not self.flag.exists()):
            self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.scenes[index]

    def fingerprint(self):
        return {"kind": "deadly"}


def test_a_decoding_process_that_dies_is_replaced(tmp_path):
    run = start(tmp_path / "run", dataset=Deadly(tmp_path / "flag", always=False), workers=1)
    assert (tmp_path / "flag").exists() and run.records()["index"].tolist()[::2] == [*range(12)]
    assert run.records()["error"].isna().all()


def test_a_sample_that_kills_its_reader_is_recorded_as_failed(tmp_path):
    run = start(tmp_path / "run", dataset=Deadly(tmp_path / "flag", always=True), workers=1)
    records = run.records()
    failed = records[records["error"].notna()]
    assert failed["index"].tolist() == [4, 4] and len(records) == 24
    assert failed["error"].str.contains("killed the process").all()
    assert (run.summary()["n"] == 11).all()


def test_two_processes_never_share_a_folder(tmp_path, finished):
    lock = FileLock(finished.path / ".lock", timeout=0)
    with lock, pytest.raises(RunError, match="Another process"):
        start(finished.path, keep_maps=True)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-20], "damaged"),
        (lambda data: b"PAR1" + data[4:100], "damaged"),
        (lambda data: b"", "damaged"),
    ],
)
def test_damaged_records_are_named(tmp_path, damage, message):
    run = start(tmp_path / "run")
    file = run.folder.record_file(2)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(RunError, match=message) as error:
        run.records()
    assert "00002.parquet" in str(error.value) and "Delete it" in str(error.value)
    with pytest.raises(RunError, match=message):
        start(tmp_path / "run")


def test_records_of_another_run_are_refused(tmp_path, finished):
    run = start(tmp_path / "run")
    run.folder.record_file(1).write_bytes(finished.folder.record_file(1).read_bytes())
    with pytest.raises(RunError, match="another run"):
        run.records()


def test_folders_that_are_no_run(tmp_path):
    with pytest.raises(RunError, match="holds no run"):
        Run(tmp_path)
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(RunError, match=r"thesis\.tex"):
        start(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name[0] != ".") == ["thesis.tex"]


def test_run_json_of_the_future_and_damaged(tmp_path):
    run = start(tmp_path / "run", limit=4, shards=1)
    file = run.path / "run.json"
    text = file.read_text()
    file.write_text(text.replace('"format": 1', '"format": 2'))
    with pytest.raises(RunError, match="newer xai-lib"):
        start(tmp_path / "run", limit=4, shards=1)
    file.write_text(text[:100])
    with pytest.raises(RunError, match="cannot be read"):
        Run(run.path)
    file.write_text('{"format": 1}')
    with pytest.raises(RunError, match="configuration"):
        Run(run.path)


def test_a_run_that_began_elsewhere_warns(tmp_path):
    run = start(tmp_path / "run")
    file = run.path / "run.json"
    description = json.loads(file.read_text())
    description["versions"]["torch"] = "1.0"
    file.write_text(json.dumps(description))
    run.folder.record_file(0).unlink()
    with pytest.warns(UserWarning, match=r"versions\.torch"):
        start(tmp_path / "run")


def command(out, **changes):
    settings = {k: v for k, v in (RUN | changes).items() if k not in ("evaluator", "progress")}
    flags = [text for k, v in settings.items() for text in (f"--{k.replace('_', '-')}", str(v))]
    return [sys.executable, "-c", "from xai_lib.cli.main import main; main()", "evaluate",
            RUN["evaluator"], "--out", str(out), *flags]  # fmt: skip


ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done_and_says_how_to_resume(tmp_path):
    big = {"limit": 400, "shards": 100}
    process = subprocess.Popen(
        command(tmp_path / "run", **big), stderr=subprocess.PIPE, text=True, env=ONE_THREAD
    )
    while len(list(tmp_path.glob("run/records/0*.parquet"))) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 130 and "same command goes on" in printed
    assert "Traceback" not in printed
    run = Run(tmp_path / "run")
    assert 0 < len(run.missing) < 100 and not list(run.path.rglob(".part-*"))
    assert len(run.records()) == 2 * 4 * (100 - len(run.missing))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "said"),
    [
        ("xai_lib.runs.work.Work.try_out", "before the work began"),
        ("xai_lib.runs.results.Run.check_finished", "before the work began"),
        ("xai_lib.runs.results.Run.write_tables", "the tables were not written"),
    ],
)
def test_ctrl_c_at_any_moment_is_one_line(tmp_path, moment, said):
    module, owner, name = moment.rsplit(".", 2)
    code = (
        "import sys; from xai_lib.cli.main import main\n"
        f"from {module} import {owner}\n"
        "def stop(*_): raise KeyboardInterrupt\n"
        f"{owner}.{name} = stop; main()"
    )
    words = command(tmp_path / "run")
    done = subprocess.run(
        [words[0], "-c", code, *words[3:]], capture_output=True, text=True, env=ONE_THREAD
    )
    assert done.returncode == 130 and said in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()[-1]) > 40 and "same command" in done.stderr
    assert start(tmp_path / "run").missing == []


def test_memory_of_the_device_that_ends_is_one_error(tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    monkeypatch.setattr("xai_lib.runs.work.Work.compute", full)
    with pytest.raises(RunError, match="smaller --batch-size"):
        start(tmp_path / "run")


@pytest.mark.slow
def test_a_full_disk_loses_nothing(tmp_path, finished):
    """The limit on a file's size stands in for the disk's end: real writes fail half-way."""
    smallest = min(file.stat().st_size for file in finished.path.glob("records/*"))

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (smallest // 2,) * 2)

    out = tmp_path / "run"
    start(out, keep_maps=True)
    Run(out).folder.record_file(2).unlink()
    words = [*command(out), "--keep-maps"]
    done = subprocess.run(words, capture_output=True, text=True, env=ONE_THREAD, preexec_fn=limit)
    assert done.returncode == 2 and "disk is full" in done.stderr
    assert "same command goes on" in done.stderr
    assert [shard.number for shard in Run(out).missing] == [2]
    assert not list(out.rglob(".part-*"))
    done = subprocess.run(words, capture_output=True, text=True, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr
    assert "pointing_game" in done.stdout and "seeds: statistics 0" in done.stdout
    assert_same_tables(Run(out), finished)


@pytest.mark.slow
@pytest.mark.alone
def test_killed_at_random_moments_a_run_equals_an_uninterrupted_one(tmp_path):
    """At least 20 times, some of them in the middle of writing a file."""
    done = subprocess.run(
        [sys.executable, str(HERE / "interrupted_runs.py"), str(tmp_path / "killed"), "24", "7"],
        capture_output=True,
        text=True,
        env=ONE_THREAD,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["killed"] >= 20 and report["half_written"] >= 1
    whole = start(tmp_path / "whole", limit=96, shards=24, keep_maps=True)
    killed = Run(tmp_path / "killed")
    assert_same_tables(killed, whole)
    for shard in whole.shards:
        assert (
            killed.folder.map_file(shard.number).read_bytes()
            == whole.folder.map_file(shard.number).read_bytes()
        )


def test_a_limit_is_spread_over_the_whole_set():
    config = RunConfig("localisation", "m", "d", ("rollout",), limit=5, batch_size=2)
    (shard,) = cut(config, 50)
    assert shard.indices == (0, 10, 20, 30, 40)
    assert shard.batches(2) == [(0, 10), (20, 30), (40,)]


def test_shards_cover_every_sample_once():
    for shards in (None, 1, 7, 100):
        config = RunConfig("sanity", "m", "d", ("rollout",), batch_size=24, shards=shards)
        parts = cut(config, 1000)
        assert [i for part in parts for i in part.indices] == [*range(1000)]
        assert shards is None or len(parts) <= shards
    assert all(len(part.indices) % 24 == 0 for part in cut(config, 1000)[:-1]) or shards
    with pytest.raises(InputError, match="empty"):
        cut(config, 0)


def test_differences_name_the_leaf():
    assert differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2}) == ["a.b: 1 -> 3"]
    assert differences({"a": None}, {"a": {"b": 1}}) == ['a: null -> {"b": 1}']
