"""Reading weight files without pickle, and saying which file is missing, damaged or refused."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from xai_lib.errors import CheckpointError

CONFIG_NAME = "config.json"
PREPROCESSOR_NAME = "preprocessor_config.json"
# Each holds a vocabulary; transformers makes a fast tokenizer of any.
TOKENIZER_NAMES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
PICKLED = (".bin", ".pth", ".pt", ".ckpt", ".pkl")
NO_PICKLE = (
    "pickled weights can run code when they are opened, so they are refused: convert them with "
    "safetensors.torch.save_file(state_dict, 'model.safetensors')."
)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a safetensors file; CheckpointError where it is missing or damaged."""
    if not path.is_file():
        raise CheckpointError(f"{path} is missing.")
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged or truncated ({error}): download or copy it again."
        ) from error


def read_json(path: Path) -> dict:
    """Return the object in a JSON file; CheckpointError where it is missing or damaged."""
    if not path.is_file():
        raise CheckpointError(
            f"{path.parent} lacks {path.name}: copy the checkpoint's whole folder."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(
            f"{path} is damaged or truncated ({error}): copy it again."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object: copy it again.")
    return content


def check_weights(folder: Path) -> None:
    """Raise CheckpointError unless `folder` holds whole safetensors weights.

    A folder holds one `model.safetensors`, or shards that `model.safetensors.index.json` lists.
    Opening a file checks its header against its length, which finds an interrupted download.
    """
    if (folder / INDEX_NAME).is_file() and not (folder / WEIGHTS_NAME).is_file():
        weight_map = read_json(folder / INDEX_NAME).get("weight_map", {})
        names = sorted(set(weight_map.values())) or [WEIGHTS_NAME]
    else:
        names = [WEIGHTS_NAME]
    for name in names:
        path = folder / name
        if not path.is_file():
            pickled = [file.name for file in sorted(folder.iterdir()) if file.suffix in PICKLED]
            reason = f" It has {pickled[0]}, but {NO_PICKLE}" if pickled else ""
            raise CheckpointError(f"{folder} lacks {name}.{reason}")
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{path} is damaged or truncated ({error}): download or copy it again."
            ) from error
