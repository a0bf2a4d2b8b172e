"""What a fine-tuning computes: everything that decides the weights it ends with."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass

from xai_lib.errors import OptionError

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class FinetuneConfig:
    """Everything that decides the weights, except where data and base lie and what computes.

    base: "minilm", a name of `xai.load` or a folder. dataset, validation, test: names for
    `open_dataset`; without a validation set, `validation_share` of the training set is cut off
    for it, at most `MOST_HELD_OUT` samples. The test set is scored once, at the end, and decides
    nothing. max_length: tokens to cut texts after; None refuses texts longer than the model takes.
    limit: that many training samples, spread evenly; None for all. checks: validations an epoch.
    precision: of the matrix products; the weights stay float32.
    """

    base: str
    dataset: str
    validation: str | None = None
    test: str | None = None
    validation_share: float = 0.1
    epochs: int = 3
    lr: float = 3e-5
    batch_size: int = 32
    max_length: int | None = None
    seed: int = 0
    limit: int | None = None
    checks: int = 2
    warmup: float = 0.06
    weight_decay: float = 0.01
    precision: str = "float32"
    base_revision: str | None = None
    dataset_revision: str | None = None

    def __post_init__(self):
        for name in ("epochs", "batch_size", "checks", "max_length", "limit"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise OptionError(f"{name} is {value!r}; expected a positive integer.")
        if type(self.seed) is not int or not 0 <= self.seed < 2**32:
            raise OptionError(f"seed is {self.seed!r}; expected an integer from 0 to 2^32 - 1.")
        for name, low, high in (
            ("lr", 0.0, 1.0),
            ("validation_share", 0.0, 1.0),
            ("warmup", -1e-9, 1.0),
            ("weight_decay", -1e-9, 10.0),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise OptionError(f"{name} is {value!r}; expected a number.")
            if not low < value < high:
                low = max(low, 0.0)
                raise OptionError(f"{name} is {value!r}; expected between {low:g} and {high:g}.")
        if self.precision not in PRECISIONS:
            known = " or ".join(PRECISIONS)
            raise OptionError(f"precision is {self.precision!r}; expected {known}.")

    def as_dict(self) -> dict[str, object]:
        return dataclasses.asdict(self)

    def command(self, out: str) -> str:
        """Return the shell command that repeats this training into the folder `out`."""
        words = ["xai", "finetune"]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            required = field.default is dataclasses.MISSING
            if required or value != field.default:
                words += [f"--{field.name.replace('_', '-')}", str(value)]
        return shlex.join([*words, "--out", out])
