"""Measurements that show where a model of images and captions finds its evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from xai_lib.datasets.worlds.attribute_scenes import AttributeScenes
from xai_lib.datasets.worlds.attributes import (
    ATTRIBUTE_CLASSES,
    CAPTION_ZOOM,
    PLACES,
    SIZES,
    AttributeScene,
)
from xai_lib.datasets.worlds.captions import caption_of, prompts
from xai_lib.datasets.worlds.wording import Draw

if TYPE_CHECKING:
    from transformers import CLIPModel

    from xai_lib.models.processors.pair import PairProcessor


@dataclass(frozen=True)
class Matcher:
    """The cosine of images and texts under a CLIP-type model."""

    model: CLIPModel
    processor: PairProcessor

    @torch.no_grad()
    def images(self, images: Sequence[Tensor]) -> Float[Tensor, "n d"]:
        """Return unit features of images in [0, 1]."""
        mean, std = (
            torch.tensor(values)[:, None, None]
            for values in (self.processor.images.mean, self.processor.images.std)
        )
        parts = (torch.stack(list(images)) - mean).div(std).split(128)
        found = [self.model.get_image_features(pixel_values=part).pooler_output for part in parts]
        return F.normalize(torch.cat(found).float(), dim=-1)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """Return unit features of texts."""
        parts = [list(texts[at : at + 256]) for at in range(0, len(texts), 256)]
        found = [
            self.model.get_text_features(**self.processor.tokenize(part)).pooler_output
            for part in parts
        ]
        return F.normalize(torch.cat(found).float(), dim=-1)


def labels_of(scenes: Sequence[AttributeScene], slot: int = 0) -> Tensor:
    """Return the class (colour and shape) of the object in `slot` of each scene."""
    return torch.tensor([ATTRIBUTE_CLASSES.index(s.objects[slot].name) for s in scenes])


def zero_shot(
    matcher: Matcher,
    images: Sequence[Tensor],
    labels: Tensor,
    texts: Sequence[str] | None = None,
) -> float:
    """Return the part of images whose best text is the label's; texts: by default the classes'."""
    asked = prompts(ATTRIBUTE_CLASSES) if texts is None else texts
    scores = matcher.images(images) @ matcher.texts(asked).T
    return (scores.argmax(1) == labels).double().mean().item()


def retrieval(images: Float[Tensor, "n d"], texts: Float[Tensor, "n d"], group: int) -> float:
    """Return the part of texts whose own image is the best of its group of consecutive ones."""
    hits = [
        (b @ a.T).argmax(1) == torch.arange(len(b))
        for a, b in zip(images.split(group), texts.split(group), strict=True)
    ]
    return torch.cat(hits).double().mean().item()


def one_of_each(groups: int, seed: Sequence[int]) -> list[AttributeScene]:
    """Return `groups` times one scene of every class, in the order of the classes."""
    scenes = AttributeScenes(100_000, seed, 1, zoom=CAPTION_ZOOM)
    waiting: dict[str, list[int]] = {name: [] for name in ATTRIBUTE_CLASSES}
    row = 0
    while min(map(len, waiting.values())) < groups:
        waiting[scenes.objects(row)[0].name].append(row)
        row += 1
    return scenes[[waiting[name][g] for g in range(groups) for name in ATTRIBUTE_CLASSES]]


def measure_clip(model: CLIPModel, processor: PairProcessor, n: int, seed: int) -> dict:
    """Measure a CLIP on n fresh scenes of one object and n of two, without any training.

    `zero_shot`: the part whose best of 64 prompts ("a red star") is right; `size` and `place`: the
    same for the prompts of 2 sizes and 9 places; `two_lead`: the part of scenes of two objects
    whose classes are the two best.
    """
    matcher = Matcher(model, processor)
    one, two = (AttributeScenes(n, (seed, k), k, zoom=CAPTION_ZOOM)[:] for k in (1, 2))
    images = [scene.image for scene in one]
    sizes = torch.tensor([SIZES.index(s.objects[0].size) for s in one])
    places = torch.tensor([PLACES.index(s.objects[0].place) for s in one])
    around = {"top": "at the top", "bottom": "at the bottom"}
    around |= {"left": "on the left", "right": "on the right"}
    asked = [f"an object {around.get(place, f'in the {place}')}" for place in PLACES]
    seen, read = matcher.images([s.image for s in two]), matcher.texts(prompts(ATTRIBUTE_CLASSES))
    top = (seen @ read.T).topk(2).indices.sort(1).values
    wanted = torch.stack((labels_of(two, 0), labels_of(two, 1)), 1).sort(1).values
    return {
        "zero_shot": zero_shot(matcher, images, labels_of(one)),
        "size": zero_shot(matcher, images, sizes, [f"a {size} object" for size in SIZES]),
        "place": zero_shot(matcher, images, places, asked),
        "two_lead": (top == wanted).all(1).double().mean().item(),
        "n": n,
        "seed": seed,
    }


def prove_clip_evidence(model: CLIPModel, processor: PairProcessor, n: int, seed: int) -> dict:
    """Measure that object and words decide: what is left without them, and with nothing else.

    On n scenes of one object, zero-shot accuracy: `intact`; `object_replaced` by the background
    behind it (necessity: falls to chance); `only_object_grey` on mid-grey and `only_object_moved`
    on the background of another scene (sufficiency). On n of two, `other_left`: the part in which
    replacing one object makes the other one the best.

    Of groups of 64 scenes, one of each class, the part of captions (colour and shape in varying
    wording) that find their scene: `caption`; `words_masked` with the words of the evidence
    replaced by the unknown token, `colour_masked` and `shape_masked` with one of them (necessity;
    what is left is 1/8); `only_words` with nothing but them (sufficiency).
    """
    matcher = Matcher(model, processor)
    one, two = (AttributeScenes(n, (seed, k), k, zoom=CAPTION_ZOOM)[:] for k in (1, 2))
    label = labels_of(one)
    half = n // 2
    left = [s.without(int(i >= half)) for i, s in enumerate(two)]
    other = torch.cat((labels_of(two, 1)[:half], labels_of(two, 0)[half:]))
    moved = [s.only(backdrop=one[i - 1].background) for i, s in enumerate(one)]
    classes = len(ATTRIBUTE_CLASSES)
    group = one_of_each(max(1, n // classes), (seed, 3))
    said = [
        caption_of(s.objects, Draw(seed, i), kinds=("shape", "colour")) for i, s in enumerate(group)
    ]
    images, unknown = matcher.images([s.image for s in group]), processor.tokenizer.unk_token
    texts = {
        "caption": [c.text for c in said],
        "words_masked": [c.without(unknown).text for c in said],
        "colour_masked": [c.without(unknown, ("colour",)).text for c in said],
        "shape_masked": [c.without(unknown, ("shape",)).text for c in said],
        "only_words": [c.only() for c in said],
    }
    return {
        "intact": zero_shot(matcher, [s.image for s in one], label),
        "object_replaced": zero_shot(matcher, [s.without() for s in one], label),
        "only_object_grey": zero_shot(matcher, [s.only() for s in one], label),
        "only_object_moved": zero_shot(matcher, moved, label),
        "other_left": zero_shot(matcher, left, other),
        **{k: retrieval(images, matcher.texts(v), classes) for k, v in texts.items()},
        "chance": 1 / classes,
        "n": n,
        "seed": seed,
    }
