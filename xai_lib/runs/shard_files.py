"""A shard's rows and maps as the bytes of its files."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

# Maps by method and sample index.
Stored = dict[str, dict[int, Tensor]]


def as_parquet(rows: list[dict], digest: str, number: int) -> bytes:
    """Return rows as parquet bytes that say which run and shard they belong to."""
    table = pa.Table.from_pylist(rows)
    table = table.replace_schema_metadata({"xai_run": digest, "xai_shard": str(number)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def as_safetensors(stored: Stored) -> bytes:
    """Return maps as float16 fractions of each map's largest magnitude, with that scale beside.

    NAME (n, rows, columns) float16, or (n, tokens) of texts, 0 behind the end of the shorter ones;
    NAME/scale (n,) float32; NAME/index (n,) int64; NAME/length (n,) int64, of texts alone.
    Relevance of some rules exceeds what float16 holds, hence the scale.
    """
    from safetensors.torch import save

    tensors = {}
    for method, entries in stored.items():
        if next(iter(entries.values())).dim() == 1:
            lengths = [len(scores) for scores in entries.values()]
            tensors[f"{method}/length"] = torch.tensor(lengths)
            maps = torch.nn.utils.rnn.pad_sequence(list(entries.values()), batch_first=True)
        else:
            maps = torch.stack(list(entries.values()))
        scale = maps.flatten(1).abs().amax(1)
        divisor = scale.clamp(min=torch.finfo(torch.float32).tiny)
        fraction = maps / divisor.view(-1, *[1] * (maps.dim() - 1))
        tensors[method] = fraction.half().contiguous()
        tensors[f"{method}/scale"] = scale
        tensors[f"{method}/index"] = torch.tensor(list(entries))
    return save(tensors)
