"""The same shards on dask workers: real processes on loopback, killed ones included."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

from xai_lib.errors import OptionError, RunError
from xai_lib.runs import Run, evaluate
from xai_lib.runs.cluster import job_queue
from xai_lib.runs.config import Place

RUN = {
    "evaluator": "localisation",
    "model": "vit-scenes",
    "dataset": "scenes",
    "methods": "raw_attention,generic_attention",
    "limit": 48,
    "batch_size": 4,
    "shards": 12,
    "device": "cpu",
    "progress": False,
}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("one_thread", "single_threaded_children"),
]


@pytest.fixture
def single_threaded_children(monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run in one process, which every cluster must equal."""
    import torch

    torch.set_num_threads(1)
    return evaluate(out=tmp_path_factory.mktemp("runs") / "alone", **RUN)


def assert_same(run, alone):
    pd.testing.assert_frame_equal(run.records(), alone.records(), check_exact=True)
    assert (run.path / "summary.csv").read_bytes() == (alone.path / "summary.csv").read_bytes()


def hosts(run):
    return {event["process"] for event in run.folder.events("shard")}


def test_local_workers_give_the_same_table(tmp_path, alone):
    run = evaluate(out=tmp_path / "run", cluster="local:2", **RUN)
    assert_same(run, alone)
    assert len(hosts(run)) == 2 and not any(p.endswith(f":{os.getpid()}") for p in hosts(run))


@pytest.fixture
def scheduler(tmp_path):
    """A scheduler on loopback, and a function that starts one worker process for it."""
    started = []

    def launch(*words):
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=tmp_path,
            start_new_session=True,
        )
        started.append(process)
        return process

    file = tmp_path / "scheduler.json"
    server = launch("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
                    "--scheduler-file", str(file))  # fmt: skip
    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)

    address = json.loads(file.read_text())["address"]
    yield (
        address,
        lambda: launch("worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard",
                       "--local-directory", str(tmp_path)),
        server,
    )  # fmt: skip
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_worker_killed_in_the_middle_costs_nothing(tmp_path, alone, scheduler):
    address, start_worker, _ = scheduler
    workers = [start_worker(), start_worker()]
    done = {}

    def watch():
        # Kill the first worker as soon as it has proved that it takes part.
        records = tmp_path / "run"
        while not done.get("over"):
            if len(list(records.glob("records/0*.parquet"))) >= 3:
                done["processes"] = hosts(Run(records))
                workers[0].send_signal(signal.SIGKILL)
                done["killed_at"] = len(list(records.glob("records/0*.parquet")))
                return
            time.sleep(0.005)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        run = evaluate(out=tmp_path / "run", cluster=address, **RUN)
    finally:
        done["over"] = True
        thread.join()
    assert 3 <= done["killed_at"] < 12 and workers[0].wait() == -signal.SIGKILL
    assert_same(run, alone)
    numbers = [event["number"] for event in run.folder.events("shard")]
    assert sorted(numbers) == [*range(12)], "no shard is missing, none was stored twice"


def test_a_scheduler_that_goes_away_is_one_sentence(tmp_path, alone, scheduler):
    address, start_worker, server = scheduler
    start_worker()

    def stop():
        while len(list(tmp_path.glob("run/records/0*.parquet"))) < 2:
            time.sleep(0.01)
        server.kill()

    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    with pytest.raises(RunError, match="start it again"):
        evaluate(out=tmp_path / "run", cluster=address, **RUN)
    thread.join(timeout=60)
    assert 2 <= 12 - len(Run(tmp_path / "run").missing) < 12
    assert_same(evaluate(out=tmp_path / "run", **RUN), alone)


@pytest.mark.alone
def test_ctrl_c_in_a_terminal_reaches_workers_too_and_is_one_line(tmp_path):
    words = ["evaluate", RUN["evaluator"], "--out", str(tmp_path / "run"), "--cluster", "local:2"]
    for name in ("model", "dataset", "methods", "batch_size", "device"):
        words += [f"--{name.replace('_', '-')}", str(RUN[name])]
    # A shell that started the tests in the background has them ignore what is sent here.
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program += "from xai_lib.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words, "--limit", "4000", "--shards", "400"],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    while len(list(tmp_path.glob("run/records/0*.parquet"))) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, printed = process.communicate(timeout=240)
    assert process.returncode == 130 and "same command goes on" in printed
    assert "Traceback" not in printed


def test_a_run_begun_here_goes_on_there(tmp_path, alone):
    run = evaluate(out=tmp_path / "run", **RUN)
    for number in (0, 5, 6, 11):
        run.folder.record_file(number).unlink()
    run = evaluate(out=tmp_path / "run", cluster="local:1", **RUN)
    assert [e["number"] for e in run.folder.events("shard")][12:] != []
    assert len(run.folder.events("shard")) == 16
    assert_same(run, alone)


def test_no_scheduler_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("xai_lib.runs.cluster.CONNECT_S", 1)
    with pytest.raises(RunError, match=r"tcp://127.*`dask scheduler`"):
        evaluate(out=tmp_path / "run", cluster="tcp://127.0.0.1:9", **RUN)


JOBS = """
kind: {kind}
workers: 2
options:
  queue: workq
  account: explain
  cores: 8
  processes: 4
  memory: 64GB
  walltime: "02:00:00"
  interface: lo
"""


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        ("slurm", ["#SBATCH -p workq", "#SBATCH -A explain", "#SBATCH -t 02:00:00"]),
        ("pbs", ["#PBS -q workq", "#PBS -A explain", "#PBS -l walltime=02:00:00"]),
    ],
)
def test_job_scripts_of_real_queues(tmp_path, monkeypatch, kind, lines):
    import dask_jobqueue.core

    file = tmp_path / "jobs.yaml"
    file.write_text(JOBS.format(kind=kind))
    asked = []
    monkeypatch.setattr(
        dask_jobqueue.core.JobQueueCluster, "scale", lambda self, n: asked.append(n)
    )
    with job_queue(file) as cluster:
        script = cluster.job_script()
    assert asked[0] == 2 and all(line in script for line in lines), script
    assert "--nworkers 4" in script and "dask" in script


def test_the_queues_of_the_docs_give_each_process_one_shard_at_a_time(tmp_path, monkeypatch):
    import dask_jobqueue.core
    import yaml

    monkeypatch.setattr(dask_jobqueue.core.JobQueueCluster, "scale", lambda *_: None)
    page = (Path(__file__).parents[1] / "docs" / "runs.md").read_text(encoding="utf-8")
    blocks = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    assert [block["kind"] for block in blocks] == ["slurm", "pbs"]
    for block in blocks:
        block["options"]["interface"] = "lo"
        file = tmp_path / f"{block['kind']}.yaml"
        file.write_text(yaml.safe_dump(block))
        with job_queue(file) as cluster:
            script = cluster.job_script()
        assert "--nthreads 1 " in script and "--nworkers 4 " in script
        assert block["kind"] == "pbs" or "#SBATCH --cpus-per-task=32" in script


def test_a_host_without_gpus_can_start_a_cluster_that_has_them(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert Place("cuda", cluster="tcp://host:1").torch_device().type == "cpu"
    with pytest.raises(OptionError, match="quantum"):
        Place("quantum", cluster="tcp://host:1").torch_device()


def test_jobs_of_a_queue_compute_the_run(tmp_path, alone):
    """dask-jobqueue's own local queue starts its job scripts with the shell."""
    file = tmp_path / "jobs.yaml"
    file.write_text(
        "kind: local\nworkers: 2\noptions: {cores: 1, processes: 1, memory: 2GB, "
        f"interface: lo, log_directory: '{tmp_path}', local_directory: '{tmp_path}'}}\n"
    )
    run = evaluate(out=tmp_path / "run", cluster=str(file), **RUN)
    assert_same(run, alone)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("kind: slurm\n", "workers"),
        ("kind: cray\nworkers: 2\n", "slurm"),
        ("workers: [", "cluster file"),
        ("- a list\n", "cluster file"),
        ("kind: slurm\nworkers: 1\noptions: {cores: 1, memory: 1GB, colour: red}\n", "refuses"),
    ],
)
def test_damaged_cluster_files(tmp_path, text, named):
    file = tmp_path / "jobs.yaml"
    file.write_text(text)
    with pytest.raises(OptionError, match=named), job_queue(file):
        pass
