"""Measurements that show where a scene or digit model finds its evidence."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from xai_lib.datasets.worlds.digits import DIGIT_CLASSES, handwritten_digits
from xai_lib.datasets.worlds.scenes import SCENE_CLASSES, Scenes

Predict = Callable[[Tensor], Tensor]


@torch.no_grad()
def _logits(predict: Predict, images: Tensor) -> Tensor:
    return torch.cat([predict(part) for part in images.split(128)])


def accuracy(predict: Predict, images: Tensor, labels: Tensor) -> float:
    """Return the part of images (n, 3, H, W; in [0, 1]) whose largest logit is the label's."""
    return (_logits(predict, images).argmax(1) == labels).double().mean().item()


def both_lead(predict: Predict, images: Tensor, labels: Tensor) -> float:
    """Return the part of images whose two largest logits are the two labels (n, 2), any order."""
    top = _logits(predict, images).topk(2).indices.sort(1).values
    return (top == labels.sort(1).values).all(1).double().mean().item()


def measure_scenes(predict: Predict, n: int, seed: int) -> dict[str, float]:
    """Measure a scene classifier on n fresh single-object and n fresh two-object scenes.

    `predict` maps images in [0, 1], (b, 3, 96, 96), to logits. Returned: `single_accuracy`;
    `two_lead`, the part of two-object scenes whose two classes lead the softmax; `n`; `seed`.
    """
    one, two = (Scenes(n, seed=(seed, k), objects=k)[:] for k in (1, 2))
    return {
        "single_accuracy": accuracy(predict, one.image, one.labels[:, 0]),
        "two_lead": both_lead(predict, two.image, two.labels),
        "n": n,
        "seed": seed,
    }


def prove_scene_evidence(predict: Predict, n: int, seed: int) -> dict[str, float]:
    """Measure that the object alone decides: accuracy without it, and with nothing but it.

    On n single-object scenes: `intact`; `object_replaced` by the background behind it (necessity:
    falls to chance); `only_object_grey` on mid-grey and `only_object_moved` on the background of
    another scene (sufficiency). On n two-object scenes: `other_left`, the part in which replacing
    one object makes the other one the prediction.
    """
    one, two = (Scenes(n, seed=(seed, k), objects=k)[:] for k in (1, 2))
    label = one.labels[:, 0]
    other = torch.cat([two.labels[: n // 2, 1], two.labels[n // 2 :, 0]])
    left = torch.cat([two.without(0)[: n // 2], two.without(1)[n // 2 :]])
    return {
        "intact": accuracy(predict, one.image, label),
        "object_replaced": accuracy(predict, one.without(), label),
        "only_object_grey": accuracy(predict, one.only(), label),
        "only_object_moved": accuracy(predict, one.only(backdrop=one.background.roll(1, 0)), label),
        "other_left": accuracy(predict, left, other),
        "chance": 1 / len(SCENE_CLASSES),
        "n": n,
        "seed": seed,
    }


def prove_digit_evidence(predict: Predict, seed: int = 0) -> dict[str, float]:
    """Measure that the strokes alone decide, on the 360 held-out digits.

    `strokes_replaced` by paper (necessity), on black paper and, as `replaced_on_noise`, on noisy
    paper; `strokes_on_grey` and `strokes_on_noise` (sufficiency: same strokes, other paper).
    """
    held = handwritten_digits("test")
    noise = 0.3 * torch.rand(held.image[:, :1].shape, generator=torch.Generator().manual_seed(seed))
    return {
        "intact": accuracy(predict, held.image, held.labels),
        "strokes_replaced": accuracy(predict, held.without(), held.labels),
        "replaced_on_noise": accuracy(predict, held.without() + noise, held.labels),
        "strokes_on_grey": accuracy(predict, held.only(0.2), held.labels),
        "strokes_on_noise": accuracy(predict, held.only(noise), held.labels),
        "chance": 1 / len(DIGIT_CLASSES),
        "n": len(held),
        "seed": seed,
    }
