"""What made a number: the weights, the library versions, the state of the source tree."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PACKAGES = (
    "xai-lib",
    "torch",
    "timm",
    "transformers",
    "tokenizers",
    "numpy",
    "pillow",
    "pyarrow",
    "datasets",
)


def model_fingerprint(model: nn.Module) -> dict[str, str | int]:
    """Return the model's class, parameter count and the sha256 over its state, names included."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    kind = type(model)
    return {
        "class": f"{kind.__module__}.{kind.__qualname__}",
        "parameters": sum(p.numel() for p in model.parameters()),
        "sha256": digest.hexdigest(),
    }


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the sha256 over what a fast tokenizer does."""
    state = tokenizer.backend_tokenizer.to_str()
    # Padding and truncation are settings of the last call, not of the tokenizer.
    kept = {k: v for k, v in json.loads(state).items() if k not in ("padding", "truncation")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


@cache
def _source() -> str:
    """Return 12 digits of the sha256 over this package's code: versions change less often."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(f"{file.relative_to(root).as_posix()}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def versions() -> dict[str, str]:
    """Return the versions of what computes, and a digest of this package's code."""
    found = {"python": platform.python_version(), "code": _source()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def current_platform() -> dict[str, str | int]:
    """Return what decides the last digits of a number: processor, threads and versions."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    found = versions()
    for name in ("code", "xai-lib"):
        found.pop(name)
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": names[0] if names else platform.processor(),
        "threads": torch.get_num_threads(),
        **found,
    }


def git_revision() -> dict[str, str | bool] | None:
    """Return commit and whether the tree has uncommitted changes; None outside a checkout."""
    root = Path(__file__).parents[2]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # An installed package may lie inside somebody else's repository.
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root.resolve():
            return None
        changed = git("status", "--porcelain", "--untracked-files=no")
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return None
