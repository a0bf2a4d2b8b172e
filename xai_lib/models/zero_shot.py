"""A CLIP-type model and fixed prompts as an image classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from xai_lib.errors import InputError, UnsupportedModelError
from xai_lib.models.processors.image import Processor
from xai_lib.models.processors.pair import PairProcessor
from xai_lib.models.prompts import TEMPLATE, class_prompts

_PARTS = ("get_image_features", "get_text_features", "logit_scale")


class ZeroShotClassifier(nn.Module):
    """An image classifier whose classes are texts, around an unmodified CLIP-type model.

    The logit of prompt j is exp(s) <v, t_j> + b, with the unit features v of the image and t_j of
    the text, the model's logit scale s and, in SigLIP, its bias b (else 0): the model's own
    `logits_per_image` (Radford et al., ICML 2021, section 3.1). The text features are computed
    once, here, and carry no gradient, so whatever explains or evaluates an image classifier works
    on it.

    model: CLIP, SigLIP, AltCLIP or any other model of transformers with `get_image_features`,
    `get_text_features` and `logit_scale` that scores pairs in this way. prompts: what the processor
    returns for one text a class (`processor.tokenize(texts)`). class_names: the names that
    `target="..."` takes, one a prompt; by default the texts of the prompts.

    Raises InputError for prompts without ids or names that do not fit them, UnsupportedModelError
    for other models, and where the model scores in another way than by the formula.
    """

    main_input_name = "pixel_values"

    def __init__(
        self,
        model: nn.Module,
        prompts: Mapping[str, Tensor],
        class_names: Sequence[str] | None = None,
    ):
        super().__init__()
        lacking = [part for part in _PARTS if not hasattr(model, part)]
        if lacking:
            raise UnsupportedModelError(
                f"{type(model).__name__} has no {lacking[0]}: expected a model that compares "
                "images with texts, such as transformers' CLIPModel or SiglipModel."
            )
        if not isinstance(prompts, Mapping) and not hasattr(prompts, "keys"):
            raise InputError(
                f"prompts is {type(prompts).__name__}; expected what the processor returns for "
                "texts, processor.tokenize(['a red star', ...])."
            )
        given = {key: prompts[key] for key in prompts.keys() if key != "pixel_values"}  # noqa: SIM118
        ids = given.get("input_ids")
        if not isinstance(ids, Tensor) or ids.dim() != 2 or not len(ids):
            raise InputError("prompts has no input_ids of shape (prompts, tokens).")
        device = next(model.parameters()).device
        given = {key: value.to(device) for key, value in given.items()}
        names = _names(prompts, class_names, len(ids))
        self.model = model
        self.register_buffer("text_features", _text_features(model, given))
        self.config = SimpleNamespace(
            id2label=dict(enumerate(names)),
            label2id={name: i for i, name in enumerate(names)},
            num_labels=len(names),
        )
        self.training = model.training
        self._compare(given)

    def forward(
        self, pixel_values: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch prompts"]:
        """Return the score of every prompt for every image."""
        image = _features(self.model.get_image_features(pixel_values=pixel_values))
        image = F.normalize(image, dim=-1)
        scores = image @ self.text_features.to(image).T * self.model.logit_scale.exp().to(image)
        bias = getattr(self.model, "logit_bias", None)
        return scores if bias is None else scores + bias.to(image)

    @torch.no_grad()
    def _compare(self, prompts: dict[str, Tensor]) -> None:
        """Refuse a model that scores pairs in another way: its explanations would be of another."""
        vision = getattr(self.model.config, "vision_config", self.model.config)
        side, channels = vision.image_size, getattr(vision, "num_channels", 3)
        height, width = (side, side) if isinstance(side, int) else side
        like = self.text_features
        values = torch.linspace(-1, 1, channels * height * width, device=like.device)
        pixels = values.reshape(1, channels, height, width).to(like.dtype)
        was_training = self.training
        self.eval()
        try:
            own = self.model(pixel_values=pixels, **prompts).logits_per_image
            ours = self(pixels)
        finally:
            self.train(was_training)
        scale = own.abs().max().clamp_min(1)
        precision = 1e-4 if own.dtype in (torch.float32, torch.float64) else 0.05
        if own.shape != ours.shape or not ((own - ours).abs() <= precision * scale).all():
            raise UnsupportedModelError(
                f"{type(self.model).__name__} does not score an image and a text by the cosine of "
                "their features, scaled: it cannot be explained as a classifier of fixed prompts. "
                "Explain the model itself with xai.explain and inputs of images and texts."
            )


def zero_shot(
    model: nn.Module,
    processor: PairProcessor,
    class_names: Sequence[str] | None = None,
    template: str = TEMPLATE,
) -> tuple[ZeroShotClassifier, Processor]:
    """Return a classifier of `class_names`, and the processor of its images.

    The prompt of a class is `template` with its name for "{}". class_names: by default the
    processor's. Raises InputError where there are none, and what `class_prompts` and
    `ZeroShotClassifier` raise.

    >>> model, processor = xai.load("clip-scenes")
    >>> classifier, images = zero_shot(model, processor)
    >>> xai.explain(classifier, images(picture), target="red star")
    """
    names = tuple(class_names or processor.class_names)
    if not names:
        raise InputError(
            "There are no class names: this model has none of its own. Give class_names=[...]."
        )
    prompts = processor.tokenize(list(class_prompts(names, template)))
    return ZeroShotClassifier(model, prompts, names), replace(processor.images, class_names=names)


@torch.no_grad()
def _text_features(model: nn.Module, prompts: dict[str, Tensor]) -> Float[Tensor, "prompts dim"]:
    was_training = model.training
    model.eval()
    try:
        return F.normalize(_features(model.get_text_features(**prompts)), dim=-1)
    finally:
        model.train(was_training)


def _features(output) -> Tensor:
    return output if isinstance(output, Tensor) else output.pooler_output


def _names(prompts, class_names: Sequence[str] | None, count: int) -> list[str]:
    if class_names is None:
        texts = getattr(prompts, "texts", None)
        if texts is None:
            return [f"prompt {i}" for i in range(count)]
        names = [text[0] for text in texts]
    else:
        names = [class_names] if isinstance(class_names, str) else [str(n) for n in class_names]
    if len(names) != count:
        raise InputError(f"There are {count} prompts and {len(names)} class names.")
    return names
