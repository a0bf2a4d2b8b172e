"""transformers image classifiers from a local folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from xai_lib.errors import CheckpointError, UnsupportedModelError
from xai_lib.files.weights import PREPROCESSOR_NAME, check_weights, read_json
from xai_lib.models.processors.image import Processor
from xai_lib.streams.labels import class_names


def load_hf_folder(folder: Path) -> tuple[nn.Module, Processor]:
    """Return the image classifier and the processor of a folder that `save_pretrained` wrote.

    Every parameter must come from the file: transformers would fill a missing classifier with
    random numbers and only warn, and its explanations would look like any others.
    """
    check_weights(folder)
    read_json(folder / PREPROCESSOR_NAME)
    from transformers import AutoModelForImageClassification

    model = pretrained(AutoModelForImageClassification, folder, "image classifier")
    return model, image_processor(folder, model)


def pretrained(kind: type, folder: Path, what: str) -> nn.Module:
    """Return the model that the Auto class `kind` loads from `folder`, in float32 and eval mode.

    Raises UnsupportedModelError where the folder holds no `what`, and CheckpointError where files
    are damaged or leave a parameter without its value.
    """
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            model, report = kind.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except ValueError as error:
        raise UnsupportedModelError(f"{folder} holds no {what}: {sentence(error)}") from error
    except (OSError, RuntimeError, KeyError) as error:
        raise CheckpointError(f"transformers cannot load {folder}: {sentence(error)}") from error
    absent = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if absent:
        raise CheckpointError(
            f"The weights in {folder} do not fill {len(absent)} parameters of "
            f"{type(model).__name__} ({', '.join(absent[:3])}, ...): it was saved from another "
            "model, one without a classifier perhaps."
        )
    return model.eval()


def image_processor(folder: Path, model: nn.Module) -> Processor:
    """Return the image side's processor of a folder; CheckpointError where its file is damaged."""
    from transformers import AutoImageProcessor

    try:
        facts = AutoImageProcessor.from_pretrained(folder, local_files_only=True).to_dict()
    except (OSError, ValueError, KeyError) as error:
        file = folder / PREPROCESSOR_NAME
        raise CheckpointError(f"{file} cannot be used: {sentence(error)}") from error
    mean, std = facts.get("image_mean"), facts.get("image_std")
    if not facts.get("do_normalize", True):
        mean, std = (0.0,) * 3, (1.0,) * 3
    # The processor computes (factor * byte - mean) / std; ours starts at byte / 255.
    scale = 255 * facts.get("rescale_factor", 1 / 255) if facts.get("do_rescale", True) else 255
    return Processor(
        _size(facts, model, folder),
        tuple(float(value) / scale for value in mean),
        tuple(float(value) / scale for value in std),
        class_names(model, model.config.num_labels) or (),
    )


def _size(facts: dict, model: nn.Module, folder: Path) -> tuple[int, int]:
    """Return (H, W): what the model was built for, or else what its processor makes."""
    vision = getattr(model.config, "vision_config", model.config)
    candidates = [getattr(vision, "image_size", None), facts.get("crop_size"), facts.get("size")]
    for size in candidates:
        if isinstance(size, int):
            return size, size
        if isinstance(size, (list, tuple)) and len(size) == 2:
            return int(size[0]), int(size[1])
        if isinstance(size, dict) and "height" in size:
            return int(size["height"]), int(size["width"])
        if isinstance(size, dict) and "shortest_edge" in size:
            return int(size["shortest_edge"]), int(size["shortest_edge"])
    raise CheckpointError(f"{folder} says no image size: add 'image_size' to its config.json.")


def sentence(error: Exception) -> str:
    """Return the start of another library's message, in one line."""
    return " ".join(str(error).split())[:300]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' progress bar and key report: what matters of it becomes an error."""
    from transformers.utils import logging as hf_logging

    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity(logging.ERROR)
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()
