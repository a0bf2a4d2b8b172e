"""What a table costs: each method timed without its first call; GPUs shared out among workers."""

import time
from types import SimpleNamespace

import pytest
import torch

from xai_lib.errors import OptionError
from xai_lib.evaluators.perturbation import Perturbation
from xai_lib.runs import gpus
from xai_lib.runs.plan import plan

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def timed(monkeypatch):
    """Make every method take 10 ms an image, and 1 s more when it is called first."""
    seen = []

    def rows(self, subject, batch, methods):
        if methods[0].label not in {label for label, _ in seen}:
            time.sleep(1)
        seen.append((methods[0].label, batch))
        time.sleep(0.01 * len(batch))
        return iter(())

    monkeypatch.setattr(Perturbation, "rows", rows)
    return seen


def test_first_calls_do_not_count(timed):
    planned = plan("perturbation", "vit-scenes", "rollout,raw_attention,lrp", samples=3600,
                   nodes=2, batch_size=4, device="cpu")  # fmt: skip
    table = planned.table.set_index("method")
    assert list(table.index) == ["rollout", "raw_attention", "lrp", "all"]
    for method in ("rollout", "raw_attention", "lrp"):
        assert 0.01 <= table["seconds per image"][method] < 0.05
    row = table.loc["lrp"]
    assert row["hours"] == pytest.approx(row["seconds per image"] * 3600 / 2 / 3600)
    assert table["hours"]["all"] == pytest.approx(table["hours"][:3].sum())


@pytest.mark.parametrize("batch_size", [1, 3, 10])
def test_one_label_of_five_is_wrong_whatever_the_batch(timed, batch_size):
    from xai_lib.models import load

    plan("perturbation", "vit-scenes", "rollout", batch_size=batch_size, device="cpu")
    measured = [batch for _, batch in timed[1:]]
    assert all(len(batch) == batch_size for batch in measured)
    images = torch.cat([batch.images for batch in measured])
    labels = torch.cat([batch.labels for batch in measured])
    model, processor = load("vit-scenes")
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (processor.mean, processor.std))
    with torch.no_grad():
        wrong = (model((images - mean) / std).argmax(-1) != labels).sum().item()
    assert wrong == round(len(images) / 5) > 0


@pytest.mark.parametrize("name", ["samples", "nodes", "repeats"])
def test_no_samples_cost_no_time(name):
    with pytest.raises(OptionError, match=name):
        plan("perturbation", "vit-scenes", "rollout", device="cpu", **{name: 0})


@pytest.fixture
def two_gpus(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid=f"GPU-{i}")
    )
    monkeypatch.setattr(gpus.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(gpus, "_HELD", [])
    return tmp_path


def test_workers_of_a_host_take_different_gpus(two_gpus):
    taken = [gpus.claim_gpu("auto") for _ in range(2)]
    assert [device.index for device in taken] == [0, 1]
    assert gpus.claim_gpu("cuda").type == "cuda", "a third one doubles up"
    assert gpus.claim_gpu("cuda:1").index == 1 and gpus.claim_gpu("cpu").type == "cpu"


def test_another_user_s_locks_are_left_alone(two_gpus, monkeypatch):
    gpus.claim_gpu("cuda")
    mine = {file.name for file in two_gpus.iterdir()}
    monkeypatch.setattr(gpus.os, "getuid", lambda: 4711)
    assert gpus.claim_gpu("cuda").index == 0
    assert len({file.name for file in two_gpus.iterdir()} - mine) == 1


def test_a_gpu_that_is_not_there(two_gpus, monkeypatch):
    with pytest.raises(OptionError, match="has 2 GPUs"):
        gpus.claim_gpu("cuda:2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert gpus.claim_gpu("auto").type == "cpu"
    with pytest.raises(OptionError, match="has 0 GPUs"):
        gpus.claim_gpu("cuda")
