"""The same shards as `dask.distributed` tasks: several processes here, a scheduler, or a job queue.

Workers compute and send back the bytes of a shard's files; only the process that started the run
writes, so that workers need no shared folder for results and nothing is written twice.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import torch

from xai_lib.errors import OptionError, RunError, needs_extra
from xai_lib.runs.config import RunConfig, Shard
from xai_lib.runs.fingerprints import versions
from xai_lib.runs.gpus import claim_gpu
from xai_lib.runs.work import Computed, Work

if TYPE_CHECKING:
    from distributed import Client

    from xai_lib.runs.config import Place

FORMS = "local:N, tcp://HOST:PORT, or a .yaml file for dask-jobqueue"
CONNECT_S = 20
# Whichever of these differs between the client and a worker may change digits.
COMPARED = ("code", "torch", "timm", "transformers", "numpy")


def compute_on_cluster(
    config: RunConfig, identity: dict, shards: list[Shard], place: Place
) -> Iterator[Computed]:
    """Yield the shards as workers finish them, in any order.

    identity: the fingerprints of model and data set that every worker must find as well. A worker
    that dies costs its shard in work, which another one takes; a shard that outlives no worker
    ends the run with a RunError.
    """
    from distributed import as_completed
    from distributed.client import FutureCancelledError
    from distributed.comm import CommClosedError
    from distributed.scheduler import KilledWorker

    with connected(place.cluster) as (client, threads):
        order = {
            "config": config.as_dict(),
            "identity": identity,
            "versions": {name: versions()[name] for name in COMPARED},
            "device": place.device,
            "data": place.data and os.path.abspath(place.data),
            "threads": threads,
        }
        futures = [
            client.submit(compute_shard, order, s.number, s.indices, pure=False) for s in shards
        ]
        try:
            for future in as_completed(futures):
                yield future.result()
                future.release()
        except KilledWorker as error:
            raise RunError(
                f"Several workers died on the same shard ({error}). Finished shards are kept. Look "
                "at the workers' memory and logs, use a smaller --batch-size in a new folder, or "
                "run the same command on one machine to see the error."
            ) from error
        except (FutureCancelledError, CommClosedError) as error:
            raise RunError(
                f"The scheduler at {place.cluster} went away. Finished shards are kept: start it "
                "again, and the same command goes on."
            ) from error
        except ImportError as error:
            raise RunError(
                f"A worker lacks what computes here ({error}): start workers in this environment."
            ) from error
        finally:
            client.cancel(futures)


_LOCK = Lock()
_OPENED: dict[str, Work] = {}


def compute_shard(order: dict, number: int, indices: tuple[int, ...]) -> Computed:
    """Compute one shard on a worker, which loads the model at its first shard and keeps it."""
    # A worker may run several tasks as threads; a model explains one batch at a time anyway.
    with _LOCK:
        work = _opened(order)
        shard = Shard(number, tuple(indices))
        return work.compute(shard, work.batches([shard]))


def _opened(order: dict) -> Work:
    name = repr(sorted(order.items(), key=str))
    if name not in _OPENED:
        found = {package: versions()[package] for package in COMPARED}
        if found != order["versions"]:
            raise RunError(
                f"A worker on {os.uname().nodename} runs {found}, this process runs "
                f"{order['versions']}: their numbers may differ. Install the same versions."
            )
        if order["threads"]:
            torch.set_num_threads(order["threads"])
        config = RunConfig.from_dict(order["config"])
        work = Work.open(config, claim_gpu(order["device"]), order["data"])
        here = work.identity()
        if here != order["identity"]:
            raise RunError(
                f"A worker on {os.uname().nodename} finds another model or data set than this "
                f"process: {here} instead of {order['identity']}. Give paths that mean the same "
                "on every host."
            )
        _OPENED.clear()
        _OPENED[name] = work
    return _OPENED[name]


@contextmanager
def connected(text: str) -> Iterator[tuple[Client, int | None]]:
    """Yield a client for what --cluster names, and the threads each worker should use."""
    needs_extra("cluster", "distributed")
    import distributed

    kind, _, rest = text.partition(":")
    if kind == "local":
        with _local(rest) as (client, threads):
            yield client, threads
    elif kind in ("tcp", "tls", "ucx"):
        try:
            client = distributed.Client(text, timeout=CONNECT_S)
        except (OSError, TimeoutError, ValueError) as error:
            raise RunError(
                f"No scheduler answers at {text}. Start one with `dask scheduler` and workers with "
                f"`dask worker {text} --nthreads 1`, in this environment."
            ) from error
        with client:
            yield client, None
    elif Path(text).suffix in (".yaml", ".yml"):
        with job_queue(Path(text)) as cluster, distributed.Client(cluster) as client:
            yield client, None
    else:
        raise OptionError(f"--cluster {text!r} is none of {FORMS}.")


@contextmanager
def _local(rest: str) -> Iterator[tuple[Client, int | None]]:
    from distributed import Client, LocalCluster

    if not rest.isdecimal() or int(rest) < 1:
        raise OptionError(f"--cluster 'local:{rest}' names no number of workers, as in local:4.")
    count = int(rest)
    # Who sets the variable means it for workers as well; they inherit it.
    shared = None if "OMP_NUM_THREADS" in os.environ else max(1, (os.cpu_count() or 1) // count)
    with (
        LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            memory_limit=0,
            silence_logs="ERROR",
        ) as cluster,
        Client(cluster) as client,
    ):
        client.run(_ignore_ctrl_c)
        yield client, shared


def _ignore_ctrl_c() -> None:
    """Leave Ctrl-C, which a terminal sends to every process, to the one that started the run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def job_queue(path: Path):
    """Yield the dask-jobqueue cluster that a YAML file describes, scaled to its `workers`.

    kind: slurm, pbs, sge, lsf, oar, htcondor, moab or local (jobs as processes here); workers: how
    many; options: keywords of that cluster class, such as queue, account, cores, walltime.
    """
    needs_extra("cluster", "dask_jobqueue")
    import dask_jobqueue
    import yaml
    from dask_jobqueue.local import LocalCluster as JobsHere

    kinds = {
        name.removesuffix("Cluster").lower(): getattr(dask_jobqueue, name)
        for name in dir(dask_jobqueue)
        if name.endswith("Cluster") and name != "JobQueueCluster"
    } | {"local": JobsHere}
    try:
        text = yaml.safe_load(path.read_text(encoding="utf-8"))
        kind, workers, options = text["kind"], int(text["workers"]), dict(text.get("options") or {})
        make = kinds[kind]
    except OSError as error:
        raise OptionError(f"The cluster file {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise OptionError(
            f"{path} is no cluster file ({type(error).__name__}: {error}): expected `kind` (one of "
            f"{', '.join(sorted(kinds))}), `workers` (a number) and `options`."
        ) from error
    try:
        cluster = make(**options)
    except (TypeError, ValueError) as error:
        raise OptionError(f"{path}: dask-jobqueue refuses the options: {error}") from error
    with cluster:
        cluster.scale(workers)
        yield cluster
