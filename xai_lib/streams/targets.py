"""Which of the scores to explain: by number, by name, one against another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from xai_lib.errors import TargetError, unknown_name

Target = None | int | str | Sequence | Int[Tensor, "..."] | np.ndarray | np.integer

# Stands where nothing is explained against.
NONE = -1
# Of a model of one score: what speaks for a low one, minus the score.
LOW = -1
# The stream of the texts that others are explained against.
AGAINST = "against"


def resolve(
    target: Target, logits: Float[Tensor, "batch classes"], names: tuple[str, ...] | None
) -> Int[Tensor, " batch"]:
    """Return class indices (batch,) for `target` (see `xai.explain`)."""
    batch, classes = logits.shape
    if target is None:
        return logits.argmax(-1)
    target = _plain(target)
    if isinstance(target, int | str) and not isinstance(target, bool):
        return torch.full((batch,), _index(target, classes, names), device=logits.device)
    if not isinstance(target, Sequence) or isinstance(target, tuple):
        raise TargetError(
            f"target is {target!r}; expected None, a class number from 0 to {classes - 1}, a class "
            "name, or a list with one of these per sample. xai.explain also takes a tuple "
            "(one, other): why one rather than the other."
        )
    if len(target) != batch:
        raise TargetError(
            f"target has {len(target)} entries for a batch of {batch}; expected one per sample, or "
            "one class number or name for all. For several classes of each sample: targets=[...]."
        )
    chosen = [_index(t, classes, names) for t in target]
    return torch.tensor(chosen, device=logits.device)


def resolve_pair(
    target: Target, logits: Float[Tensor, "batch classes"], names: tuple[str, ...] | None
) -> Int[Tensor, "batch 2"]:
    """Return (batch, 2): the class that is explained, and the one it is explained against or NONE.

    A tuple (one, other) asks for the difference of two logits; in a list, for its sample. Of one
    score LOW stands against 0: minus the score.
    """
    if isinstance(target, tuple):
        if len(target) != 2:
            raise TargetError(
                f"target is the tuple {target!r}; a tuple means (one, other), the difference of "
                "two logits. For one class per sample pass a list."
            )
        if logits.shape[1] == 1:
            raise TargetError(
                f"target is {target!r}, but the model has one score, against which there is no "
                f"other. {_ONE_SCORE}"
            )
        pair = torch.stack([resolve(one, logits, names) for one in target], 1)
        if (pair[:, 0] == pair[:, 1]).any():
            raise TargetError(f"target is {target!r}: a class against itself explains nothing.")
        return pair
    if isinstance(target, list) and any(isinstance(one, tuple) for one in target):
        if len(target) != len(logits):
            raise TargetError(f"target has {len(target)} entries for a batch of {len(logits)}.")
        rows = zip(target, logits.split(1), strict=True)
        return torch.cat([resolve_pair(one, row, names) for one, row in rows])
    one = resolve(target, logits, names)
    against = torch.where(one == LOW, 0, NONE)
    return torch.stack([one, against], 1)


def resolve_all(
    targets: Target,
    target: Target,
    logits: Float[Tensor, "batch classes"],
    names: tuple[str, ...] | None,
) -> Int[Tensor, "targets batch 2"]:
    """Return (targets, batch, 2) for `targets=[...]`, or (1, batch, 2): see `resolve_pair`."""
    if targets is None:
        return resolve_pair(target, logits, names).unsqueeze(0)
    if target is not None:
        raise TargetError("Both target and targets are given; expected one of them.")
    targets = _plain(targets)
    if isinstance(targets, str) or not isinstance(targets, Sequence) or not len(targets):
        raise TargetError(f"targets is {targets!r}; expected a list of at least one target.")
    return torch.stack([resolve_pair(t, logits, names) for t in targets])


_ONE_SCORE = "0 or None explains what makes it high, -1 what makes it low (minus the score)."


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
    if classes == 1 and target not in (0, LOW):
        raise TargetError(f"target is {target}; the model has one score. {_ONE_SCORE}")
    if classes > 1 and not 0 <= target < classes:
        raise TargetError(
            f"target is {target}; the model has {classes} classes: expected 0 to {classes - 1}."
        )
    return target
