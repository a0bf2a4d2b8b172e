"""Reading a run: its records, tables and maps."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from xai_lib.errors import RunError
from xai_lib.evaluators import Evaluator
from xai_lib.files.writing import written
from xai_lib.runs.config import RunConfig, Shard, cut
from xai_lib.runs.folder import RunFolder

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import Tensor


class Run:
    """A run's folder, opened for reading: `Run("runs/segmentation").summary()`."""

    def __init__(self, path: str | os.PathLike):
        self.folder = RunFolder(path)
        self.description = self.folder.read()
        try:
            self.config = RunConfig.from_dict(self.description["configuration"])
            self.samples: int = self.description["samples"]
            self.shards: list[Shard] = cut(self.config, self.samples)
        except (KeyError, TypeError) as error:
            raise RunError(f"{self.path}/run.json lacks {error}: it is no whole file.") from error
        self.evaluator, self.methods = self.config.build()
        self.evaluator: Evaluator

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def missing(self) -> list[Shard]:
        """Shards that have not been computed yet."""
        return [
            shard
            for shard in self.shards
            if not self.folder.is_done(shard.number)
            or (self.config.keep_maps and not self.folder.map_file(shard.number).is_file())
        ]

    @property
    def provenance(self) -> str:
        """One sentence: what was computed, by which code, on what."""
        config, made = self.config, self.description
        git = made["git"]
        commit = "" if git is None else f", commit {git['commit'][:10]}"
        commit += " and changes" if git and git["changed"] else ""
        n = sum(len(shard.indices) for shard in self.shards)
        return (
            f"{config.evaluator} of {config.model} on {n:,} of {self.samples:,} samples of "
            f"{config.dataset}, {config.dtype}, xai-lib {made['versions']['xai-lib']}{commit}"
        )

    def records(self) -> DataFrame:
        """Return one row a sample and group, in the order of the data set.

        Raises RunError for a shard that is damaged or belongs to another run, naming the file.
        """
        import pyarrow as pa

        tables = [
            self.read_shard(shard.number)
            for shard in self.shards
            if self.folder.is_done(shard.number)
        ]
        if not tables:
            raise RunError(f"{self.path} has no finished shard yet: run its command again.")
        table = pa.concat_tables(tables, promote_options="permissive")
        return table.replace_schema_metadata(None).to_pandas()

    def check_finished(self) -> None:
        """Raise RunError if a finished shard is damaged or strange."""
        for shard in self.shards:
            if self.folder.is_done(shard.number):
                self.read_shard(shard.number)

    def read_shard(self, number: int):
        """Return the parquet table of one finished shard."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = self.folder.record_file(number)
        advice = "Delete it and run the same command: only this shard is computed again."
        try:
            table = pq.read_table(file)
        except (OSError, pa.ArrowInvalid) as error:
            raise RunError(f"{file} is damaged ({str(error).strip()[:120]}). {advice}") from error
        facts = table.schema.metadata or {}
        expected = {b"xai_run": self.config.digest().encode(), b"xai_shard": str(number).encode()}
        if {key: facts.get(key) for key in expected} != expected:
            raise RunError(f"{file} belongs to another run or shard. {advice}")
        return table

    def summary(self) -> DataFrame:
        """Return the table of metrics: value, 95 % interval, n and failures (`summarise`)."""
        from xai_lib.statistics.summary import summarise

        self._say_if_incomplete()
        return summarise(self.records(), self.evaluator.metrics, self.evaluator.groups)

    def comparisons(self) -> DataFrame:
        """Return the paired differences between methods with Holm's p-values (`compare`)."""
        from xai_lib.statistics.summary import compare

        self._say_if_incomplete()
        return compare(self.records(), self.evaluator.metrics, self.evaluator.groups)

    def _say_if_incomplete(self) -> None:
        if self.missing:
            warnings.warn(
                f"{len(self.missing)} of {len(self.shards)} shards are missing in {self.path}: "
                "numbers are of the others. The run's command computes them.",
                stacklevel=3,
            )

    def failures(self, most: int = 3) -> list[str]:
        """Return one line per reason why rows have no numbers, with some of the samples."""
        records = self.records()
        failed = records[records["error"].notna()]
        return [
            f"{rows['index'].nunique()} samples failed: {reason} ({', '.join(names)})"
            for reason, rows in failed.groupby("error", sort=False)
            for names in [rows["key"].unique()[:most]]
        ]

    def maps(self, method: str) -> dict[int, Tensor]:
        """Return the stored relevance (rows, columns), or (tokens,), in float32 by sample index.

        Samples of which the method gave no map are left out. Raises RunError if the run keeps no
        maps, or none of this method.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if not self.config.keep_maps:
            raise RunError(f"{self.path} keeps no maps: run it with --keep-maps in a new folder.")
        if method not in self.config.methods:
            known = ", ".join(self.config.methods)
            raise RunError(f"{self.path} holds no maps of {method!r}, only of {known}.")
        found = {}
        for shard in self.shards:
            file = self.folder.map_file(shard.number)
            if not self.folder.is_done(shard.number):
                continue
            try:
                tensors = load_file(file)
            except (OSError, SafetensorError) as error:
                raise RunError(
                    f"{file} is damaged or missing ({error}). Delete it and run the same command: "
                    "only this shard is computed again."
                ) from error
            if method not in tensors:  # every sample of the shard failed
                continue
            stored, scale = tensors[method].float(), tensors[f"{method}/scale"]
            values = list(stored * scale.view(-1, *[1] * (stored.dim() - 1)))
            if f"{method}/length" in tensors:
                lengths = tensors[f"{method}/length"].tolist()
                values = [scores[:n] for scores, n in zip(values, lengths, strict=True)]
            indices = tensors[f"{method}/index"].tolist()
            found |= dict(zip(indices, values, strict=True))
        return found

    def write_tables(self) -> None:
        """Write summary.csv and comparisons.csv into the folder."""
        for name, table in (("summary", self.summary()), ("comparisons", self.comparisons())):
            with self.folder.writing(), written(self.path / f"{name}.csv") as partial:
                table.to_csv(partial, index=False)
