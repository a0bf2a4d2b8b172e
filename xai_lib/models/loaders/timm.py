"""timm models: published weights by name, and folders in timm's hub format."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

import torch
from torch import nn

from xai_lib.errors import CheckpointError, OptionError, UnsupportedModelError
from xai_lib.files.hub import fetch_file
from xai_lib.files.weights import WEIGHTS_NAME, check_weights, read_json
from xai_lib.models.processors.image import Processor


def load_timm(name: str, revision: str | None = None) -> tuple[nn.Module, Processor]:
    """Return timm's pretrained model `name` (ARCHITECTURE or ARCHITECTURE.TAG) and its processor.

    The weights are fetched here rather than by timm, so that a revision can be pinned, a missing
    network ends in one sentence, and only safetensors are read.
    """
    import timm

    tagged = timm.list_pretrained()
    if name not in tagged and ("." in name or not timm.is_model(name)):
        near = get_close_matches(name, tagged, n=2, cutoff=0.5)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise OptionError(
            f"timm has no pretrained model {name!r}.{hint} timm.list_pretrained() lists them all."
        )
    source = timm.get_pretrained_cfg(name)
    if not source.hf_hub_id:
        raise CheckpointError(f"timm publishes no weights of {name!r} on the Hugging Face hub.")
    weights = fetch_file(source.hf_hub_id, source.hf_hub_filename or WEIGHTS_NAME, revision)
    names = _imagenet_names(source.num_classes)
    return _create(name, names, file=str(weights), custom_load=False)


def architecture(name: str) -> tuple[nn.Module, Processor]:
    """Return timm's model `name` with random weights, and the processor of its checkpoint."""
    import timm
    from timm.data import resolve_model_data_config

    if not timm.is_model(name.split(".")[0]):
        raise OptionError(f"timm has no model {name!r}.")
    with torch.random.fork_rng(devices=[]):
        model = timm.create_model(name, pretrained=False)
    return model.float().eval(), _processor(resolve_model_data_config(model), name, ())


def load_timm_folder(folder: Path) -> tuple[nn.Module, Processor]:
    """Return the model and processor of a folder that timm's `save_for_hf` or its hub wrote."""
    check_weights(folder)
    config = read_json(folder / "config.json")
    details = config.get("pretrained_cfg", config)
    names = config.get("label_names") or details.get("label_names") or details.get("labels")
    described = config.get("label_descriptions") or details.get("label_descriptions")
    if names and isinstance(described, dict):
        names = [described.get(label, label) for label in names]
    classes = config.get("num_classes") or details.get("num_classes")
    return _create(f"local-dir:{folder}", names or _imagenet_names(classes))


def _imagenet_names(classes: int | None) -> list[str] | None:
    """Return ImageNet's class names for a model of 1,000 classes: nothing else is published so."""
    from timm.data import ImageNetInfo

    return ImageNetInfo("imagenet-1k").label_descriptions() if classes == 1000 else None


def _create(name: str, class_names: list[str] | None, **overlay) -> tuple[nn.Module, Processor]:
    import timm
    from timm.data import resolve_model_data_config

    class_names = tuple(class_names or ())
    try:
        # Weights are about to be loaded: building must not disturb the caller's random numbers.
        with torch.random.fork_rng(devices=[]):
            model = timm.create_model(
                name,
                pretrained=True,
                pretrained_cfg_overlay={**overlay, "label_names": class_names or None},
            )
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"timm cannot load {name!r}: {reason}") from error
    processor = _processor(resolve_model_data_config(model), name, class_names)
    return model.float().eval(), processor


def _processor(facts: dict, name: str, class_names: tuple[str, ...]) -> Processor:
    channels, height, width = facts["input_size"]
    if channels != 3:
        raise UnsupportedModelError(f"{name!r} takes {channels} channels; images here have 3.")
    return Processor((height, width), tuple(facts["mean"]), tuple(facts["std"]), class_names)
