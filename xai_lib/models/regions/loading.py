"""The published detector from a user's own files: config, weights and vocabularies."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from xai_lib.errors import CheckpointError, OptionError
from xai_lib.files.weights import read_json, read_safetensors
from xai_lib.models.regions.config import DetectorConfig
from xai_lib.models.regions.detector import RegionDetector

CONFIGS = ("config.yaml", "config.yml", "config.json")
# Safetensors first: it cannot hold anything but numbers.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
CLASSES, ATTRIBUTES = "objects_vocab.txt", "attributes_vocab.txt"


def load_detector(path: str | os.PathLike) -> RegionDetector:
    """Return the detector of a folder, in float32 and eval mode; nothing is downloaded.

    The folder holds `config.yaml` (or .json) and `pytorch_model.bin` or `model.safetensors`, as
    they were published as unc-nlp/frcnn-vg-finetuned; `path` may name the weights file itself. A
    .bin is opened with `weights_only=True`, which reads tensors and refuses to run code.
    `objects_vocab.txt` and `attributes_vocab.txt`, one name per line, are read where they lie
    there. Raises CheckpointError for a file that is missing or damaged, a config without a needed
    field, and weights that lack parameters, bring others or have other shapes, naming them.
    """
    if not isinstance(path, str | os.PathLike):
        raise OptionError(f"path is {path!r}; expected the path of a folder or of a weights file.")
    path = Path(path).expanduser()
    if not path.exists():
        raise CheckpointError(
            f"There is no file or folder {str(path)!r}. The detector's weights are not downloaded: "
            "give the folder that holds config.yaml and pytorch_model.bin."
        )
    folder = path if path.is_dir() else path.parent
    config_file = _first(folder, CONFIGS, "the detector's configuration")
    weights_file = _first(folder, WEIGHTS, "the detector's weights") if path.is_dir() else path
    config = DetectorConfig.from_published(_read_config(config_file), str(config_file))
    detector = RegionDetector(config)
    _fill(detector, _read_weights(weights_file), weights_file)
    detector.class_names = _read_names(folder / CLASSES, config.classes)
    detector.attribute_names = _read_names(folder / ATTRIBUTES, config.attributes)
    return detector.float().eval()


def _first(folder: Path, names: tuple[str, ...], what: str) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(
        f"{folder} lacks {what}, {' or '.join(names)}: copy the checkpoint's whole folder."
    )


def _read_config(path: Path) -> Mapping:
    if path.suffix == ".json":
        return read_json(path)
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{path} is damaged ({' '.join(str(error).split())[:200]}): copy it again."
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds no mapping of names to values: copy it again.")
    return content


def _read_weights(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is no file of tensors alone, or is damaged; anything else in it is refused, "
            "as it could run code. Convert a file that you trust with "
            "safetensors.torch.save_file(state_dict, 'model.safetensors')."
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} is damaged or truncated ({' '.join(str(error).split())[:200]}): download or "
            "copy it again."
        ) from error
    if not isinstance(content, Mapping) or not all(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise CheckpointError(
            f"{path} holds no state dict, parameter names and their tensors: save "
            "model.state_dict() alone."
        )
    return dict(content)


def _fill(detector: RegionDetector, weights: dict[str, Tensor], path: Path) -> None:
    """Copy `weights` into `detector`, every parameter and frozen statistic, or raise."""
    own = detector.state_dict()
    # Counters of training steps say nothing about a frozen norm.
    given = {key: value for key, value in weights.items() if not key.endswith("batches_tracked")}
    missing = [key for key in own if key not in given]
    extra = [key for key in given if key not in own]
    shapes = [
        f"{key} {tuple(given[key].shape)} for {tuple(own[key].shape)}"
        for key in own
        if key in given and given[key].shape != own[key].shape
    ]
    problems = [
        f"{len(keys)} {what} ({', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''})"
        for what, keys in (
            ("missing", missing),
            ("that this detector has not", extra),
            ("of another shape than the config says", shapes),
        )
        if keys
    ]
    if problems:
        raise CheckpointError(
            f"{path} holds the weights of another model, parameters: {'; '.join(problems)}. Give "
            "the weights and the config of one Visual Genome Faster R-CNN."
        )
    broken = [key for key, value in given.items() if not torch.isfinite(value).all()]
    if broken:
        raise CheckpointError(
            f"{path} holds NaN or infinite numbers in {', '.join(broken[:5])}: copy it again."
        )
    detector.load_state_dict(given)


def _read_names(path: Path, count: int) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    names = tuple(
        line.strip()
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
        if line
    )
    if len(names) != count:
        raise CheckpointError(
            f"{path} has {len(names)} lines, the config {count} names: they belong to different "
            "detectors. Copy the right one, or leave it out."
        )
    return names
