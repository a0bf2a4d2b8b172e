"""`evaluate`: start a run or go on with it, here or on a cluster."""

from __future__ import annotations

import dataclasses
import os
import sys
import warnings
from collections.abc import Iterable, Iterator

import torch
from torch import nn
from tqdm.auto import tqdm

from xai_lib.datasets.base import Dataset
from xai_lib.errors import OptionError, RunError, RunInterrupted, UnsupportedModelError
from xai_lib.evaluators import MethodSpec, parse_methods_of
from xai_lib.files.resumable import differences
from xai_lib.runs.config import Place, RunConfig, Shard, cut
from xai_lib.runs.fingerprints import git_revision, versions
from xai_lib.runs.folder import RunFolder
from xai_lib.runs.results import Run
from xai_lib.runs.subjects import AnyProcessor
from xai_lib.runs.work import Computed, Work


def evaluate(
    evaluator: str,
    model: str | tuple[nn.Module, AnyProcessor],
    dataset: str | Dataset,
    methods: str | Iterable[str],
    out: str | os.PathLike,
    *,
    options: dict[str, object] | None = None,
    device: str = "auto",
    workers: int = 0,
    cluster: str | None = None,
    data: str | os.PathLike | None = None,
    progress: bool = True,
    **settings,
) -> Run:
    """Evaluate explanation methods into the folder `out`, or go on with the run that is in it.

    evaluator: a name of `all_evaluators`, with `options`. model, dataset: names, or the objects
    themselves (one machine only). methods: "rollout,attnlrp:OPTION=VALUE", a list, or "all"; of
    `pruning` they are head scores. A CLIP-type model classifies by the data set's class names.
    settings: further fields of `RunConfig` (limit, batch_size, shards, dtype, keep_maps...).
    Finished shards are never computed again. Raises OptionError, MissingDataError and others before
    any work starts, and RunError where the folder or the run fails later; what is done stays.
    """
    given = None if isinstance(model, str | os.PathLike) else _pair(model)
    if given is not None:
        settings = {"dtype": _dtype_of(given[0], device, settings.get("dtype"))} | settings
    opened = None if isinstance(dataset, str) else dataset
    if not isinstance(dataset, str | Dataset):
        raise OptionError(
            f"dataset is {dataset!r}; expected a name, an ImageDataset, a TextDataset or a "
            "QuestionDataset."
        )
    config = RunConfig(
        evaluator=evaluator,
        model=os.fspath(model) if given is None else type(given[0]).__name__,
        dataset=dataset if opened is None else opened.name,
        methods=_labels(parse_methods_of(evaluator, methods)),
        options=dict(options or {}),
        **settings,
    )
    place = Place(device, workers, cluster, None if data is None else os.fspath(data))
    if cluster is not None and (given is not None or opened is not None):
        raise OptionError(
            "A cluster's workers load model and data set themselves: give names or folders that "
            "they can reach, not objects."
        )
    where = place.torch_device() if given is None else next(given[0].parameters()).device
    work = Work.open(config, where, place.data, given, opened)
    folder = RunFolder(out)
    description = describe(work, place)
    folder.check(description)
    if not (folder.exists and not Run(out).missing):
        work.try_out(workers)
    with folder.started(description):
        run = Run(out)
        run.check_finished()
        _note_start(run, place)
        try:
            _finish(run, work, place, progress)
            run.write_tables()
        except KeyboardInterrupt as stop:
            raise _interrupted(run) from stop
        except torch.OutOfMemoryError as error:
            raise RunError(
                f"The device has too little memory ({str(error).splitlines()[0][:160]}). Finished "
                f"shards are in {run.path}; a smaller --batch-size needs a new folder."
            ) from error
    return run


def _interrupted(run: Run) -> RunInterrupted:
    finished = len(run.shards) - len(run.missing)
    run.folder.log("interrupted", finished=finished)
    left = "the one in work was dropped" if run.missing else "the tables were not written"
    return RunInterrupted(
        f"Stopped: {finished} of {len(run.shards)} shards are in {run.path}, {left}. The same "
        "command goes on from there."
    )


def _pair(model: object) -> tuple[nn.Module, AnyProcessor]:
    """Return a model and processor of one's own, or raise an OptionError."""
    kinds = (nn.Module, AnyProcessor)
    if not isinstance(model, tuple) or len(model) != 2 or not all(map(isinstance, model, kinds)):
        raise OptionError(
            f"model is {type(model).__name__}; expected a name, a folder, or the pair (model, "
            "processor) that `xai.load` gives, with a processor of xai_lib.models for your own."
        )
    return model


def _dtype_of(model: nn.Module, device: str, wanted: str | None) -> str:
    """Return the dtype of a model of one's own, which is evaluated as it is and where it is."""
    numbers = [p for p in model.parameters() if p.is_floating_point()]
    if not numbers:
        raise UnsupportedModelError(f"{type(model).__name__} has no parameters to explain.")
    found, where = str(numbers[0].dtype).removeprefix("torch."), numbers[0].device
    if wanted not in (None, found):
        raise OptionError(f"dtype is {wanted}, but the model is {found}: convert it, or leave out.")
    if device != "auto" and torch.device(device).type != where.type:
        raise OptionError(
            f"device is {device}, but the model is on {where}: move it, or leave out."
        )
    return found


def _labels(specs: list[MethodSpec]) -> tuple[str, ...]:
    return tuple(spec.label for spec in specs)


def describe(work: Work, place: Place) -> dict:
    """Return what run.json holds of a run beside its format."""
    samples = len(work.dataset)
    return {
        "configuration": work.config.as_dict(),
        **work.identity(),
        "samples": samples,
        "shards": len(cut(work.config, samples)),
        "seeds": {"statistics": 0} | _seed_of(work),
        "versions": versions(),
        "git": git_revision(),
        "threads": torch.get_num_threads(),
        "place": dataclasses.asdict(place),
        "command": [os.path.basename(sys.argv[0]), *sys.argv[1:]],
    }


def _seed_of(work: Work) -> dict[str, int]:
    seed = getattr(work.evaluator, "seed", None)
    return {} if seed is None else {"evaluator": seed}


def _note_start(run: Run, place: Place) -> None:
    """Log what computes from here on; warn where that is not what the run began with."""
    here = {"versions": versions(), "git": git_revision(), "threads": torch.get_num_threads()}
    run.folder.log("start", **here, place=dataclasses.asdict(place))
    began = {key: run.description[key] for key in ("versions", "threads")}
    if not run.missing:
        began.pop("threads")
    changed = differences(began, {key: here[key] for key in began})
    if changed:
        warnings.warn(
            f"The run in {run.path} began under other conditions: {'; '.join(changed)}. What is "
            "done stays as it is, so its numbers may not be what this code gives; remove the "
            f"folder to compute them again. {run.path}/run.log dates every shard.",
            stacklevel=3,
        )


def _finish(run: Run, work: Work, place: Place, progress: bool) -> None:
    """Compute and store every shard that is missing."""
    missing = run.missing
    if not missing:
        return
    if place.cluster is None:
        computed = compute_here(work, missing, place.workers)
    else:
        from xai_lib.runs.cluster import compute_on_cluster

        computed = compute_on_cluster(work.config, work.identity(), missing, place)
    total = sum(len(shard.indices) for shard in run.shards)
    left = sum(len(shard.indices) for shard in missing)
    with tqdm(
        total=total,
        initial=total - left,
        unit="sample",
        disable=not progress,
        # A log file wants a line now and then, not ten a second.
        mininterval=0.5 if sys.stderr.isatty() else 10,
    ) as bar:
        try:
            for done in computed:
                run.folder.write_shard(done.number, done.records, done.maps)
                run.folder.log(
                    "shard",
                    **{
                        key: value
                        for key, value in vars(done).items()
                        if key not in ("records", "maps")
                    },
                )
                bar.update(done.samples)
        finally:
            computed.close()


def compute_here(work: Work, shards: list[Shard], workers: int) -> Iterator[Computed]:
    """Yield the shards one after the other, computed in this process."""
    loaded = work.batches(shards, workers)
    try:
        for shard in shards:
            yield work.compute(shard, loaded)
    finally:
        loaded.close()
