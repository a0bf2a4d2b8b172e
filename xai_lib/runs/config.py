"""What a run computes: its whole configuration, as JSON."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field

import torch

from xai_lib import evaluators
from xai_lib.errors import InputError, OptionError
from xai_lib.evaluators import Evaluator, MethodSpec

DTYPES = ("float32", "float64", "bfloat16", "float16")
RESAMPLING = ("bilinear", "bicubic")
SHARD_SAMPLES = 64


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run's numbers, except where data and model lie and what computes.

    model and dataset are names for `xai.load` and `open_dataset`. limit: that many samples, spread
    evenly over the data set; None for all. shards: how many files the records are cut into.
    resample: the filter of the squash to the model's size; the papers use bilinear.
    """

    evaluator: str
    model: str
    dataset: str
    methods: tuple[str, ...]
    options: dict[str, object] = field(default_factory=dict)
    limit: int | None = None
    batch_size: int = 8
    shards: int | None = None
    dtype: str = "float32"
    resample: str = "bilinear"
    keep_maps: bool = False
    model_revision: str | None = None
    dataset_revision: str | None = None

    def __post_init__(self):
        for name in ("batch_size", "limit", "shards"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise OptionError(f"{name} is {value!r}; expected a positive integer.")
        if not isinstance(self.model, str) or not self.model:
            raise OptionError("No model is named: expected one of `xai models`, or a folder.")
        for name, known in (("dtype", DTYPES), ("resample", RESAMPLING)):
            if getattr(self, name) not in known:
                raise OptionError(
                    f"{name} is {getattr(self, name)!r}; expected one of {', '.join(known)}."
                )

    def build(self) -> tuple[Evaluator, list[MethodSpec]]:
        """Return the evaluator and the methods, after checking every name and option."""
        evaluator = evaluators.create(self.evaluator, **self.options)
        return evaluator, evaluator.parse_methods(list(self.methods))

    def as_dict(self) -> dict[str, object]:
        return as_json(dataclasses.asdict(self), "An option")

    @classmethod
    def from_dict(cls, values: dict[str, object]) -> RunConfig:
        return cls(**values | {"methods": tuple(values["methods"])})

    def digest(self) -> str:
        """Return 16 hexadecimal digits that stand for this configuration."""
        text = json.dumps(self.as_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Shard:
    """One slice of the work: a number and the places of its samples in the data set."""

    number: int
    indices: tuple[int, ...]

    def batches(self, size: int) -> list[tuple[int, ...]]:
        return [self.indices[i : i + size] for i in range(0, len(self.indices), size)]


def cut(config: RunConfig, samples: int) -> list[Shard]:
    """Return the shards of a data set of `samples`: equal slices, whole batches where possible.

    A limit takes every k-th sample, because published sets are sorted by class.
    """
    if samples < 1:
        raise InputError(f"The data set {config.dataset!r} is empty: there is nothing to evaluate.")
    count = min(config.limit or samples, samples)
    chosen = [i * samples // count for i in range(count)]
    if config.shards is None:
        size = -(-SHARD_SAMPLES // config.batch_size) * config.batch_size
    else:
        size = -(-count // config.shards)
    slices = [tuple(chosen[i : i + size]) for i in range(0, count, size)]
    return [Shard(number, indices) for number, indices in enumerate(slices)]


def as_json(values: dict, what: str) -> dict:
    """Return `values` as a JSON file gives them back, where a tuple is a list."""
    try:
        return json.loads(json.dumps(values))
    except TypeError as error:
        raise OptionError(f"{what} is not what JSON holds ({error}): give plain values.") from error


@dataclass(frozen=True)
class Place:
    """Where a run computes and finds its data: what may change when it goes on.

    device: "auto", "cpu", "cuda", ...; workers: processes that read samples; cluster: None,
    "local:N", "tcp://HOST:PORT" or a file for dask-jobqueue; data: path of the data set.
    """

    device: str = "auto"
    workers: int = 0
    cluster: str | None = None
    data: str | None = None

    def __post_init__(self):
        if type(self.workers) is not int or self.workers < 0:
            raise OptionError(f"workers is {self.workers!r}; expected a number of processes, or 0.")

    def torch_device(self) -> torch.device:
        """Return where this process computes; workers of a cluster look for themselves."""
        found = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self.device == "auto":
            return found
        try:
            device = torch.device(self.device)
            if self.cluster is not None and device.type == "cuda":
                # The host that starts a cluster's jobs often has no GPU.
                return found
            torch.zeros(1, device=device).item()
        except (RuntimeError, AssertionError) as error:
            reason = (str(error) or repr(error)).splitlines()[0]
            raise OptionError(f"device {self.device!r} cannot be used here: {reason}") from error
        return device
