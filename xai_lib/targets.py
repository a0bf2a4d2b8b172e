"""Which class to explain: predicted, by number, by name, or one per sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from xai_lib.errors import TargetError, unknown_name

Target = None | int | str | Sequence[int | str] | Tensor | np.ndarray | np.integer


def class_names(model: nn.Module) -> tuple[str, ...] | None:
    """Return the model's own class names: a HF config's id2label, a timm config's label_names."""
    id2label = getattr(getattr(model, "config", None), "id2label", None)
    if id2label:
        return tuple(str(id2label[key]) for key in sorted(id2label, key=int))
    names = (getattr(model, "pretrained_cfg", None) or {}).get("label_names")
    return tuple(names) if names else None


def resolve(target: Target, logits: Tensor, names: tuple[str, ...] | None) -> Tensor:
    """Return class indices (batch,) for `target` (see `xai.explain`)."""
    batch, classes = logits.shape
    if target is None:
        return logits.argmax(-1)
    target = _plain(target)
    if isinstance(target, int | str) and not isinstance(target, bool):
        return torch.full((batch,), _index(target, classes, names), device=logits.device)
    if not isinstance(target, Sequence):
        raise TargetError(
            f"target is {target!r}; expected None, a class number from 0 to {classes - 1}, a class "
            "name, or one of these per sample."
        )
    if len(target) != batch:
        raise TargetError(
            f"target has {len(target)} entries for a batch of {batch}; expected one per sample, or "
            "one class number or name for all. For several classes of each sample: targets=[...]."
        )
    chosen = [_index(t, classes, names) for t in target]
    return torch.tensor(chosen, device=logits.device)


def resolve_all(targets, target: Target, logits: Tensor, names) -> Tensor:
    """Return (targets, batch) class indices for `targets=[...]`, or (1, batch) for `target`."""
    if targets is None:
        return resolve(target, logits, names).unsqueeze(0)
    if target is not None:
        raise TargetError("Both target and targets are given; expected one of them.")
    targets = _plain(targets)
    if isinstance(targets, str) or not isinstance(targets, Sequence) or not len(targets):
        raise TargetError(f"targets is {targets!r}; expected a list of at least one target.")
    return torch.stack([resolve(t, logits, names) for t in targets])


def _plain(target):
    """Return a tensor's or array's Python numbers; anything else as it is."""
    return target.tolist() if isinstance(target, Tensor | np.ndarray | np.generic) else target


def _index(target, classes: int, names: tuple[str, ...] | None) -> int:
    if isinstance(target, str):
        if names is None:
            raise TargetError(
                f"target is the name {target!r}, but the model carries no class names. "
                f"Pass a class number from 0 to {classes - 1}."
            )
        found = [i for i, name in enumerate(names) if name == target]
        found = found or [i for i, name in enumerate(names) if target in name.split(", ")]
        if not found:
            raise TargetError(str(unknown_name("class", target, names[:1000])))
        if len(found) > 1:
            raise TargetError(
                f"{target!r} names the classes {' and '.join(map(str, found))}. "
                "Pass the number of the one that you mean."
            )
        return found[0]
    if isinstance(target, bool) or not isinstance(target, int):
        raise TargetError(f"target is {target!r}; expected a class number or name.")
    if not 0 <= target < classes:
        raise TargetError(
            f"target is {target}; the model has {classes} classes: expected 0 to {classes - 1}."
        )
    return target
